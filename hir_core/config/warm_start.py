"""The section `warm_start`: training on reference answers before the loop."""

from __future__ import annotations

from pydantic import Field

from hir_core.config.training import TrainingConfig


class WarmStartConfig(TrainingConfig):
    """Supervised training of the initial model on reference answers, before the first iteration. Takes the settings of
    `training`; where the defaults differ, they are those of plain supervised training."""

    demonstrations: int = Field(ge=1)
    """Number of train prompts whose reference answers are trained on."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target token's probability that is spread over the whole vocabulary."""
    contrastive: float = Field(0.0, ge=0, le=0)
    """Always 0: a demonstration has one instruction only, so there is nothing to contrast it with."""
    entropy: float = Field(0.0, ge=0)
    """Weight of the entropy bonus. 0 switches it off."""
