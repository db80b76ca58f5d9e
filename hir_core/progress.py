"""Rows that are counted while they are worked on: how a person learns how far work on the driver is.

Reads and writes nothing. Leaves what the rows are to whoever works on them, and what is shown to `flows`.
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
    """0 where nobody can say."""
    unit: str = ""
    tokens: int = 0
    seconds: float = 0.0
    loss: float | None = None


T = TypeVar("T")
OnRows = Callable[[int, int], None]
"""Is told how many rows are done, and of how many."""

EVERY_S = 0.25
"""Telling takes longer than many a row does."""


def ignore(done: int, total: int) -> None:
    """Stands in where nobody wants to be told."""
    del done, total


def counted(rows: Iterable[T], total: int, on_rows: OnRows) -> Iterator[T]:
    """The rows, one by one; tells how many are done, a few times per second at most."""
    told = time.monotonic()
    for done, row in enumerate(rows):
        if time.monotonic() - told >= EVERY_S:
            on_rows(done, total)
            told = time.monotonic()
        yield row
