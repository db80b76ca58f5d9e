"""The lines of `hir stats` and `hir diff`: the figures of a table, and the difference between two tables, as text."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from flows.terminal.formatting import NOTHING, clipped, columns, folded, number, printable
from hir_core.inspect.diff import Difference, RowDifference
from hir_core.inspect.stats import Scores, TableStats, TaskStats

LENGTHS = ("min", "median", "p95", "max")
BAR = 24
SHARES_SHOWN = 8


# --- hir stats -------------------------------------------------------------------------------------------------------


def stats_text(figures: TableStats, width: int) -> Iterator[str]:
    """The figures of a table: first by column, then of all rows together, then by task."""
    yield f"{figures['version']} · {number(figures['rows'])} rows"
    yield ""
    rows = []
    for name, column in figures["columns"].items():
        lengths = column.get("lengths")
        counts = lengths and (lengths["min"], lengths["median"], lengths["p95"], lengths["max"])
        cells = [number(count, ",.10g") for count in counts] if counts else [""] * len(LENGTHS)
        rows.append([name, number(column["nulls"]), column.get("unit", ""), *cells])
    yield from columns(("column", "nulls", "length in", *LENGTHS), rows, right=(1, 3, 4, 5, 6))
    if "duplicates" in figures:
        yield ""
        yield f"duplicates  {number(figures['duplicates'])}"
    yield from _measured(figures["measured"])
    counted = {
        "splits": figures.get("splits"),
        "finish reasons": figures.get("finish_reasons"),
        "instructions": figures.get("instructions"),
    }
    for label, value_counts in counted.items():
        if value_counts:
            yield ""
            yield from _shares(label, value_counts, width)
    if only_ruled_out := figures.get("only_ruled_out"):
        yield ""
        yield f"only ruled out  {number(only_ruled_out)}"
    if "score" in figures:
        yield ""
        yield from _scores(figures["score"])
    if figures["tasks"]:
        yield ""
        yield from _tasks(figures["tasks"])


def _measured(measured: dict[str, float]) -> Iterator[str]:
    """What a stage measured of all rows, a line each."""
    if "empty" in measured:
        yield f"empty       {number(measured['empty'])}"
    if (logprob := measured.get("mean_logprob")) is not None:
        yield f"log-prob.   {logprob:.3f} nats per token"
    passes = [f"{name} {share:.1%}" for name, share in measured.items() if name.startswith("pass@")]
    if passes:
        yield ""
        yield f"correct     {' · '.join(passes)}"


def _shares(label: str, counts: dict[str, int], width: int) -> Iterator[str]:
    """How often each value occurs and its share, the most frequent value first."""
    total = sum(counts.values())
    yield label
    for value, count in list(counts.items())[:SHARES_SHOWN]:
        yield f"  {number(count):>9}  {count / total:>4.0%}  {clipped(value, width - 19)}"
    if len(counts) > SHARES_SHOWN:
        yield f"  {number(sum(list(counts.values())[SHARES_SHOWN:])):>9}        in {len(counts) - SHARES_SHOWN} more"


def _scores(score: Scores) -> Iterator[str]:
    """The mean score, the share that reaches the threshold, and a histogram."""
    share = "" if score["share_correct"] is None else f" · {score['share_correct']:.1%} reach {score['threshold']:g}"
    unscored = f"{number(score['no_answer'])} without an answer · {number(score['not_judged'])} not judged"
    yield f"score       mean {number(score['mean'], '.3f')}{share} · {unscored}"
    most = max((bar["rows"] for bar in score["histogram"]), default=1)
    for bar in score["histogram"]:
        scores = f"{bar['from']:.4g}" if bar["from"] == bar["to"] else f"{bar['from']:.4g} to {bar['to']:.4g}"
        yield f"  {scores:>18}  {number(bar['rows']):>9}  {'█' * round(BAR * bar['rows'] / most)}".rstrip()


def _tasks(tasks: dict[str, TaskStats]) -> list[str]:
    """A table with a row for each task; columns that no task has a value for are left out."""
    header = ("task", "rows", "duplicates", "cut off", "mean score", "correct")
    rows = []
    for task, figures in tasks.items():
        finish_reasons, score = figures.get("finish_reasons"), figures.get("score")
        cut_off = None if finish_reasons is None else finish_reasons.get("length", 0) / figures["rows"]
        counts = number(figures["rows"]), number(figures.get("duplicates")), number(cut_off, ".1%")
        scores = (number(score["mean"], ".3f"), number(score["share_correct"], ".1%")) if score else (NOTHING, NOTHING)
        rows.append((printable(task), *counts, *scores))
    kept = [place for place in range(len(header)) if any(row[place] != NOTHING for row in rows)]
    return columns([header[n] for n in kept], [[row[n] for n in kept] for row in rows], right=range(1, len(kept)))


# --- hir diff --------------------------------------------------------------------------------------------------------


def diff_text(difference: Difference, width: int) -> Iterator[str]:
    """How many rows differ, in which columns and by how much; then some changed rows, or all rows about one key."""
    yield f"{difference['a']} → {difference['b']}"
    a, b = difference["rows"]
    counts = [
        f"{number(difference['same'])} same",
        f"{number(difference['changed'])} changed",
        f"{number(difference['added'])} added",
        f"{number(difference['removed'])} removed",
    ]
    yield f"rows        {number(a)} → {number(b)}: {' · '.join(counts)}"
    if difference["columns"]:
        yield f"changed in  {' · '.join(f'{name} {number(count)}' for name, count in difference['columns'].items())}"
    if "score" in difference:
        shift = difference["score"]
        a_scores, b_scores = shift["a"], shift["b"]
        mean = f"mean {number(a_scores['mean'], '.3f')} → {number(b_scores['mean'], '.3f')}"
        shares = f"{number(a_scores['share_correct'], '.1%')} → {number(b_scores['share_correct'], '.1%')}"
        yield f"score       {mean} · share correct {shares} · {number(shift['up'])} up, {number(shift['down'])} down"
    if "instructions" in difference:
        counts_a, counts_b = difference["instructions"]["a"], difference["instructions"]["b"]
        total_a, total_b = sum(counts_a.values()) or 1, sum(counts_b.values()) or 1
        yield "instructions"
        for text in list(dict.fromkeys([*counts_a, *counts_b]))[:SHARES_SHOWN]:
            share_a, share_b = counts_a.get(text, 0) / total_a, counts_b.get(text, 0) / total_b
            yield f"  {share_a:>4.0%} → {share_b:>4.0%}  {clipped(text, width - 15)}"
    for row in difference.get("of_key", difference["examples"]):
        yield ""
        yield from _row(row, "of_key" in difference, width)


def _row(row: RowDifference, is_whole: bool, width: int) -> Iterator[str]:
    """A row's values on either side: by column a text diff where it is shown whole, else the start of each value."""
    about = " · ".join(f"{name} {value}" for name, value in row["about"].items() if value is not None)
    side = "" if row["side"] == "both" else f" · only in {row['side']}"
    yield f"{printable(about)}{side}"
    for name, values in row["values"].items():
        lines_a = [] if row["side"] == "b" else _lines(values["a"])
        lines_b = [] if row["side"] == "a" else _lines(values["b"])
        yield f"  {name}"
        if is_whole:
            yield from _text_diff(lines_a, lines_b, width)
        else:
            yield f"    - {clipped(chr(10).join(lines_a), width - 6)}"
            yield f"    + {clipped(chr(10).join(lines_b), width - 6)}"


def _lines(value: object) -> list[str]:
    return value.split("\n") if isinstance(value, str) else [NOTHING if value is None else str(value)]


def _text_diff(a: list[str], b: list[str], width: int) -> Iterator[str]:
    """The lines that were removed and added, with two lines before and after each change; long lines are folded."""
    for line in list(difflib.unified_diff(a, b, lineterm="", n=2))[2:]:
        mark, text = ("@", line.strip("@ ")) if line.startswith("@@") else (line[0], line[1:])
        for place, piece in enumerate(folded(text, max(20, width - 8))):
            yield f"    {'   ' if place else mark} {piece}".rstrip()
