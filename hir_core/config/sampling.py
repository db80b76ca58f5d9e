"""How outputs are drawn, for training and for evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hir_core.config.prompts import PromptSource
from hir_core.config.section import ExcludedFromId, Section


class SamplingConfig(Section):
    """How outputs are drawn from the model."""

    prompts: int | None = Field(None, ge=1)
    """Training prompts sampled in each iteration; left out: all of them."""
    mix: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """Weights by task: what part of an iteration's `prompts` each task has, however many it has; 0 leaves a task out.
    Left out: every prompt comes up equally often."""
    k: int = Field(4, ge=1)
    """Samples per prompt."""
    temperature: float = Field(1.0, gt=0)
    guidance: float = Field(0.0, ge=0)
    """Pushes every token away from what the wrong instruction would say, by this weight; doubles the work."""
    max_new_tokens: int = Field(32, ge=1)
    batch_tokens: Annotated[int, ExcludedFromId] = Field(16384, ge=1)
    """Tokens (prompt and output, padding counted) that one rank works on at a time."""
    zero3_weights: Annotated[Literal["auto", "gather", "stream"], ExcludedFromId] = "auto"
    """Under ZeRO-3: gather all weights once, stream them layer by layer, or decide by a memory estimate."""
    write_every_s: Annotated[float, ExcludedFromId] = Field(20.0, ge=0)
    """Finished samples are written at least this often, as soon as their batch is done: what a crash can cost."""

    @model_validator(mode="after")
    def _mix_can_be_drawn(self) -> SamplingConfig:
        if self.mix is not None and self.prompts is None:
            raise ValueError("a mix is of a number of prompts: set sampling.prompts, or leave sampling.mix out")
        if self.mix is not None and not any(self.mix.values()):
            raise ValueError("mix leaves every task out: give at least one a weight above 0")
        return self


class EvaluationConfig(Section):
    """What every model version is tested on, greedily: the held-out split, and any source named here."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Left out: as in sampling."""
    guidance: float | None = Field(None, ge=0)
    """Left out: as in sampling."""
    also: tuple[PromptSource, ...] = ()
    """Sources that are only evaluated, whatever their `test_share`."""
