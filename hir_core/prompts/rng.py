"""Random choices that are the same on every machine and Python version.

Python promises a stable sequence only for `Random.random()`, so every choice here is made from that alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from hir_core.schemas import content_key

T = TypeVar("T")


class SeededRng:
    """A stream of choices decided by its seed values."""

    def __init__(self, *seed: object) -> None:
        self._uniform = random.Random(int(content_key(*seed), 16)).random

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1."""
        return int(self._uniform() * limit)

    def between(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, share: float) -> bool:
        """True in about `share` of the calls."""
        return self._uniform() < share

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.below(len(values))]

    def sample(self, values: Sequence[T], size: int) -> list[T]:
        """`size` of the values in random order, none twice (Fisher-Yates, stopped early)."""
        pool = list(values)
        for place in range(size):
            other = self.between(place, len(pool) - 1)
            pool[place], pool[other] = pool[other], pool[place]
        return pool[:size]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """All values in random order."""
        return self.sample(values, len(values))

    def weighted(self, weights: Sequence[float]) -> int:
        """An index, each as often as its weight says."""
        rest = self._uniform() * sum(weights)
        for index, weight in enumerate(weights):
            rest -= weight
            if rest < 0:
                return index
        return max(index for index, weight in enumerate(weights) if weight > 0)  # rounding used up the whole sum
