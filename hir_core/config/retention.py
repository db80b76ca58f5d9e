"""`RetentionConfig`, the section `retention`: which model weights `hir gc` keeps."""

from __future__ import annotations

from pydantic import Field

from hir_core.config.section import Section


class RetentionConfig(Section):
    """Which models keep their weights when `hir gc` cleans up a run. The tables of a branch are always kept. No setting
    here changes a result."""

    last: int = Field(1, ge=1)
    """Number of iterations at the end of each branch whose models keep their weights."""
    best: int = Field(1, ge=0)
    """Number of most accurate models that keep their weights, over all branches of the run. 0 keeps none for its
    accuracy."""

    def __str__(self) -> str:
        return f"last: {self.last}, best: {self.best}"
