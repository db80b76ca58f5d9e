"""`PerPrompt`, which remembers what was worked out from a prompt for the next completion of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from hir_core.rewards.reward import PromptRow

T = TypeVar("T")
_MOST = 50_000
"""Prompts that are remembered at a time."""


class PerPrompt(Generic[T]):
    """What a function works out from a prompt, once for all completions of the same row."""

    def __init__(self, work_out: Callable[[PromptRow], T]) -> None:
        self._work_out = work_out
        # By the row's identity; the row is kept beside it, since another one could get the identity of a deleted one.
        self._known: dict[int, tuple[PromptRow, T]] = {}

    def __call__(self, prompt: PromptRow) -> T:
        known = self._known.get(id(prompt))
        if known is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[id(prompt)] = (prompt, self._work_out(prompt))
        return known[1]
