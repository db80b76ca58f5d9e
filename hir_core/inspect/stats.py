"""What a table looks like in figures: lengths, nulls, scores, duplicates, instructions, all together and by task.

Reads a version's table, verified, and those it is made from where a row's task stands there. What stages measured
themselves stands in manifests.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import polars as pl

from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import value_counts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Facts = dict[str, Any]
Bin = tuple[float, float]
BINS = 10
SAME = {
    "prompts": ("query", "history"),
    "samples": ("prompt_id", "completion"),
    "triples": ("instruction", "query", "history", "output"),
}
"""The columns in which a duplicate equals a row before it."""
_NAMES = ("model", "reward", "relabeler", "task", "group", "split")
"""Strings that name something, whose lengths say nothing; so do keys."""


def figures(store: Store, ref: VersionRef) -> Facts:
    """The figures of a version's table, as plain JSON values.

    Returns:
        `rows`; `columns`: of each its `nulls`, and the `lengths` of texts in `characters`, of token ids in `tokens`
        and of other lists in `items`, nulls aside: `min`, `median`, `p95` (the least length that 95 % do not exceed)
        and `max`; and, where the table has such columns: `duplicates`, `splits`, `finish_reasons`, `instructions`
        (the most frequent, others together), `score` (see `scores`), and `tasks`: these figures of each
        task where there are several.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: it, or a version that says what tasks its rows have, is damaged.
    """
    table = with_task(store, ref)
    threshold = store.manifest(ref).config.get("threshold")
    of_task = table.sort("task").partition_by("task", as_dict=True, maintain_order=True)
    return {
        "version": str(ref),
        "rows": table.height,
        "columns": {name: _column(table[name]) for name in SCHEMAS[ref.stage].column_names() if name in table.columns},
        **_together(table, ref.stage, threshold),
        "tasks": {
            task: {"rows": rows.height, **_together(rows, ref.stage, threshold)} for (task,), rows in of_task.items()
        }
        if len(of_task) > 1
        else {},
    }


def with_task(store: Store, ref: VersionRef) -> pl.DataFrame:
    """A version's rows with the `task` and, where a sample is their origin, the `prompt_id` and `k` that it has.

    Of those, `order` is larger the newer the sample is.

    Raises:
        VersionNotFound: there is no such version, it holds no table, or what it is made from is gone.
        VersionCorrupt: it, or what it is made from, is damaged.
    """
    table = store.table(ref).collect()
    if ref.stage == "samples":
        table = table.with_columns(order=pl.lit(0))
    elif "sample_id" in table.columns:
        origin = _of_parents(store, ref, "samples", ["sample_id", "prompt_id", "k"]).with_row_index("order")
        table = table.join(origin.select(pl.exclude(set(table.columns) - {"sample_id"})), on="sample_id", how="left")
    if "task" not in table.columns:
        table = table.join(_of_parents(store, ref, "prompts", ["prompt_id", "task"]), on="prompt_id", how="left")
    return table


def lengths(column: pl.Series) -> Facts | None:
    """How long texts, in characters, or lists are: `min`, `median`, `p95`, `max`; None where all are null."""
    counts = column.str.len_chars() if column.dtype == pl.String else column.list.len()
    ordered = sorted(counts.drop_nulls())
    if not ordered:
        return None
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return {"min": ordered[0], "median": statistics.median(ordered), "p95": p95, "max": ordered[-1]}


def scores(score: pl.Series, threshold: float | None = None) -> Facts:
    """What scores there are: how many are null, mean, share that reaches the threshold, and a histogram.

    The share counts what was not judged as not right, as the loop does. The histogram is that of `bins`.
    """
    judged = score.drop_nulls()
    right = None if threshold is None or not len(score) else int((judged >= threshold).sum()) / len(score)
    return {
        "not_judged": score.null_count(),
        "mean": judged.mean(),
        "threshold": threshold,
        "share_correct": right,
        "histogram": histogram(judged.to_list(), bins(judged.to_list())),
    }


def bins(values: Iterable[float]) -> list[Bin]:
    """The first and last value of each bar: one bar per value where there are few, else ten of one width."""
    found = sorted(set(values))
    if len(found) <= BINS:
        return [(value, value) for value in found]
    low, high = found[0], found[-1]
    edges = [low, *(low + (high - low) * place / BINS for place in range(1, BINS)), high]
    return list(pairwise(edges))


def histogram(values: Iterable[float], bars: Sequence[Bin]) -> list[Facts]:
    """How many rows each bar has; of two bars that share an edge the upper one has what lies on it."""
    rows = Counter(bisect_right(bars, value, key=lambda bar: bar[0]) - 1 for value in values)
    return [{"from": low, "to": high, "rows": rows[place]} for place, (low, high) in enumerate(bars)]


def _together(rows: pl.DataFrame, stage: str, threshold: float | None) -> Facts:
    facts: Facts = {}
    if stage in SAME:
        facts["duplicates"] = rows.height - rows.unique([name for name in SAME[stage] if name in rows.columns]).height
    if "split" in rows.columns:
        facts["splits"] = value_counts(rows["split"])
    if "finish_reason" in rows.columns:
        facts["finish_reasons"] = value_counts(rows["finish_reason"])
    if "instruction" in rows.columns:
        facts["instructions"] = value_counts(rows["instruction"])
    if "score" in rows.columns:
        facts["score"] = scores(rows["score"], threshold)
    return facts


def _column(column: pl.Series) -> Facts:
    nulls = {"nulls": column.null_count()}
    if column.name.endswith("_id") or column.name in _NAMES:
        return nulls
    if column.dtype == pl.String:
        return {**nulls, "unit": "characters", "lengths": lengths(column)}
    if isinstance(column.dtype, pl.List):
        unit = "tokens" if column.name.endswith("_ids") else "items"
        return {**nulls, "unit": unit, "lengths": lengths(column)}
    return nulls


def _of_parents(store: Store, ref: VersionRef, stage: str, columns: list[str]) -> pl.DataFrame:
    """Some columns of all parents of a stage; without rows where it has none, as demonstrations have no samples."""
    named = store.manifest(ref).parents_of(stage)
    tables = [store.table(store.resolve(name)).select(columns).collect() for name in named]
    return pl.concat([SCHEMAS[stage].create_empty().select(columns), *tables])
