"""A rank's share of a step's rows: which rows are still to do, batches, parts written early, progress, sums over ranks.

Reads and writes parts of a draft, so that a killed launch loses only the rows that were not written yet. All ranks of a
launch call these functions together. What a row is, and the work on it, is left to the steps in `worker`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import torch
from torch import distributed as dist

from hir_core.errors import StoreError
from hir_core.launch.job_spec import RowsResult
from hir_core.launch.rank import Rank
from hir_core.progress import Progress
from hir_core.store.files import finished_parts, list_parts, read_parts, write_part

T = TypeVar("T")

REPORT_EVERY_S = 0.1
"""A report is a file that is written and renamed: one for each prompt would take as long as sampling its outputs."""


def finished_keys(rank: Rank, folder: Path, column: str) -> set[str]:
    """The keys in a draft's finished parts, the same on all ranks: read before any of them writes another part."""
    if rank.rank == 0:
        # Before any rank reads: `finished_parts` also deletes what a power cut left unreadable.
        _delete_repeated(finished_parts(folder), column)
    dist.barrier()
    keys = set(read_parts(folder, [column])[column].to_list()) if list_parts(folder) else set()
    dist.barrier()  # all ranks have read before any rank writes
    return keys


def _delete_repeated(parts: Sequence[Path], column: str) -> None:
    """Deletes parts that repeat a row of a larger part: a rank that outlived its launch wrote one of the two."""
    keys = {path: set(pl.read_parquet(path, columns=[column])[column]) for path in parts}
    kept_keys = set[str]()
    for path in sorted(parts, key=lambda path: (-len(keys[path]), path)):
        if kept_keys.isdisjoint(keys[path]):
            kept_keys |= keys[path]
        else:
            path.unlink()


def share_of(rank: Rank, rows: Sequence[T], order: Callable[[T], Any]) -> list[T]:
    """This rank's rows in the given order: every n-th of all, for n ranks, so that the shares are alike."""
    return sorted(rows, key=order)[rank.rank :: rank.world_size]


def batches(rows: Sequence[T], length: Callable[[T], int], batch_tokens: int) -> list[list[T]]:
    """Batches of rows by falling length, each of at most `batch_tokens` tokens, padding included, or of one row.

    Args:
        length: tokens of a row.
    """
    result: list[list[T]] = []
    free_rows = 0
    for row in sorted(rows, key=length, reverse=True):
        if not result or free_rows < 1:
            result.append([])
            free_rows = batch_tokens // length(row)
        result[-1].append(row)
        free_rows -= 1
    return result


def pad_to_longest_rank(work: Sequence[T], idle: T, device: torch.device) -> list[T]:
    """This rank's batches, and idle ones after them until it has as many as the rank with the most."""
    most = torch.tensor([len(work)], device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return [*work, *[idle] * (int(most) - len(work))]


def sum_over_ranks(values: Sequence[int], device: torch.device) -> list[int]:
    """The sum of each value over all ranks."""
    sums = torch.tensor(values, device=device)
    dist.all_reduce(sums)
    return [int(value) for value in sums]


class PartWriter:
    """Writes a rank's rows as parts, each named after the key of its first row.

    Args:
        schema: columns and types of the rows, the key first.
        every_s: a part is written with the first batch that is finished this many seconds after the last part.
    """

    def __init__(self, rank: Rank, folder: Path, schema: Mapping[str, Any], every_s: float) -> None:
        self.rank, self.folder, self.schema, self.every_s = rank, folder, dict(schema), every_s
        self.key = next(iter(self.schema))
        self.keys = set[str]()
        self.rows: list[dict[str, Any]] = []
        self.flushed = time.monotonic()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes the finished rows of one batch.

        Raises:
            StoreError: this rank has added one of them before.
        """
        for row in rows:
            if row[self.key] in self.keys:
                raise StoreError(f"rank {self.rank.rank} writes the row of {self.key} {row[self.key]} twice")
            self.keys.add(row[self.key])
        self.rows += rows
        if time.monotonic() - self.flushed > self.every_s:
            self.flush()

    def close(self, expected: int) -> None:
        """Writes the last rows.

        Raises:
            StoreError: this rank has not written as many rows as its share has.
        """
        self.flush()
        if len(self.keys) != expected:
            raise StoreError(f"rank {self.rank.rank} has written {len(self.keys)} of its {expected} rows")

    def flush(self) -> None:
        """Writes the rows that were added since the last part."""
        if self.rows:
            write_part(self.folder, str(self.rows[0][self.key]), pl.DataFrame(self.rows, schema=self.schema))
        self.rows, self.flushed = [], time.monotonic()


class Meter:
    """Counts the finished rows and tokens of this rank, and reports the whole launch's progress, estimated from them.

    Args:
        name: the step's name in the progress display.
        unit: what a row is, in the plural.
        total: rows of all ranks.
        own: rows of this rank.
    """

    def __init__(self, rank: Rank, name: str, unit: str, total: int, own: int) -> None:
        self.rank, self.name, self.unit, self.total, self.own = rank, name, unit, total, own
        self.rows = self.tokens = 0
        self.started, self.reported = time.monotonic(), -math.inf

    def add(self, rows: int, tokens: int) -> None:
        """Counts finished rows; reports the progress, unless it has just been reported."""
        self.rows += rows
        self.tokens += tokens
        if time.monotonic() - self.reported < REPORT_EVERY_S and self.rows < self.own:
            return
        self.reported = time.monotonic()
        done = round(self.rows / self.own * self.total) if self.own else self.total
        tokens, seconds = self.tokens * self.rank.world_size, time.monotonic() - self.started
        self.rank.progress(Progress(self.name, done, self.total, self.unit, tokens=tokens, seconds=seconds))

    def result(self, device: torch.device) -> RowsResult:
        """Rows, tokens and speed of all ranks together."""
        seconds = time.monotonic() - self.started
        rows, tokens = sum_over_ranks([self.rows, self.tokens], device)
        return {
            "rows": rows,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds if tokens else None,
        }
