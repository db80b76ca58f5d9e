"""What `hir doctor` says: one thing that is wrong, where, and what to do about it. Reads and writes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be."""

    what: str
    where: str
    do: str
    mend: Callable[[], object] | None = None
    """Sets it right, where that cannot harm anything; None where a person has to decide."""
