"""The page of a report, as one HTML text: summary, figures with their tables, examples, versions and settings.

The page needs no network and no other file, and its content security policy has the browser enforce this. The one
script that it allows, by its digest, searches the table of samples; without it the table is there all the same.
All text from data is escaped: control characters and direction marks are made visible, and the template escapes HTML.
The same report always gives the same page. Reads a report's values and the templates beside this module.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.report import charts, cost_charts, step_charts, summary
from flows.report.charts import Figure
from flows.report.version_graph import version_graph
from flows.terminal.formatting import NO_INSTRUCTION, NOTHING, number, printable, ruled_out, size
from flows.terminal.version import flat
from hir_core.inspect.benchmarks import metric_name
from hir_core.inspect.examples import Answer, clip
from hir_core.inspect.report import Report
from hir_core.store.manifest import STAGES

SETTING_CHARACTERS = 400
OPEN_ITERATIONS = 8
"""The graph of versions of a longer run is folded at first."""
SECTIONS: tuple[tuple[str, str, tuple[Callable[[Report], Iterator[Figure]], ...]], ...] = (
    ("accuracy", "Accuracy", (charts.unseen_accuracy, charts.task_accuracy, charts.further_accuracy)),
    (
        "samples",
        "What it learned from",
        (
            charts.sample_scores,
            charts.attribute_scores,
            charts.sample_outcomes,
            charts.learned_outputs,
            cost_charts.output_lengths,
            cost_charts.cut_off,
        ),
    ),
    (
        "steps",
        "Training, step by step",
        (
            step_charts.losses,
            step_charts.entropy,
            step_charts.gradient_norm,
            step_charts.learning_rate,
            step_charts.speed,
        ),
    ),
    (
        "costs",
        "Training, time and memory",
        (cost_charts.losses, cost_charts.times, cost_charts.speeds, cost_charts.memory),
    ),
)
"""Each section of figures: its name in links, its heading, and its figures."""


def page(report: Report) -> str:
    """The HTML of a report."""
    sections = [
        (name, title, [figure for figures in sources for figure in figures(report)])
        for name, title, sources in SECTIONS
    ]
    versions = [
        (
            str(version.iteration),
            version.version,
            number(version.rows),
            number(version.rejected or None),
            size(version.bytes),
            version.created[:19].replace("T", " "),
            " · ".join(version.parents) or NOTHING,
        )
        for version in report.versions
    ]
    return rendered(
        "report.html",
        report=report,
        lead=summary.lead(report),
        remarks=summary.remarks(report),
        key_figures=summary.key_figures(report),
        sections=[section for section in sections if section[2]],
        graph=Markup(version_graph(report)),
        graph_is_open=len(report.iterations) <= OPEN_ITERATIONS,
        versions=versions,
        benchmarks=list(_benchmarks(report)),
        settings=list(_settings(report)),
        software=_software(report),
        score=lambda score: "without a score" if score is None else number(score, ".4g"),
        probability=lambda logprob: NOTHING if logprob is None else f"{math.exp(logprob):.3f}",
        ruled_out=ruled_out,
        merged=_merge_equal,
    )


def rendered(template: str, **values: Any) -> str:
    """The HTML of a template with these values, all texts escaped; a security policy lets it fetch nothing."""
    templates = _templates()
    css, search = (Markup(templates.get_template(name).render()) for name in ("report.css", "search.js"))
    policy = (
        f"default-src 'none'; style-src '{_digest(css)}'; script-src '{_digest(search)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    return templates.get_template(template).render(css=css, search=search, policy=policy, picture=Markup, **values)


@cache  # a template is compiled once per process
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("flows.report"),
        autoescape=True,
        finalize=_made_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _digest(text: str) -> str:
    """The digest by which a content security policy allows a text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _made_visible(value: Any) -> Any:
    """A value as the page shows it: in text, control characters other than line ends are written as escapes."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(map(printable, value.split("\n")))
    return value


def _merge_equal(answers: Sequence[Answer]) -> Iterator[tuple[str, Answer]]:
    """Answers in order, with equal ones in a row merged: the iterations that gave the answer, and the answer."""
    for _, group in groupby(answers, key=lambda answer: (answer.completion, answer.score)):
        equal = list(group)
        first, last = equal[0].iteration, equal[-1].iteration
        yield (str(first) if first == last else f"{first} to {last}"), equal[0]


def _benchmarks(report: Report) -> Iterator[tuple[str, ...]]:
    """The figures of all kept benchmarks, a row for each."""
    for result in report.benchmarks:
        for figure in result["figures"]:
            yield (
                result["model"],
                figure["task"],
                metric_name(figure["metric"], figure["filter"]),
                number(figure["value"], ".4f"),
                number(figure["stderr"], ".4f"),
                number(figure["n"]),
                number(figure["num_fewshot"]),
                clip(result["instruction"] or NO_INSTRUCTION),
                result["settings"]["harness"],
            )


def _settings(report: Report) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """The last version of each stage with its settings; of models and triples also the first version."""
    for stage in STAGES:
        versions = [version for version in report.versions if version.stage == stage]
        shown = (
            versions[-1:] if stage not in ("models", "triples") or len(versions) < 2 else [versions[0], versions[-1]]
        )
        for version in shown:
            yield stage, version.version, pairs(version.config)


def _software(report: Report) -> list[tuple[str, str]]:
    releases = sorted({version.code_version for version in report.versions})
    made_with = [model.made_with for model in report.models.values() if model.made_with]
    return [("hir", ", ".join(releases) or NOTHING), *(pairs(made_with[-1]) if made_with else [])]


def pairs(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Settings as `a.b` and value; long values are clipped."""
    return [
        (name, text if len(text) <= SETTING_CHARACTERS else f"{text[:SETTING_CHARACTERS]}… ({len(text):,} characters)")
        for name, text in flat(settings)
    ]
