"""The reward `graded`: how much of a sequence is right, from 0 to 1, as in sorting words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hir_core.config import GradedReward
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, after_marker, shortened

_PUNCTUATION = ".:!?\"'`*()[]{}<>“”‘’«»-–—"
_LIST_NUMBER = re.compile(r"(?:^|(?<=\s))\d{1,4}[.):](?=\s)")
Item = tuple[str, int]
"""A word, and how many equal words come before it in its sequence: this makes every item of a sequence unique."""


class Graded(RowReward):
    """Compares a sequence of items with the reference sequences; the best of them counts.

    prefix: R = right items before the first wrong one / longer length. kendall: R = (tau + 1) / 2 with Kendall's rank
    correlation tau, extended to missing and surplus items in `order_share`. Items are separated by whitespace, commas
    and semicolons; case, punctuation around an item and the numbers of a numbered list do not count. A completion
    that holds none of the items is not an answer, and cannot be judged.
    """

    name = "graded"
    config: GradedReward

    def unusable(self, prompt: PromptRow) -> str | None:
        if not any(items_of(reference) for reference in prompt["references"]):
            return (
                "it has no reference with items in order: add `references`, each one a sequence, as in `fig kiwi plum`"
            )
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        text = after_marker(completion, self.config.marker)
        if text is None:
            return Verdict(None, f"no {self.config.marker!r}: {shortened(completion)}")
        references = [items for reference in prompt["references"] if (items := items_of(reference))]
        has_numbers = any(word.isdecimal() for items in references for word, _ in items)
        answer = items_of(text if has_numbers else _LIST_NUMBER.sub(" ", text))
        if not any(set(answer) & set(items) for items in references):
            return Verdict(None, f"names no item: {shortened(completion)}", no_answer=True)
        share = prefix_share if self.config.measure == "prefix" else order_share
        best = max(references, key=lambda items: share(answer, items))
        expected = " ".join(word for word, _ in best)
        return Verdict(share(answer, best), f"{len(answer)} items for {len(best)}, expected {shortened(expected)}")


def items_of(text: str) -> list[Item]:
    """The items of a sequence, in order."""
    words = (word.strip(_PUNCTUATION).casefold() for word in re.split(r"[\s,;]+", text))
    counts = Counter[str]()
    items = []
    for word in filter(None, words):
        items.append((word, counts[word]))
        counts[word] += 1
    return items


def prefix_share(answer: Sequence[Item], expected: Sequence[Item]) -> float:
    """Right items before the first wrong one, divided by the longer length."""
    pairs = zip(answer, expected, strict=False)
    first_wrong = (index for index, (item, expected_item) in enumerate(pairs) if item != expected_item)
    right = next(first_wrong, min(len(answer), len(expected)))
    return right / max(len(answer), len(expected))


def order_share(answer: Sequence[Item], expected: Sequence[Item]) -> float:
    """The share of pairs of items that are in the right order: (tau + 1) / 2 with Kendall's tau for a permutation.

    Pairs with a missing or a surplus item count as pairs in the wrong order. With C pairs in the right order, n items
    in the answer and m expected, the share is C / max(n(n-1)/2, m(m-1)/2). A sequence of one item is right (1) or
    wrong (0).
    """
    longest = max(len(answer), len(expected))
    if longest < 2:
        return float(answer == expected)
    expected_index = {item: index for index, item in enumerate(expected)}
    order = [expected_index[item] for item in answer if item in expected_index]
    in_order = sum(first < second for n, first in enumerate(order) for second in order[n + 1 :])
    return in_order / (longest * (longest - 1) / 2)
