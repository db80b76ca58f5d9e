"""A rank's share of a step's rows: what is finished already, parts written early, progress told, ranks kept in step.

Reads and writes parts of a draft, so that a killed launch costs only what was not written yet. All ranks of a launch
make these calls together. Leaves what a row is, and the work on it, to the steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import torch
from torch import distributed as dist

from hir_core.errors import StoreError
from hir_core.launch.rank import Rank
from hir_core.progress import Progress
from hir_core.store.files import finished_parts, list_parts, read_parts, write_part

T = TypeVar("T")


def finished_keys(rank: Rank, folder: Path, column: str) -> set[str]:
    """The keys in a draft's finished parts: the same on all ranks, and before any of them writes more."""
    if rank.rank == 0:
        _drop_repeated(finished_parts(folder), column)  # and what a power cut left unreadable, before any rank reads
    dist.barrier()
    done = set(read_parts(folder, [column])[column].to_list()) if list_parts(folder) else set()
    dist.barrier()  # all ranks have looked before any rank writes
    return done


def _drop_repeated(parts: Sequence[Path], column: str) -> None:
    """Deletes parts that repeat a row of a larger one: a rank that outlived its launch wrote one of the two."""
    keys = {path: set(pl.read_parquet(path, columns=[column])[column]) for path in parts}
    seen = set[str]()
    for path in sorted(parts, key=lambda path: (-len(keys[path]), path)):
        if not seen.isdisjoint(keys[path]):
            path.unlink()
        else:
            seen |= keys[path]


def batches(
    rows: Sequence[T], length: Callable[[T], int], batch_tokens: int, copies: Callable[[T], int] = lambda _: 1
) -> list[list[T]]:
    """Rows by falling length, cut so that rows times the longest of them stay within the token budget.

    Args:
        copies: how many rows of the batch one of these becomes; they stay together.
    """
    result: list[list[T]] = []
    room = 0
    for row in sorted(rows, key=length, reverse=True):
        if not result or copies(row) > room:
            result.append([])
            room = batch_tokens // length(row)
        result[-1].append(row)
        room -= copies(row)
    return result


def as_many_as_any_rank(work: Sequence[T], idle: T, device: torch.device) -> list[T]:
    """This rank's batches, filled up with idle ones so that all ranks have as many as the longest list."""
    most = torch.tensor([len(work)], device=device)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return [*work, *[idle] * (int(most) - len(work))]


def summed(values: Sequence[int], device: torch.device) -> list[int]:
    """The sum of each value over all ranks."""
    found = torch.tensor(values, device=device)
    dist.all_reduce(found)
    return [int(value) for value in found]


class PartWriter:
    """Writes a rank's rows as parts named after their first row's key; what is finished is soon on disk.

    Args:
        schema: columns and types of the rows, the key first.
        every_s: finished rows are written at least this often, as soon as their batch is done.
    """

    def __init__(self, rank: Rank, folder: Path, schema: Mapping[str, Any], every_s: float) -> None:
        self.rank, self.folder, self.schema, self.every_s = rank, folder, dict(schema), every_s
        self.key = next(iter(self.schema))
        self.keys = set[str]()
        self.rows: list[dict[str, Any]] = []
        self.flushed = time.monotonic()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Takes the rows of one batch.

        Raises:
            StoreError: this rank has had one of them before.
        """
        for row in rows:
            if row[self.key] in self.keys:
                raise StoreError(f"rank {self.rank.rank} writes the row of {self.key} {row[self.key]} twice")
            self.keys.add(row[self.key])
        self.rows += rows
        if time.monotonic() - self.flushed > self.every_s:
            self._flush()

    def close(self, expected: int) -> None:
        """Writes the last rows.

        Raises:
            StoreError: this rank has not written as many rows as its share holds.
        """
        self._flush()
        if len(self.keys) != expected:
            raise StoreError(f"rank {self.rank.rank} has written {len(self.keys)} of its {expected} rows")

    def _flush(self) -> None:
        if self.rows:
            write_part(self.folder, str(self.rows[0][self.key]), pl.DataFrame(self.rows, schema=self.schema))
        self.rows, self.flushed = [], time.monotonic()


class Meter:
    """Counts rows and tokens of this rank, and reports the whole launch's progress from its own share.

    Args:
        name: what a person sees while the step runs.
        total: rows of all ranks; `own`: those of this one.
    """

    def __init__(self, rank: Rank, name: str, unit: str, total: int, own: int) -> None:
        self.rank, self.name, self.unit, self.total, self.own = rank, name, unit, total, own
        self.rows = self.tokens = 0
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.monotonic() - self.started

    def add(self, rows: int, tokens: int) -> None:
        """Counts a batch that is done."""
        self.rows += rows
        self.tokens += tokens
        done = round(self.rows / self.own * self.total) if self.own else self.total
        tokens, seconds = self.tokens * self.rank.world_size, self.seconds
        self.rank.progress(Progress(self.name, done, self.total, self.unit, tokens=tokens, seconds=seconds))

    def facts(self, device: torch.device) -> dict[str, Any]:
        """What all ranks did together."""
        seconds = self.seconds
        rows, tokens = summed([self.rows, self.tokens], device)
        return {
            "rows": rows,
            "tokens": tokens,
            "seconds": seconds,
            "tokens_per_s": tokens / seconds if tokens else None,
        }
