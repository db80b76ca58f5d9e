"""The reward `graded`: how much of a sequence is right, from 0 to 1, as in sorting words.

Items are what blanks, commas and semicolons divide; case, punctuation around an item and the numbers of a list do not
count. A completion that holds none of the items is a slip of form and not a wrong answer: it cannot be judged.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from hir_core.config import GradedReward
from hir_core.rewards.reward import RowReward, Verdict, after_marker, shortened

_AROUND = ".:!?\"'`*()[]{}<>“”‘’«»-–—"
_LIST_NUMBER = re.compile(r"(?:^|(?<=\s))\d{1,4}[.):](?=\s)")
Item = tuple[str, int]
"""A word, and how often it has come before: equal words of a sequence are told apart by their order."""


class Graded(RowReward):
    """The best grade over all references: see `prefix_share` and `order_share`."""

    name = "graded"
    config: GradedReward

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        if not any(items_of(reference) for reference in prompt["references"]):
            return (
                "it has no reference with items in order: add `references`, each one a sequence, as in `fig kiwi plum`"
            )
        return None

    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        text = after_marker(completion, self.config.marker)
        if text is None:
            return Verdict(None, f"no {self.config.marker!r}: {shortened(completion)}")
        sequences = [items for reference in prompt["references"] if (items := items_of(reference))]
        has_numbers = any(word.isdecimal() for items in sequences for word, _ in items)
        given = items_of(text if has_numbers else _LIST_NUMBER.sub(" ", text))
        if not any(set(given) & set(items) for items in sequences):
            return Verdict(None, f"names no item: {shortened(completion)}")
        share = prefix_share if self.config.measure == "prefix" else order_share
        best = max(sequences, key=lambda items: share(given, items))
        expected = " ".join(word for word, _ in best)
        return Verdict(share(given, best), f"{len(given)} items for {len(best)}, expected {shortened(expected)}")


def items_of(text: str) -> list[Item]:
    """The items of a sequence, in order."""
    words = (word.strip(_AROUND).casefold() for word in re.split(r"[\s,;]+", text))
    seen = Counter[str]()
    items = []
    for word in filter(None, words):
        items.append((word, seen[word]))
        seen[word] += 1
    return items


def prefix_share(given: Sequence[Item], expected: Sequence[Item]) -> float:
    """How far the sequence is right from its beginning: right items before the first wrong one / the longer length."""
    pairs = zip(given, expected, strict=False)
    right = next((place for place, (found, item) in enumerate(pairs) if found != item), min(len(given), len(expected)))
    return right / max(len(given), len(expected))


def order_share(given: Sequence[Item], expected: Sequence[Item]) -> float:
    """The share of pairs of items that stand in the right order; (tau + 1) / 2 with Kendall's tau of a permutation.

    A pair with a missing item is not in order. Surplus items count as pairs that are not in order: with C pairs in
    order, n items given and m expected it is C / max(n(n-1)/2, m(m-1)/2). A single item is right or not.
    """
    longest = max(len(given), len(expected))
    if longest < 2:
        return float(given == expected)
    places = {item: place for place, item in enumerate(expected)}
    order = [places[item] for item in given if item in places]
    in_order = sum(first < second for n, first in enumerate(order) for second in order[n + 1 :])
    return in_order / (longest * (longest - 1) / 2)
