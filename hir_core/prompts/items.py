"""`Item`: one prompt as its source gives it, before `load` adds the prompt_id and the split."""

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
    """The whole text, including its options where it has any."""
    references: tuple[str, ...]
    """Accepted answers; demonstrations use the first."""
    origin: str
    """Where the item comes from, for messages: a file and line, or a generator and number."""
    history: tuple[Mapping[str, str], ...] = ()
    """The turns before the query, where the query is the last turn of a conversation."""
    options: tuple[str, ...] | None = None
    group: str | None = None
    """Items of one group stay on one side of the split; None: the item is a group of its own."""
    split: Split | None = None
    """The split that the source states; None: it follows from group and seed."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rejected: str | None = None
    """Why its source could not make a prompt of it; None: it could. Rejected items are counted by reason."""
