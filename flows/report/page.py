"""The page of a report: sentences, figures with their tables, examples, versions and settings, as one HTML text.

It needs no network, no script and no other file, and says so to the browser by a content security policy. Whatever
comes from data is escaped: by the template's autoescape, after control characters and direction marks were made
visible. The same run makes the same page. Reads what `hir_core.reporting` found and the templates beside this module.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flows.report import charts, cost_charts, summary
from flows.report.charts import Figure
from flows.report.svg import Node, graph
from flows.terminal.formatting import NOTHING, number, printable, size
from flows.terminal.version import flat

Facts = dict[str, Any]
STAGES = ("prompts", "samples", "rewards", "instructions", "triples", "models", "evaluations")
SETTING_CHARACTERS = 400
OPEN_ROUNDS = 8
"""A graph of more rounds is folded away at first."""


def page(facts: Facts) -> str:
    """A report's HTML.

    Args:
        facts: what `hir_core.reporting.report` returns.
    """
    places = Environment(
        loader=PackageLoader("flows.report"),
        autoescape=True, finalize=_shown, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    css = places.get_template("report.css").render()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return places.get_template("report.html").render(
        facts=facts,
        css=Markup(css),
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        lead=summary.lead(facts),
        remarks=summary.remarks(facts),
        key_figures=summary.key_figures(facts),
        sections=list(_sections(facts)),
        graph=_picture(_graph(facts)),
        graph_is_open=len(facts["rounds"]) <= OPEN_ROUNDS,
        versions=_versions(facts),
        settings=list(_settings(facts)),
        software=_software(facts),
        score=lambda score: "cannot be judged" if score is None else number(score, ".4g"),
        probability=lambda logprob: NOTHING if logprob is None else f"{math.exp(logprob):.3f}",
        merged=_merged,
        picture=_picture,
    )


def _shown(value: Any) -> Any:
    """What the page writes for a value: texts with everything that could act on it escaped, but for line ends."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return "\n".join(map(printable, value.split("\n")))
    return value


def _picture(svg: str) -> Markup:
    return Markup(svg)


def _sections(facts: Facts) -> Iterator[tuple[str, str, list[Figure]]]:
    """Headings with their figures; those that have nothing to show stay out."""
    found = (
        ("accuracy", "Accuracy", list(charts.learning(facts))),
        ("samples", "What it learned from", [*charts.learned_from(facts), *cost_charts.outputs(facts)]),
        ("costs", "Training, time and memory", [*cost_charts.training(facts), *cost_charts.resources(facts)]),
    )
    return (section for section in found if section[2])


def _merged(answers: Sequence[Facts]) -> Iterator[tuple[str, Facts]]:
    """Answers in order, equal ones after each other together: the iterations that gave them, and one of them."""
    for _, group in groupby(answers, key=lambda answer: (answer["completion"], answer["score"])):
        same = list(group)
        first, last = same[0]["iteration"], same[-1]["iteration"]
        yield (str(first) if first == last else f"{first} to {last}"), same[0]


# --- versions --------------------------------------------------------------------------------------------------------


def _graph(facts: Facts) -> str:
    rounds = {one["iteration"]: row for row, one in enumerate(facts["rounds"])}
    main = {one["evaluation"]["version"] for one in facts["rounds"] if one["evaluation"]}
    drawn = [one for one in facts["versions"] if one["stage"] != "evaluations" or one["version"] in main]
    stages = [stage for stage in STAGES if any(one["stage"] == stage for one in drawn)]
    nodes = [
        Node(one["version"], stages.index(one["stage"]), rounds.get(one["iteration"], 0), one["version"].split("/")[1],
             f"{one['version']} · {_rows(one)} · {size(one['bytes'])}")
        for one in drawn
    ]  # fmt: skip
    edges = [
        (parent, one["version"])
        for one in drawn
        for parent in one["parents"]
        if not parent.startswith("prompts/") or rounds.get(one["iteration"], 0) == 0
    ]
    return graph(nodes, edges, stages, f"Versions of {facts['run']} and what each is made from")


def _versions(facts: Facts) -> list[tuple[str, ...]]:
    return [
        (
            str(one["iteration"]),
            one["version"],
            number(one["rows"]),
            number(one["rejected"] or None),
            size(one["bytes"]),
            one["created"][:19].replace("T", " "),
            " · ".join(one["parents"]) or NOTHING,
        )
        for one in facts["versions"]
    ]


def _rows(one: Facts) -> str:
    return "no table" if one["rows"] is None else f"{number(one['rows'])} rows"


def _settings(facts: Facts) -> Iterator[tuple[str, str, list[tuple[str, str]]]]:
    """Of each stage its last version and the settings that decide it, and for models how the first one was made."""
    for stage in STAGES:
        of_stage = [one for one in facts["versions"] if one["stage"] == stage]
        for one in dict.fromkeys([0, -1]) if stage in ("models", "triples") and len(of_stage) > 1 else [-1]:
            if of_stage:
                yield (
                    stage,
                    of_stage[one]["version"],
                    [(name, _cut(text)) for name, text in flat(of_stage[one]["config"])],
                )


def _software(facts: Facts) -> list[tuple[str, str]]:
    made = [one["model"]["made_with"] for one in facts["rounds"] if one["model"] and one["model"]["made_with"]]
    codes = sorted({one["code_version"] for one in facts["versions"]})
    told = [(name, _cut(text)) for name, text in flat(made[-1])] if made else []
    return [("hir", ", ".join(codes) or NOTHING), *told]


def _cut(text: str) -> str:
    return text if len(text) <= SETTING_CHARACTERS else f"{text[:SETTING_CHARACTERS]}… ({len(text):,} characters)"
