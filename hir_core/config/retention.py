"""Which versions of a run outlive `hir gc`."""

from __future__ import annotations

from pydantic import Field

from hir_core.config.section import Section


class RetentionConfig(Section):
    """What a run keeps beside the tables of its lines, which it always keeps; none of it changes a result."""

    last: int = Field(1, ge=1)
    """Iterations of a line, counted from its end, whose models keep their weights."""
    best: int = Field(1, ge=0)
    """Models that keep their weights because none is more accurate, whichever line or fork they are of."""

    def __str__(self) -> str:
        return f"last: {self.last}, best: {self.best}"
