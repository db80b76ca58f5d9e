"""A seeded random generator whose choices are the same on every machine and with every Python version.

Python promises a stable sequence for `Random.random()` only, so every choice here is derived from that method alone.
Prompts are identified by their content: a change to a method here changes the ids of every synthetic prompt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from hir_core.schemas import content_key

T = TypeVar("T")


class SeededRng:
    """A sequence of random choices that depends on the given seed values only."""

    def __init__(self, *seed: object) -> None:
        self._uniform = random.Random(int(content_key(*seed), 16)).random

    def below(self, limit: int) -> int:
        """An integer from 0 to `limit` - 1."""
        return int(self._uniform() * limit)

    def between(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + self.below(high - low + 1)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._uniform() < probability

    def pick(self, values: Sequence[T]) -> T:
        """One of the values, each equally likely."""
        return values[self.below(len(values))]

    def sample(self, values: Sequence[T], size: int) -> list[T]:
        """`size` different entries of `values` in random order (the first steps of a Fisher-Yates shuffle)."""
        pool = list(values)
        for index in range(size):
            other = self.between(index, len(pool) - 1)
            pool[index], pool[other] = pool[other], pool[index]
        return pool[:size]

    def shuffled(self, values: Sequence[T]) -> list[T]:
        """All values in random order."""
        return self.sample(values, len(values))

    def weighted(self, weights: Sequence[float]) -> int:
        """An index into `weights`, drawn with a probability in proportion to its weight."""
        remaining = self._uniform() * sum(weights)
        for index, weight in enumerate(weights):
            remaining -= weight
            if remaining < 0:
                return index
        # Rounding left a remainder after the last weight.
        return max(index for index, weight in enumerate(weights) if weight > 0)
