"""Which side of the split a group of prompts stands on: train or test.

Whole groups are assigned, in an order given by a hash of seed and group, so the side does not depend on the order of
rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from hir_core.prompts.items import Split
from hir_core.schemas import content_key


def assign_splits(groups: Iterable[str], test_share: float, seed: int) -> dict[str, Split]:
    """Assigns each group to a side: `test_share` of the groups, rounded, to test."""
    ordered = sorted(set(groups), key=lambda group: content_key(seed, group))
    held_out = round(test_share * len(ordered))
    return {group: "test" if place < held_out else "train" for place, group in enumerate(ordered)}
