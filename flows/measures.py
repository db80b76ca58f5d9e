"""The lines of `hir stats`: what `hir_core.figures` found in a table, for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flows.wording import NOTHING, clipped, columns, number, printable

Facts = dict[str, Any]
LENGTHS = ("min", "median", "p95", "max")
BAR = 24
SHARES_SHOWN = 8


def stats_text(facts: Facts, width: int) -> Iterator[str]:
    """Figures of a table: its columns, what it holds together, and the same by task."""
    yield f"{facts['version']} · {number(facts['rows'])} rows"
    yield ""
    yield from _columns(facts["columns"])
    yield from _together(facts, width)
    if facts["tasks"]:
        yield ""
        yield from _tasks(facts["tasks"])


def shares_text(label: str, counts: dict[str, int], width: int) -> Iterator[str]:
    """How often each value stands there, the most frequent first, and its share."""
    total = sum(counts.values())
    yield label
    for value, count in list(counts.items())[:SHARES_SHOWN]:
        yield f"  {number(count):>9}  {count / total:>4.0%}  {clipped(value, width - 19)}"
    if len(counts) > SHARES_SHOWN:
        yield f"  {number(sum(list(counts.values())[SHARES_SHOWN:])):>9}        in {len(counts) - SHARES_SHOWN} more"


def _columns(found: dict[str, Facts]) -> list[str]:
    rows = [
        (name, number(facts["nulls"]), facts.get("unit", ""), *_lengths(facts.get("lengths")))
        for name, facts in found.items()
    ]
    return columns(("column", "nulls", "length in", *LENGTHS), rows, right=(1, 3, 4, 5, 6))


def _lengths(facts: Facts | None) -> tuple[str, ...]:
    return ("",) * 4 if facts is None else tuple(number(facts[name], ",.10g") for name in LENGTHS)


def _together(facts: Facts, width: int) -> Iterator[str]:
    if "duplicates" in facts:
        yield ""
        yield f"duplicates  {number(facts['duplicates'])}"
    for name in ("splits", "finish_reasons", "instructions"):
        if facts.get(name):
            yield ""
            yield from shares_text(name.replace("_", " "), facts[name], width)
    if "score" in facts:
        yield ""
        yield from _score(facts["score"])


def _score(facts: Facts) -> Iterator[str]:
    right = "" if facts["share_correct"] is None else f" · {facts['share_correct']:.1%} reach {facts['threshold']:g}"
    yield f"score       mean {number(facts['mean'], '.3f')}{right} · {number(facts['not_judged'])} not judged"
    most = max((bar["rows"] for bar in facts["histogram"]), default=1)
    for bar in facts["histogram"]:
        scores = f"{bar['from']:.4g}" if bar["from"] == bar["to"] else f"{bar['from']:.4g} to {bar['to']:.4g}"
        yield f"  {scores:>18}  {number(bar['rows']):>9}  {'█' * round(BAR * bar['rows'] / most)}".rstrip()


def _tasks(tasks: dict[str, Facts]) -> list[str]:
    header = ("task", "rows", "duplicates", "cut off", "mean score", "correct")
    rows = [(printable(task), *_task_cells(facts)) for task, facts in tasks.items()]
    kept = [place for place in range(len(header)) if any(row[place] != NOTHING for row in rows)]
    return columns([header[n] for n in kept], [[row[n] for n in kept] for row in rows], right=range(1, len(kept)))


def _task_cells(facts: Facts) -> tuple[str, ...]:
    reasons, score = facts.get("finish_reasons"), facts.get("score", {})
    cut = None if reasons is None else reasons.get("length", 0) / facts["rows"]
    return (
        number(facts["rows"]),
        number(facts.get("duplicates")),
        number(cut, ".1%"),
        number(score.get("mean"), ".3f"),
        number(score.get("share_correct"), ".1%"),
    )
