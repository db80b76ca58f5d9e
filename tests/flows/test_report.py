"""The page of a report: its numbers are those of the tables, no data can act on it, and it fetches nothing."""

import base64
import hashlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from xml.etree import ElementTree as Tree

import polars as pl
import pytest
from finished_run import NASTY, RIGHT, WRONG, commit, damage, drawn, hir, prompt, trained
from kept_benchmark import result
from report_page import Page
from report_runs import (
    ITEMS,
    STEPS,
    TESTED,
    Row,
    attacked_run,
    evaluated,
    judged,
    make_run,
    with_more_iterations,
)

from flows.report import page as page_module
from flows.report.page import page
from flows.report.step_charts import COLUMNS, columns_of, spans_of
from flows.report.svg import Curve, Layer, Line, Point, bar_plot, curve_plot, line_plot
from flows.report.write import update_report
from hir_core.inspect.benchmarks import write_benchmark
from hir_core.inspect.report import build_report
from hir_core.stages.evaluation import wilson_interval
from hir_core.store.manifest import identity
from hir_core.store.references import find_version
from hir_core.store.store import Store
from hir_core.store.training_log import read_training_log

SEARCH = (Path(page_module.__file__).parent / "templates" / "search.js").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Store:
    return make_run(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def parsed(finished) -> Page:
    return Page(page(build_report(finished)))


@pytest.fixture
def store(finished, tmp_path, monkeypatch) -> Store:
    """A copy as `runs/small` of the current folder."""
    monkeypatch.chdir(tmp_path)
    return Store(Path(shutil.copytree(finished.run_dir, tmp_path / "runs" / "small")))


def rows_of(store: Store, stage: str, iteration: int) -> list[Row]:
    """A table as anybody reads it, by Python."""
    (folder,) = store.run_dir.glob(f"{stage}/{iteration:04}-*")
    return [row for path in sorted(folder.glob("*.parquet")) for row in pl.read_parquet(path).to_dicts()]


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_the_first_sentence_says_what_happened(parsed):
    low, high = wilson_interval(3, 12), wilson_interval(9, 12)
    (lead,) = [text for text in parsed.texts["p"] if text.startswith("In 2 iterations")]
    moved = f"from 0.250 [{low[0]:.3f}, {low[1]:.3f}] to 0.750 [{high[0]:.3f}, {high[1]:.3f}]"
    assert f"the accuracy of a model went {moved} on 12 unseen prompts of sums" in lead
    assert lead.endswith("; the two intervals overlap, so this may be chance.")  # 0.532 and 0.468
    assert "From the first to the last evaluation 6 answers became right and 0 wrong." in parsed.texts["p"]


def test_accuracies_are_those_of_the_tables(finished, parsed):
    rows = parsed.tables["Accuracy on unseen prompts"]
    assert [row["iteration"] for row in rows] == ["0", "1", "2"]
    for n, row in enumerate(rows):
        right = sum(answer["score"] == 1 for answer in rows_of(finished, "evaluations", n) if answer["task"] == "sums")
        low, high = wilson_interval(right, 12)
        assert row["accuracy [95 %]"] == f"{right / 12:.3f} [{low:.3f}, {high:.3f}]"
        assert (row["majority baseline"], row["items"]) == ("1.000", "12")  # "4" is accepted for all of them


def test_every_task_has_its_accuracies(finished, parsed):
    rows = {(row["task"], row["iteration"]): row for row in parsed.tables["Accuracy by task"]}
    for (task, n), row in rows.items():
        scores = [answer["score"] for answer in rows_of(finished, "evaluations", int(n)) if answer["task"] == task]
        assert row["accuracy [95 %]"].startswith(f"{sum(scores) / len(scores):.3f} [")
        assert (row["trained on"], row["items"]) == ("yes" if task == "sums" else "no", str(len(scores)))
    assert len(rows) == 6


def test_scores_and_what_became_of_samples_are_those_of_the_tables(finished, parsed):
    for row in parsed.tables["Scores of the samples"]:
        scores = [reward["score"] for reward in rows_of(finished, "rewards", int(row["iteration"]))]
        counts = [str(scores.count(value)) for value in (0.0, 0.25, 1.0, None)]
        assert [row["score 0"], row["score 0.25"], row["score 1"], row["not judged"]] == counts
        assert row["right"] == f"{scores.count(1.0) / len(scores):.1%}"
    outcomes = {
        (row["iteration"], row["instruction, or why left out"]): row for row in parsed.tables["What the samples became"]
    }
    for n in ("1", "2"):
        triples = [triple["instruction"] for triple in rows_of(finished, "triples", int(n)) if triple["weight"] > 0]
        assert outcomes[n, f"correct: {RIGHT}"]["rows"] == str(triples.count(RIGHT))
        assert outcomes[n, f"wrong: {WRONG}"]["rows"] == str(triples.count(WRONG))
        assert outcomes[n, "only ruled out"]["rows"] == "1"
        assert outcomes[n, "left out: not judged"]["rows"] == "1"


def test_an_example_that_is_ruled_out_says_so(parsed):
    sentence = f'ruled out under "{RIGHT}": probability 0.25 when sampled, 75 % of it taken away'
    assert sentence in parsed.texts["p"]


def test_gradients_lengths_and_costs_are_those_of_the_tables(finished, parsed):
    for row in parsed.tables["Outputs that are learned from"]:
        n = int(row["iteration"])
        (facts,) = [manifest.metrics for manifest in finished.parents(finished.resolve(f"models@{n}"), "triples")]
        assert row["samples"] == str(len(rows_of(finished, "samples", n)))
        assert row["distinct judged outputs"] == str(facts["judged_outputs"])
        assert row["learned from"] == f"{facts['outputs_with_gradient']:.1%}"
    for row in parsed.tables["Length of the samples"]:
        lengths = [len(sample["completion_ids"]) for sample in rows_of(finished, "samples", int(row["iteration"]))]
        assert (row["shortest"], row["longest"]) == (str(min(lengths)), str(max(lengths)))
    cut = {(row["iteration"], row["what"]): row["cut off"] for row in parsed.tables["Cut off"]}
    assert cut == {("1", "samples"): "1", ("2", "samples"): "0"} | {(str(n), "test answers"): "1" for n in TESTED}
    assert [row["loss"] for row in parsed.tables["Loss"]] == ["1.000", "0.000"]
    assert [row["training, s"] for row in parsed.tables["Time"]] == ["–", "1.50", "1.50"]
    assert [row["training"] for row in parsed.tables["Memory"]] == ["–", "2.0 GB", "2.0 GB"]


def test_the_table_of_samples_has_those_of_the_last_iteration_the_best_first(finished, parsed):
    scores = {row["sample_id"]: row["score"] for row in rows_of(finished, "rewards", 2)}
    rows = parsed.tables["Table of samples of iteration 2"]
    assert {row["sample"] for row in rows} == set(scores)
    texts = {row["sample_id"]: row["completion"] for row in rows_of(finished, "samples", 2)}
    assert all(row["output"] == texts[row["sample"]][:200] for row in rows if len(texts[row["sample"]]) <= 200)
    shown = [row["score"] for row in rows]
    assert shown == ["1", "1", "1", "0.25", "0", "without a score"]


def test_every_optimizer_step_is_in_the_curves(finished, parsed):
    """150 steps of two trainings in 80 columns, of one or two steps each."""
    logs = [read_training_log(finished, finished.resolve(f"models@{n}")) for n in (1, 2)]
    losses = [loss for log in logs for loss in log["loss"].to_list()]
    rows = parsed.tables["Loss by optimizer step"]
    assert [len(log) for log in logs] == [STEPS[1], STEPS[2]]
    assert len(rows) == 80
    columns = columns_of(150)
    means = [sum(losses[step - 1] for step in column) / len(column) for column in columns]
    assert [float(row["loss"]) for row in rows] == pytest.approx(means, rel=1e-3)
    assert [row["iteration"] for row in rows[:3]] == ["1", "1", "2"]
    assert rows[0]["optimizer step"] == "1"
    assert rows[-1]["optimizer step"] == "146 to 147"
    assert "exclusion" not in rows[0], "it is 0 throughout"
    assert {row["learning rate"] for row in parsed.tables["Learning rate by optimizer step"]} == {"0.1"}
    hovered = "\n".join(parsed.texts["title"])
    assert f"iteration 2, optimizer step 146 to 147\nloss: {means[-1]:,.3g}\nsupervised" in hovered


def test_every_version_is_listed_by_a_name_that_show_takes(store, parsed):
    rows = parsed.tables["All versions"]
    assert {row["version"] for row in rows} == {str(ref) for ref in store.versions()}
    for row in rows:
        manifest = store.manifest(find_version(f"small/{row['version']}", Path("runs"))[1])
        assert row["made from"] == (" · ".join(manifest.parents) or "–")


def test_what_a_sample_was_asked_and_what_it_became_are_side_by_side(parsed):
    text = "\n".join(parsed.texts["article"])
    assert re.search(rf"Asked\s+{re.escape(RIGHT)}\s+1 \+ 3\?\s+Relabeled as\s+{re.escape(WRONG)}\s+q\?", text)


# --- plots -----------------------------------------------------------------------------------------------------------


def test_points_lie_where_their_values_are():
    points = [Point(0, 0.0), Point(1, 0.25, 0.125, 0.5), Point(2, None), Point(3, 1.0)]
    svg = Tree.fromstring(line_plot([Line("a", points, "k1")], "l", "u", str, top=1.0, size=(400, 200)))
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in svg.iter("circle") if dot.get("class") == "dot"]
    (x0, y0), (x1, y1), (x3, y3) = dots
    assert (x3 - x0) == pytest.approx(3 * (x1 - x0), abs=0.3)
    assert (y0 - y3) == pytest.approx(4 * (y0 - y1), abs=0.3)
    whisker = next(line for line in svg.iter("line") if line.get("class") == "whisker")
    assert y0 - float(whisker.get("y1")) == pytest.approx((y0 - y3) / 8, abs=0.2)
    titles = [title.text for title in svg.iter("title")]
    assert titles == ["a, iteration 0: 0.0", "a, iteration 1: 0.25 [0.125, 0.5]", "a, iteration 3: 1.0"]


def test_curves_pass_through_means_within_the_range_of_their_values():
    """Two columns of steps 1 to 3 and 4 to 7; the axis goes from -1 to 4."""
    columns, values = [range(1, 4), range(4, 8)], [1.0, 2.0, 3.0, -1.0, 0.0, 4.0, 1.0]
    curve = Curve("a", spans_of(values, columns), "k0")
    assert curve.spans == [(2.0, 1.0, 3.0), (1.0, -1.0, 4.0)]
    drawn = curve_plot([curve], columns, ["first", "second"], "l", "u", str, marks=[(4, "2")], size=(400, 200))
    svg = Tree.fromstring(drawn)
    ((x1, y1), (x2, y2)), band = (
        [tuple(map(float, point.split(","))) for point in shape.get("points").split()]
        for kind in ("polyline", "polygon")
        for shape in svg.iter(kind)
    )
    unit = y2 - y1  # from 2 down to 1
    assert [y for _, y in band] == pytest.approx([y1 - unit, y2 - 3 * unit, y2 + 2 * unit, y1 + unit], abs=0.3)
    assert [title.text for title in svg.iter("title")] == ["first\na: 2.0", "second\na: 1.0"]
    first, second = ((float(r.get("x")), float(r.get("width"))) for r in svg.iter("rect"))
    assert (first[0] + first[1], second[1]) == pytest.approx((second[0], first[1] * 4 / 3), abs=0.2)
    assert (x1, x2) == pytest.approx((first[0] + first[1] / 2, second[0] + second[1] / 2), abs=0.2)
    (mark,) = (float(line.get("x1")) for line in svg.iter("line") if line.get("class") == "mark")
    assert mark == pytest.approx(second[0], abs=0.1)


@pytest.mark.parametrize("steps", [1, 2, 79, 80, 81, 4350])
def test_columns_hold_every_step_once_and_about_equally_many(steps):
    columns = columns_of(steps)
    assert [step for column in columns for step in column] == [*range(1, steps + 1)]
    assert len(columns) == min(steps, COLUMNS)
    assert max(map(len, columns)) - min(map(len, columns)) <= 1


def test_bars_are_as_high_as_their_values_and_stand_on_each_other():
    layers = [Layer("low", {1: 1.0, 2: 3.0}, "s0"), Layer("high", {1: 2.0}, "s1")]
    svg = Tree.fromstring(bar_plot(layers, "l", "u", str, size=(400, 200)))
    bars = [(float(bar.get("y")), float(bar.get("height"))) for bar in svg.iter("rect")]
    (low_y, low), (high_y, high), (other_y, other) = bars
    assert (high, other) == (pytest.approx(2 * low, abs=0.2), pytest.approx(3 * low, abs=0.2))
    assert high_y + high == pytest.approx(low_y, abs=0.1)
    assert high_y == pytest.approx(other_y, abs=0.1)
    assert low_y + low == pytest.approx(other_y + other, abs=0.2)


@pytest.mark.parametrize("values", [[0.0], [1e-9], [0.3, 0.9], [7.0, 99.0], [123_456.0], [1e15]])
def test_an_axis_has_few_round_ticks_and_room_for_every_value(values):
    points = [Point(n, value) for n, value in enumerate(values)]
    svg = Tree.fromstring(line_plot([Line("a", points, "k0")], "l", "unit", "={!r}".format, size=(400, 200)))
    ticks = [float(str(text.text)[1:]) for text in svg.iter("text") if str(text.text).startswith("=")]
    assert 2 <= len(ticks) <= 7
    assert ticks[-1] >= max(values) * 0.999
    assert all(y.get("cy") is None or float(y.get("cy")) > 0 for y in svg.iter("circle"))


def test_every_picture_has_a_name_and_every_figure_a_table(parsed):
    labels = [value for tag, name, value in parsed.attributes if tag == "svg" and name == "aria-label"]
    pictures = [1 for tag, name, value in parsed.attributes if (tag, name, value) == ("svg", "role", "img")]
    assert len(labels) == len(pictures) > 8
    assert all(labels)
    assert parsed.is_complete
    titles = parsed.texts["figcaption"]
    assert len(titles) == sum(any(title.startswith(name) for name in parsed.tables) for title in titles)


# --- hostile data ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked(tmp_path_factory) -> str:
    return page(build_report(attacked_run(tmp_path_factory.mktemp("attacked"))))


def test_no_text_can_act_on_the_page(attacked):
    parsed = Page(attacked)
    assert parsed.is_complete
    tags = {tag for tag, _, _ in parsed.attributes} | set(parsed.texts)
    assert parsed.texts["script"] == [SEARCH.strip()]
    assert tags & {"img", "iframe", "object", "embed", "link", "base", "form", "use"} == set()
    for _, name, value in parsed.attributes:
        assert not name.startswith("on")
        assert name not in ("href", "src", "style") or str(value).startswith("#")
    assert attacked.lower().count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in attacked
    assert "{{7*7}}" in attacked


def test_no_control_character_or_direction_mark_reaches_the_page(attacked):
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", attacked)
    assert r"\u202e\x1b[31m\x00\u2066" in attacked
    assert r"\ud800 \udfff" in attacked
    attacked.encode()  # without an error


def test_what_is_long_is_folded(attacked):
    assert len(attacked.encode()) < 300_000
    assert "more characters" in attacked


def test_the_page_asks_for_nothing_and_forbids_the_rest(finished):
    html = page(build_report(finished))
    parsed = Page(html)
    (css,), (script,) = parsed.texts["style"], re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    (policy,) = [
        value for tag, name, value in parsed.attributes if tag == "meta" and str(value).startswith("default-src")
    ]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    raw = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    for kind, text in (("style", raw), ("script", script)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert not re.search(r"https?:|@import|url\((?!#)", html)
    assert css


# --- runs that have little -------------------------------------------------------------------------------------------


def test_a_run_without_iterations_has_a_page(tmp_path):
    store = Store(tmp_path / "begun")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    assert "3 prompts of sums are there; no model was evaluated yet." in Page(page(build_report(store))).texts["p"]
    trained(store, 0, [prompts])
    parsed = Page(page(build_report(store)))
    assert parsed.is_complete
    assert [row["version"] for row in parsed.tables["All versions"]] == [str(ref) for ref in store.versions()]


def test_a_run_of_one_evaluation_says_where_it_starts(tmp_path):
    store = Store(tmp_path / "one")
    prompts = commit(store, "prompts", 0, [], [prompt(*item) for item in ITEMS.items()])
    evaluated(store, 0, prompts, trained(store, 0, [prompts]))
    (lead,) = [
        text for text in Page(page(build_report(store))).texts["p"] if text.startswith("Before its first iteration")
    ]
    assert "an accuracy of 0.250 [" in lead


def test_where_nothing_was_judged_the_page_says_so(tmp_path):
    store = Store(tmp_path / "mute")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    samples = commit(store, "samples", 1, [prompts, model], drawn(1, model))
    commit(store, "rewards", 1, [prompts, samples], judged(drawn(1, model), [None] * 6), {"threshold": 1.0})
    parsed = Page(page(build_report(store)))
    (row,) = parsed.tables["Scores of the samples"]
    assert (row["samples"], row["mean score"], row["not judged"]) == ("6", "–", "6")
    assert "Without a score" in parsed.texts["h4"]


def test_twenty_iterations_fit_into_half_a_megabyte(finished):
    html = page(with_more_iterations(build_report(finished), 20))
    assert "/0020-" in html
    assert len(html.encode()) < 500_000


# --- the command and the flow ----------------------------------------------------------------------------------------


def test_report_draws_the_page_prints_its_path_and_changes_nothing_else(store):
    before = {path: path.read_bytes() for path in store.run_dir.rglob("*") if path.is_file()}
    assert hir("report") == "runs/small/report.html\n"
    drawn_once = Path("runs/small/report.html").read_bytes()
    assert hir("report", "small") == "runs/small/report.html\n"
    assert Path("runs/small/report.html").read_bytes() == drawn_once
    after = {path: path.read_bytes() for path in store.run_dir.rglob("*") if path.is_file()}
    assert after == before | {store.run_dir / "report.html": drawn_once}


def test_report_as_json_is_the_figures(store):
    report = build_report(store)
    assert hir("report", "--json") == json.dumps(asdict(report), indent=2) + "\n"
    printed = json.loads(hir("report", "--json"))
    assert [iteration["iteration"] for iteration in printed["iterations"]] == [0, 1, 2]
    assert printed["iterations"][2]["evaluation"]["overall"] == report.evaluations[2].overall
    assert not Path("runs/small/report.html").exists()


def test_report_opens_a_browser_when_asked(store, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda url: bool(opened.append(url)) or True)
    hir("report", "--open")
    assert opened == [(store.run_dir / "report.html").as_uri()]


def test_report_follows_the_model_that_is_named(store):
    assert json.loads(hir("report", "--model", "models@1", "--json"))["model"] == str(store.resolve("models@1"))
    assert "expected models@3" in hir("report", "--model", "samples@1", code=2)
    assert "no version `models@7`" in hir("report", "--model", "models@7", code=2)
    assert "no run `none`" in hir("report", "none", code=2)


def test_report_of_a_damaged_run_says_what_is_damaged(store):
    damage(store.parts(store.resolve("rewards@1"))[0])
    assert hir("report", code=1).startswith("error: rewards/0001-")


def test_a_page_that_cannot_be_drawn_is_a_warning_for_the_flow(store, monkeypatch):
    warnings: list[str] = []
    model = store.resolve("models@2")
    update_report(store, model, warnings.append)
    assert warnings == []
    page_now = (store.run_dir / "report.html").read_bytes()

    def fail(_: object) -> str:
        raise RuntimeError(NASTY)

    monkeypatch.setattr("flows.report.page.page", fail)
    update_report(store, model, warnings.append)
    (line,) = warnings
    assert line.startswith(f"warning: {store.run_dir}/report.html was not updated (RuntimeError: red \\x1b[31m")
    assert "\x1b" not in line
    assert (store.run_dir / "report.html").read_bytes() == page_now


def test_a_report_leaves_out_a_model_that_is_not_committed_yet(store):
    """Its draft in the folder is no version yet."""
    next_model = identity("models", 3, {}, [str(store.resolve("models@2"))])
    (store.draft(next_model).path / "config.json").write_text("{")
    assert json.loads(hir("report", "--json"))["model"] == str(store.resolve("models@2"))


def test_benchmarks_of_the_models_stand_in_a_table(store, parsed):
    assert "Benchmarks" not in parsed.tables
    model = store.versions("models")[-1]
    write_benchmark(store, model, result(model, 0.125))
    report = build_report(store)
    assert json.loads(json.dumps(asdict(report)))["benchmarks"][0]["figures"][0]["value"] == 0.125
    [row] = Page(page(report)).tables["Benchmarks"]
    assert list(row.values()) == [str(model), "t", "acc", "0.1250", "0.2500", "4", "0", "Be \\x1b[31m right.", "1"]
