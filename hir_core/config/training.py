"""How a model is trained on triples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hir_core.config.section import ExcludedFromId, Section


class TrainingConfig(Section):
    """How a model is trained on triples; the defaults are the paper's Table 7, the learning rate aside."""

    epochs: int = Field(4, ge=1)
    """Passes over the triples."""
    steps: int | None = Field(None, ge=1)
    """Optimizer steps, however many passes that makes; left out: as many as `epochs` needs."""
    batch_size: int = Field(64, ge=1)
    """Triples per optimizer step, over all ranks."""
    micro_batch_size: Annotated[int, ExcludedFromId] = Field(16, ge=1)
    """Triples per rank and forward pass; gradient accumulation follows from it."""
    learning_rate: float = Field(5e-5, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.2, ge=0, lt=1)
    contrastive: float = Field(1.0, ge=0)
    """Weight of the contrastive term (the paper's alpha)."""
    contrastive_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the contrast's target that goes to the other instructions: at 0.2 it stops pulling at odds of 4 to 1."""
    contrastive_per: Literal["output", "token"] = "output"
    """What is contrasted: the output's log-probability, or its mean per token."""
    contrast: Literal["instructions", "batch"] = "instructions"
    """What an output is contrasted with: the other instructions of its query, or the other triples' queries and
    instructions (the paper's in-batch form)."""
    contrast_ways: int = Field(4, ge=2)
    """Triples that are contrasted with each other in the in-batch form; each is forwarded once for each of them."""
    entropy: float = Field(0.001, ge=0)
    """Weight of the entropy bonus (the paper's beta)."""
    activation_checkpointing: Annotated[bool, ExcludedFromId] = False
    logits_chunk: Annotated[int, ExcludedFromId] = Field(1024, ge=1)
    """Target positions whose logits exist at the same time."""
    logprob_tolerance: Annotated[float, ExcludedFromId] = Field(0.1, gt=0)
    """Largest mean gap, in nats per token, between the trainer's and the sampler's log-probabilities of one batch."""


class WarmStartConfig(TrainingConfig):
    """Supervised training of the seed model on reference answers, before the first iteration."""

    demonstrations: int = Field(ge=1)
    """Training prompts whose reference is shown."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    contrastive: float = Field(0.0, ge=0, le=0)
    """A demonstration has one instruction only, so there is nothing to contrast."""
    entropy: float = Field(0.0, ge=0)
