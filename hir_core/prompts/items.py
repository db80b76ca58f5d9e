"""`Item`: one prompt as a source gives it, before it has a key and a side of the split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Item:
    """One prompt of a source."""

    task: str
    query: str
    """The whole text, options included where there are any."""
    references: tuple[str, ...]
    """Accepted answers, the one to show in demonstrations first."""
    place: str
    """Where it came from, for messages: a file and line, or a generator and number."""
    history: tuple[Mapping[str, str], ...] = ()
    """The turns before the query, where it is the last of a conversation."""
    options: tuple[str, ...] | None = None
    group: str | None = None
    """None: the item stands for itself."""
    split: Split | None = None
    """None: decided by group and seed."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
