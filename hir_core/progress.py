"""Progress of work on rows: how many are done, reported a few times per second while a row-by-row loop runs.

Used by the stages that run on the driver; the ranks of a launch report a `Progress` of their own. Reads and writes
nothing. What the rows are is left to the caller, and what is shown to `flows`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class Progress:
    """How far a step has come."""

    step: str
    done: int = 0
    total: int = 0
    """0 where it is not known."""
    unit: str = ""
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None
    note: str = ""
    """What is worth a line of its own, as it continues a sentence about the step's model; the same in all later reports
    of the step."""


T = TypeVar("T")
OnRows = Callable[[int, int], None]
"""Called with how many rows are done, and of how many."""

EVERY_S = 0.25
"""Seconds between two reports: a report takes longer than many a row does."""


def ignore(*reported: object) -> None:
    """The callback of a caller that does not follow the progress, in rows or as a `Progress`."""
    del reported


def in_slice(on_rows: OnRows, before: int, total: int) -> OnRows:
    """The callback for the rows of a slice, which come after so many of all rows."""
    return lambda done, _: on_rows(before + done, total)


def counted(rows: Iterable[T], total: int, on_rows: OnRows) -> Iterator[T]:
    """The rows, one by one; reports how many are done, a few times per second at most."""
    reported_at = time.monotonic()
    for done, row in enumerate(rows):
        if time.monotonic() - reported_at >= EVERY_S:
            on_rows(done, total)
            reported_at = time.monotonic()
        yield row
