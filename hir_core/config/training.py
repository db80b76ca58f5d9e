"""The section `training`: how a model is trained on triples."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from hir_core.config.section import DefaultExcludedFromId, ExcludedFromId, Section


class TrainingConfig(Section):
    """How each iteration trains the model on triples. The defaults are those of the paper's Table 7, except for the
    learning rate and the label smoothing."""

    epochs: int = Field(4, ge=1)
    """Number of passes over the triples. Ignored where `steps` is set."""
    steps: int | None = Field(None, ge=1)
    """Number of optimizer steps, however many passes over the triples that takes. Unset: as many as `epochs` needs."""
    batch_size: int = Field(64, ge=1)
    """Number of triples per optimizer step, over all ranks."""
    micro_batch_tokens: Annotated[int, ExcludedFromId] = Field(4096, ge=1)
    """Largest number of tokens of a rank's forward pass. A triple counts once for each instruction under which it is
    forwarded, and a prompt that is computed once for several outputs counts once. An optimizer step takes as many
    forward passes as it needs, and a triple with more tokens than this has one of its own."""
    shuffle: Annotated[Literal["triples", "prompts"], DefaultExcludedFromId] = "triples"
    """What each epoch puts in random order: single triples, or prompts with all their triples. With `prompts` most
    outputs of a prompt are in one optimizer step, where the prompt is computed once for all of them: faster."""
    learning_rate: float = Field(5e-5, gt=0)
    """Highest learning rate of AdamW, reached after the warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate changes after the warm-up: it stays constant, or falls to 0 linearly or along a cosine."""
    warmup_steps: int = Field(0, ge=0)
    """Number of optimizer steps over which the learning rate rises linearly from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Norm above which gradients are clipped."""
    optimizer_state: Literal["none", "masters", "all"] = "masters"
    """What is saved beside the model for the next iteration to continue from. `masters`: the fp32 master weights of a
    bf16 model, 4 bytes per parameter; a model in fp32 has no others. `all`: AdamW's moments too, 8 bytes more. `none`:
    the next iteration starts from the model alone."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of each target token's probability that is spread over the whole vocabulary in the supervised term. The
    paper has 0.2. A model that is trained with it also draws random tokens: at temperature 1 up to a fifth of all."""
    contrastive: float = Field(1.0, ge=0)
    """Weight of the contrastive term (the paper's alpha). 0 switches it off."""
    contrastive_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the contrastive target that is spread over the other instructions. At 0.2 with two instructions the term
    has its minimum where the own instruction is 4 times as likely as the other."""
    contrastive_per: Literal["output", "token"] = "output"
    """What the contrastive term compares: the log-probability of the whole output, or its mean per token."""
    contrast: Literal["instructions", "batch"] = "instructions"
    """What an output is contrasted with: `instructions` takes the other instructions for the same query, `batch` the
    queries and instructions of other triples (the paper's in-batch form)."""
    contrast_ways: int = Field(4, ge=2)
    """Number of triples that are contrasted with each other when `contrast` is `batch`. Each is forwarded once for each
    of them, so the cost grows with it."""
    entropy: float = Field(0.001, ge=0)
    """Weight of the entropy bonus (the paper's beta). 0 switches it off."""
    exclusion: float = Field(0.5, ge=0)
    """Weight of the exclusion term, by which the model learns not to write the outputs that the relabeler
    `exclude_wrong` rules out. Without such outputs it changes nothing."""
    exclusion_loss: Annotated[Literal["conditioned", "unlikelihood"], DefaultExcludedFromId] = "conditioned"
    """Form of the exclusion term. `conditioned`: the model is drawn towards its own distribution without the excluded
    outputs, which says where their probability goes. `unlikelihood`: -log(1 - p) of each excluded output."""
    exclusion_top: Annotated[int, DefaultExcludedFromId] = Field(32, ge=1)
    """Number of the likeliest tokens at each place whose probabilities `conditioned` keeps one by one; the others are
    kept as one sum."""
    activation_checkpointing: Annotated[bool, ExcludedFromId] = False
    """Recomputes activations in the backward pass instead of storing them: less memory, more time."""
    logits_chunk: Annotated[int, ExcludedFromId] = Field(1024, ge=1)
    """Number of target tokens whose logits are in memory at the same time."""
    checkpoint_every_s: Annotated[float | None, ExcludedFromId] = Field(1200.0, ge=0)
    """Seconds between two checkpoints of a training, at the newest of which a run that was stopped continues. One takes
    12 bytes of disk space per parameter until the model is saved, and twice that while it replaces another. Unset: one
    is saved only where the run is interrupted or asked to end."""
    logprob_tolerance: Annotated[float, ExcludedFromId] = Field(0.1, gt=0)
    """Largest allowed mean difference, in nats per token, between the log-probabilities that the trainer computes for
    one batch and those recorded when it was sampled. A larger one stops the run."""

    def saved_state(self, is_bf16: bool) -> Literal["none", "masters", "all"]:
        """What of the optimizer's state is in the files of a model that was trained with this precision."""
        has_masters = is_bf16 or self.optimizer_state == "all"
        return self.optimizer_state if has_masters else "none"

    @model_validator(mode="after")
    def _in_batch_contrast_needs_other_prompts(self) -> Self:
        if self.contrastive > 0 and self.contrast == "batch" and self.shuffle == "prompts":
            raise ValueError(
                "`shuffle: prompts` puts equal prompts together, and `contrast: batch` needs different ones"
            )
        return self
