"""`hir stats`: the figures of a table: lengths, nulls, scores, duplicates and instructions, overall and by task.

Reads a version's table, its digests checked, and the tables of its parents where these hold the task of a row. What a
stage measured itself is in its manifest. Reports and `hir diff` use the same lengths, scores and histogram bins.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NotRequired, TypedDict

import polars as pl

from hir_core.inspect.rows import checked_table
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import Manifest, value_counts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Bin = tuple[float, float]
"""The first and the last score of a bar in a histogram."""
BINS = 10
DUPLICATE_KEYS = {
    "prompts": ("query", "history"),
    "samples": ("prompt_id", "completion"),
    "triples": ("instruction", "query", "history", "output"),
}
"""By stage, the columns in which a duplicate equals an earlier row."""
_NAMES = ("model", "reward", "relabeler", "task", "group", "split")
"""Columns of names. The lengths of names and of keys tell nothing, so they are left out."""


class Lengths(TypedDict):
    """Lengths of texts, in characters, or of lists, in items."""

    min: int
    median: float
    p95: int
    """The least length that 95 % of the values do not exceed."""
    max: int


HistogramBar = TypedDict("HistogramBar", {"from": float, "to": float, "rows": int})
"""One bar of a histogram: its first and last score, and how many rows have such a score."""


class Scores(TypedDict):
    """The scores of a table."""

    no_answer: int
    """Rows without a score because they name no answer at all."""
    not_judged: int
    """Rows without a score for another reason."""
    mean: float | None
    threshold: float | None
    """The score of a correct output; None where the version's config has none."""
    share_correct: float | None
    """The share of all rows, with or without a score, whose score reaches the threshold.

    The loop counts the same, but of distinct samples each by what it says of the policy: that is `pass@1`.
    """
    histogram: list[HistogramBar]


class ColumnStats(TypedDict):
    """The figures of one column."""

    nulls: int
    unit: NotRequired[str]
    """What lengths count: `characters` of texts, `tokens` of token ids, `items` of other lists."""
    lengths: NotRequired[Lengths | None]
    """Lengths of the values that are not null; None where all are."""


class RowStats(TypedDict):
    """The figures of some rows; each key is there where the table has such columns."""

    duplicates: NotRequired[int]
    splits: NotRequired[dict[str, int]]
    finish_reasons: NotRequired[dict[str, int]]
    instructions: NotRequired[dict[str, int]]
    """Rows by instruction, the most frequent ones, and all others together; of triples only demonstrations."""
    only_ruled_out: NotRequired[int]
    """Triples that are no demonstrations: their outputs are only ruled out."""
    score: NotRequired[Scores]


class TaskStats(RowStats):
    """The figures of the rows of one task."""

    rows: int


class TableStats(RowStats):
    """The figures of a version's table."""

    version: str
    rows: int
    columns: dict[str, ColumnStats]
    measured: dict[str, float]
    """Of samples `empty` outputs and the `mean_logprob` of a token in nats; of rewards `pass@1` and others."""
    tasks: dict[str, TaskStats]
    """By task; empty where all rows are of one task."""


def table_stats(store: Store, ref: VersionRef) -> TableStats:
    """The figures of a version's table, as plain JSON values.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: the version is damaged, or a parent that holds the tasks of its rows.
    """
    table = with_task(store, ref)
    manifest = store.manifest(ref)
    threshold = manifest.config.get("threshold")
    by_task = table.sort("task").partition_by("task", as_dict=True, maintain_order=True)
    return {
        "version": str(ref),
        "rows": table.height,
        "columns": {name: _column(table[name]) for name in SCHEMAS[ref.stage].column_names()},
        **_row_stats(table, ref.stage, threshold),
        "measured": _measured(manifest),
        "tasks": {
            task: {"rows": rows.height, **_row_stats(rows, ref.stage, threshold)} for (task,), rows in by_task.items()
        }
        if len(by_task) > 1
        else {},
    }


def with_task(store: Store, ref: VersionRef) -> pl.DataFrame:
    """A version's rows with their `task` and, where they are made from samples, the sample's `prompt_id` and `k`.

    Such rows also have an `order`, which is larger the newer their sample is.

    Raises:
        VersionNotFound: there is no such version, it holds no table, or a parent is gone.
        VersionCorrupt: the version or a parent is damaged.
        SchemaError: its table has other columns: it was made by another version of hir.
    """
    table = checked_table(store, ref).collect()
    if ref.stage == "samples":
        table = table.with_columns(order=pl.lit(0))
    elif "sample_id" in table.columns:
        samples = _parent_columns(store, ref, "samples", ["sample_id", "prompt_id", "k"]).with_row_index("order")
        table = table.join(samples.select(pl.exclude(set(table.columns) - {"sample_id"})), on="sample_id", how="left")
    if "task" not in table.columns:
        table = table.join(_parent_columns(store, ref, "prompts", ["prompt_id", "task"]), on="prompt_id", how="left")
    return table


def followed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows whose output follows their instruction: all rows but triples that are no demonstrations."""
    return rows.filter(pl.col("weight") > 0) if "weight" in rows.columns else rows


def lengths(column: pl.Series) -> Lengths | None:
    """The lengths of texts or lists, nulls left out; None where all are null."""
    counts = column.str.len_chars() if column.dtype == pl.String else column.list.len()
    ordered = sorted(counts.drop_nulls())
    if not ordered:
        return None
    p95 = ordered[math.ceil(0.95 * len(ordered)) - 1]
    return {"min": ordered[0], "median": statistics.median(ordered), "p95": p95, "max": ordered[-1]}


def scores(table: pl.DataFrame, threshold: float | None = None) -> Scores:
    """The mean and histogram of scores, and the share that reaches the threshold where there is one.

    Args:
        table: rows with `outcome` and `score`.
        threshold: the score of a correct output.
    """
    outcomes, judged = Counter(table["outcome"]), table["score"].drop_nulls()
    mean = judged.mean()
    share_correct = None if threshold is None or table.is_empty() else int((judged >= threshold).sum()) / table.height
    return {
        "no_answer": outcomes["no_answer"],
        "not_judged": outcomes["not_judged"],
        "mean": mean if isinstance(mean, float) else None,
        "threshold": threshold,
        "share_correct": share_correct,
        "histogram": histogram(judged.to_list(), bins(judged.to_list())),
    }


def bins(values: Iterable[float]) -> list[Bin]:
    """The bars of a histogram: one for each value where there are at most ten, else ten of equal width."""
    ordered = sorted(set(values))
    if len(ordered) <= BINS:
        return [(value, value) for value in ordered]
    low, high = ordered[0], ordered[-1]
    edges = [low, *(low + (high - low) * place / BINS for place in range(1, BINS)), high]
    return list(pairwise(edges))


def histogram(values: Iterable[float], bars: Sequence[Bin]) -> list[HistogramBar]:
    """How many values are in each bar; a value on the edge of two bars counts in the upper one."""
    rows = Counter(bisect_right(bars, value, key=lambda bar: bar[0]) - 1 for value in values)
    return [{"from": low, "to": high, "rows": rows[place]} for place, (low, high) in enumerate(bars)]


def _row_stats(rows: pl.DataFrame, stage: str, threshold: float | None) -> RowStats:
    stats: RowStats = {}
    if stage in DUPLICATE_KEYS:
        stats["duplicates"] = rows.height - rows.unique(DUPLICATE_KEYS[stage]).height
    if "split" in rows.columns:
        stats["splits"] = value_counts(rows["split"])
    if "finish_reason" in rows.columns:
        stats["finish_reasons"] = value_counts(rows["finish_reason"])
    if "instruction" in rows.columns:
        stats["instructions"] = value_counts(followed(rows)["instruction"])
    if stage == "triples":
        stats["only_ruled_out"] = rows.height - followed(rows).height
    if "score" in rows.columns:
        stats["score"] = scores(rows, threshold)
    return stats


def _measured(manifest: Manifest) -> dict[str, float]:
    """What the stage measured of all rows, as its manifest has it."""
    found = {name: manifest.metrics.get(name) for name in ("empty", "mean_logprob")}
    found |= {f"pass@{k}": share for k, share in manifest.metrics.get("pass_at", {}).items()}
    return {name: value for name, value in found.items() if value is not None}


def _column(column: pl.Series) -> ColumnStats:
    is_text, is_list = column.dtype == pl.String, isinstance(column.dtype, pl.List)
    if not (is_text or is_list) or column.name.endswith("_id") or column.name in _NAMES:
        return {"nulls": column.null_count()}
    unit = "characters" if is_text else "tokens" if column.name.endswith("_ids") else "items"
    return {"nulls": column.null_count(), "unit": unit, "lengths": lengths(column)}


def _parent_columns(store: Store, ref: VersionRef, stage: str, columns: list[str]) -> pl.DataFrame:
    """Some columns of all parents of a stage; no rows where there is no such parent: demonstrations have no samples."""
    parents = store.manifest(ref).parents_of(stage)
    tables = [store.table(store.resolve(name)).select(columns).collect() for name in parents]
    return pl.concat([SCHEMAS[stage].create_empty().select(columns), *tables])
