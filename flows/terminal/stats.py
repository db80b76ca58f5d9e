"""The lines of `hir stats` and `hir diff`: what `figures` and `differences` of `hir_core` found, for a person."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from flows.terminal.formatting import NOTHING, clipped, columns, folded, number, printable

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


def diff_text(facts: Facts, width: int) -> Iterator[str]:
    """How two versions differ: how many rows, in which columns, by how much; some rows, or all about one key."""
    yield f"{facts['a']} → {facts['b']}"
    a, b = facts["rows"]
    counts = " · ".join(f"{number(facts[name])} {name}" for name in ("same", "changed", "added", "removed"))
    yield f"rows        {number(a)} → {number(b)}: {counts}"
    if facts["columns"]:
        yield f"changed in  {' · '.join(f'{name} {number(count)}' for name, count in facts['columns'].items())}"
    for side, names in facts["missing"].items():
        if names:
            yield f"not in {side}    {', '.join(names)}"
    yield from _shift(facts, width)
    for row in facts.get("of_key", facts["examples"]):
        yield ""
        yield from _row(row, "of_key" in facts, width)


def shares_text(label: str, counts: dict[str, int], width: int) -> Iterator[str]:
    """How often each value stands there, the most frequent first, and its share."""
    total = sum(counts.values())
    yield label
    for value, count in list(counts.items())[:SHARES_SHOWN]:
        yield f"  {number(count):>9}  {count / total:>4.0%}  {clipped(value, width - 19)}"
    if len(counts) > SHARES_SHOWN:
        yield f"  {number(sum(list(counts.values())[SHARES_SHOWN:])):>9}        in {len(counts) - SHARES_SHOWN} more"


def _shift(facts: Facts, width: int) -> Iterator[str]:
    if "score" in facts:
        score, form = facts["score"], {"mean": ".3f", "share_correct": ".1%"}
        told = [
            f"{name.replace('_', ' ')} {' → '.join(number(score[s][name], f) for s in 'ab')}"
            for name, f in form.items()
        ]
        yield f"score       {' · '.join(told)} · {number(score['up'])} up, {number(score['down'])} down"
    if "instructions" in facts:
        a, b = facts["instructions"]["a"], facts["instructions"]["b"]
        totals = sum(a.values()) or 1, sum(b.values()) or 1
        yield "instructions"
        for text in list(dict.fromkeys([*a, *b]))[:SHARES_SHOWN]:
            shares = a.get(text, 0) / totals[0], b.get(text, 0) / totals[1]
            yield f"  {shares[0]:>4.0%} → {shares[1]:>4.0%}  {clipped(text, width - 15)}"


def _row(row: Facts, is_whole: bool, width: int) -> Iterator[str]:
    about = " · ".join(f"{name} {value}" for name, value in row["about"].items() if value is not None)
    side = "" if row["side"] == "both" else f" · only in {row['side']}"
    yield f"{printable(about)}{side}"
    for name, values in row["values"].items():
        sides = [side for side in "ab" if row["side"] in ("both", side)]
        texts = [_lines(values[side]) if side in sides else [] for side in "ab"]
        yield f"  {name}"
        yield from _text_diff(*texts, width) if is_whole else _one_line(texts, width)


def _lines(value: Any) -> list[str]:
    return value.split("\n") if isinstance(value, str) else [NOTHING if value is None else str(value)]


def _one_line(texts: list[list[str]], width: int) -> Iterator[str]:
    for mark, lines in zip("-+", texts, strict=True):
        yield f"    {mark} {clipped(chr(10).join(lines), width - 6)}"


def _text_diff(a: list[str], b: list[str], width: int) -> Iterator[str]:
    """The lines that went and came, with two before and after each change; long ones folded."""
    for line in list(difflib.unified_diff(a, b, lineterm="", n=2))[2:]:
        mark, text = ("@", line.strip("@ ")) if line.startswith("@@") else (line[0], line[1:])
        for place, piece in enumerate(folded(text, max(20, width - 8))):
            yield f"    {'   ' if place else mark} {piece}".rstrip()


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
