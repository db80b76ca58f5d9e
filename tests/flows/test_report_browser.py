"""The page of a report in a real browser: it logs nothing, fetches nothing, and can be read on every screen."""

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import attacked_run, make_run, with_more_iterations

from flows.report.page import page
from flows.report.runs_page import runs_page
from hir_core.inspect.report import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PAGES = ("small", "long", "attacked", "runs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright, of the extra `dev`"),
]
OPEN_ALL = "document.querySelectorAll('details').forEach(one => one.open = true)"
TEXTS = """() => {
  const clear = colour => colour === 'rgba(0, 0, 0, 0)';
  const ground = one => { while (one && clear(getComputedStyle(one).backgroundColor)) one = one.parentElement;
                          return getComputedStyle(one || document.body).backgroundColor; };
  const own = one => [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  const drawn = one => one.getClientRects().length && !one.closest('title');
  return [...document.querySelectorAll('body *')].filter(one => own(one) && drawn(one)).map(one => {
    const style = getComputedStyle(one), inSvg = one instanceof SVGElement;
    const size = parseFloat(style.fontSize) * (inSvg ? one.getScreenCTM().a : 1);
    return [one.textContent.slice(0, 40), inSvg ? style.fill : style.color, ground(one), size];
  });
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Pages of a small run, of a run of thirty iterations, of a run whose texts are an attack, and of two runs."""
    folder = tmp_path_factory.mktemp("pages")
    small, attacked = build_report(make_run(folder)), build_report(attacked_run(folder))
    reports = {"small": small, "long": with_more_iterations(small, 30), "attacked": attacked}
    for name, report in reports.items():
        (folder / f"{name}.html").write_text(page(report))
    (folder / "runs.html").write_text(runs_page([small, attacked]))
    return {name: folder / f"{name}.html" for name in PAGES}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser, pages) -> Iterator[Any]:
    """Opens a page, all of it unfolded, in a window of a width and colour scheme; lists its messages and requests."""
    contexts = []

    def open_tab(name: str, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        tab, events = context.new_page(), []
        tab.on("console", lambda message: events.append(("console", message.text)))
        tab.on("pageerror", lambda error: events.append(("error", str(error))))
        tab.on("dialog", lambda dialog: (events.append(("dialog", dialog.message)), dialog.dismiss()))
        tab.on("request", lambda request: events.append(("request", request.url)))
        tab.goto(pages[name].as_uri())
        tab.evaluate(OPEN_ALL)
        tab.wait_for_timeout(100)
        return tab, events

    yield open_tab
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", PAGES)
def test_the_page_logs_nothing_and_fetches_nothing(name, open_page, pages):
    tab, events = open_page(name)
    assert events == [("request", pages[name].as_uri())]
    assert tab.title() != ""
    assert tab.evaluate("document.scripts.length") == (name != "runs")


def test_the_table_of_samples_can_be_searched(open_page):
    tab, events = open_page("small")
    shown = "[...document.querySelectorAll('#sample-table tbody tr')].filter(row => row.getClientRects().length).length"
    assert tab.evaluate(shown) == 6
    tab.fill("#sample-search", "1 + 3 0.25")
    assert (tab.evaluate(shown), tab.inner_text("#sample-count")) == (0, "0 of 6")
    tab.fill("#sample-search", "1 + 3?")
    assert (tab.evaluate(shown), tab.inner_text("#sample-count")) == (2, "2 of 6")
    tab.fill("#sample-search", "")
    assert tab.evaluate(shown) == 6
    assert len(events) == 1  # the request for the page


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [360, 800])
def test_the_page_never_scrolls_sideways(name, width, open_page):
    tab, _ = open_page(name, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    wide = "[...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth).length"
    assert width > 360 or tab.evaluate(wide) > 3  # the tables do, each in its box


def channels(colour: str) -> list[float]:
    match = re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour)
    assert match, f"not an opaque colour: {colour}"
    return [int(value) / 255 for value in match.groups()]


def luminance(colour: str) -> float:
    """Relative luminance as in WCAG 2."""
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels(colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    darker, lighter = sorted((luminance(a), luminance(b)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(scheme, open_page):
    tab, _ = open_page("small", 360, scheme)
    texts = tab.evaluate(TEXTS)
    assert len(texts) > 300
    assert [text for text, ink, ground, _ in texts if contrast(ink, ground) < 4.5] == []
    assert [text for text, _, _, size in texts if size < 10] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_stand_out_from_the_page(scheme, open_page):
    tab, _ = open_page("small", 1280, scheme)
    strokes = tab.evaluate("[...document.querySelectorAll('polyline')].map(one => getComputedStyle(one).stroke)")
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert strokes
    assert [stroke for stroke in strokes if contrast(stroke, ground) < 3] == []


def test_light_and_dark_differ(open_page):
    ink = "(style => [style.backgroundColor, style.color])(getComputedStyle(document.body))"
    light, dark = (open_page("small", 1280, scheme)[0].evaluate(ink) for scheme in ("light", "dark"))
    assert luminance(light[0]) > 0.8 > 0.2 > luminance(dark[0])
    assert luminance(light[1]) < 0.2 < 0.7 < luminance(dark[1])


WORDS_OUTSIDE = """() => {
  const shown = [...document.querySelectorAll('.plot svg')].filter(svg => svg.getClientRects().length);
  return shown.flatMap(svg => {
    const box = svg.getBoundingClientRect();
    const out = one => one.left < box.left - 1 || one.right > box.right + 1 || one.bottom > box.bottom + 1;
    return [...svg.querySelectorAll('text')].filter(text => out(text.getBoundingClientRect()));
  }).map(text => text.textContent);
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_every_word_stays_inside_its_picture(width, open_page):
    tab, _ = open_page("long", width)
    assert tab.evaluate(WORDS_OUTSIDE) == []
