"""The section `sampling`: how outputs are drawn from the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from hir_core.config.section import DefaultExcludedFromId, ExcludedFromId, Section

DEFAULT_TEMPERATURE = 1.0
AUTO_TOKENS = 16384
"""Tokens at a time on a CPU, and wherever a batch's memory cannot be estimated."""


class VllmEngine(Section):
    """vLLM, in a Python environment of its own: after each training it loads the saved model, and answers the test
    prompts and samples."""

    type: Literal["vllm"]
    """Selects vLLM."""
    release: str
    """vLLM's release in that environment, such as 0.32.0. It is part of version ids, and another one is refused."""
    python: Annotated[Path, ExcludedFromId]
    """The Python interpreter of the environment in which vLLM is installed; hir is not needed there."""
    tensor_parallel: Annotated[int, ExcludedFromId] = Field(1, ge=1)
    """Number of GPUs that share one copy of the model. There are as many copies as the ranks of a launch allow."""
    gpu_memory_utilization: Annotated[float | None, ExcludedFromId] = Field(None, gt=0, le=1)
    """Share of a GPU's memory that vLLM may take. This setting and the next five have vLLM's names. Unset: vLLM's
    default."""
    kv_cache_memory_bytes: Annotated[int | None, ExcludedFromId] = Field(None, ge=1)
    """Memory for keys and values, in place of what `gpu_memory_utilization` leaves for them. Unset: on a CPU 1 GiB."""
    max_num_seqs: Annotated[int | None, ExcludedFromId] = Field(None, ge=1)
    """Largest number of outputs that are drawn at the same time. Unset: vLLM's default."""
    max_num_batched_tokens: Annotated[int | None, ExcludedFromId] = Field(None, ge=1)
    """Largest number of tokens of a forward pass. Unset: vLLM's default."""
    enforce_eager: Annotated[bool | None, ExcludedFromId] = None
    """Whether nothing is compiled and no CUDA graphs are recorded: loads faster and draws more slowly. Unset: `true`
    on a CPU, else vLLM's default."""
    enable_chunked_prefill: Annotated[bool | None, ExcludedFromId] = None
    """Whether long prompts are read in several passes. Unset: `false` on a CPU, where rows could not have seeds of
    their own otherwise; else vLLM's default."""

    @field_validator("release")
    @classmethod
    def _release_is_a_number(cls, release: str) -> str:
        if not re.fullmatch(r"\d+\.\d+[\w.]*", release, re.ASCII):
            raise ValueError("expected the number of a release, such as 0.32.0")
        return release


def _engine_type(value: Any) -> str:
    return str(value.get("type", "vllm") if isinstance(value, dict) else getattr(value, "type", value))


Engine = Annotated[
    Annotated[Literal["transformers"], Tag("transformers")] | Annotated[VllmEngine, Tag("vllm")],
    Discriminator(_engine_type),
]


class SamplingConfig(Section):
    """How completions are sampled from the model in each iteration."""

    prompts: int | None = Field(None, ge=1)
    """Number of train prompts that each iteration samples; successive iterations go through all of them in turn. Unset:
    every train prompt in every iteration."""
    mix: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    """Weight of each task by name. An iteration's `prompts` are shared among the tasks in proportion to these weights,
    however many prompts a task has; 0 leaves a task out. Unset: every prompt is equally likely."""
    k: int = Field(4, ge=1)
    """Number of samples per prompt."""
    distinct: Annotated[bool, DefaultExcludedFromId] = False
    """Whether the samples of a prompt are drawn without replacement: after the first one each further one from the
    model's distribution without those before it. With short outputs this finds right answers that the model finds
    unlikely, where independent draws repeat the likely ones. The outputs of a prompt that follow the same instruction
    then count as one together, in proportion to what they say of the model's distribution. Draws at temperature 1 from
    all tokens. The samples of an evaluation stay independent."""
    engine: Annotated[Engine, DefaultExcludedFromId] = "transformers"
    """The program that draws outputs, for samples and for the answers of an evaluation. `transformers`: the ranks that
    train also draw, with the weights that they hold. Settings with `type: vllm`: vLLM draws, which is made for large
    models and many outputs on GPUs."""
    preset: Annotated[Literal["model"] | None, DefaultExcludedFromId] = None
    """`model` takes what the next four settings leave unset from the model's own generation_config.json, as chat models
    bring it along; the manifest of the samples says which values were taken. Unset: nothing is taken."""
    temperature: float | None = Field(None, gt=0)
    """Sampling temperature. 1.0 samples from the model's own distribution, which is what the method assumes. Unset:
    1.0, or what `preset` gives."""
    top_p: Annotated[float | None, DefaultExcludedFromId] = Field(None, gt=0, le=1)
    """Draws only from the fewest likeliest tokens that together have at least this share of the probability. Unset:
    from all tokens. The log-probabilities of samples stay those of the whole distribution at temperature 1, whatever
    this and the next two settings leave out, because training compares its own with them."""
    top_k: Annotated[int | None, DefaultExcludedFromId] = Field(None, ge=1)
    """Draws only from so many of the likeliest tokens. Unset: from all tokens."""
    min_p: Annotated[float | None, DefaultExcludedFromId] = Field(None, gt=0, le=1)
    """Draws only tokens that are at least this share as likely as the likeliest one. Unset: from all tokens."""
    stop: Annotated[tuple[str, ...], DefaultExcludedFromId] = ()
    """Texts that end an output as soon as one of them is complete, in samples and in the answers of an evaluation. The
    text of the output ends before it; its token ids, which are trained on, keep it, so that the model learns to write
    it; its `finish_reason` is `stop`."""
    max_new_tokens: int = Field(32, ge=1)
    """Longest completion in tokens; a longer one is cut off. The run says so where a tenth of the outputs or more are
    cut off, and before it starts where references have more words than that."""
    batch_tokens: Annotated[int | Literal["auto"], ExcludedFromId] = "auto"
    """Number of tokens (prompts and completions, padding included) that one rank processes at a time. `auto` takes as
    many rows as fit into the free memory, on a CPU at most 16,384 tokens. Where memory runs out, the batch is halved
    and drawn again. Does not change results, but for the rounding of floating-point sums."""
    zero3_weights: Annotated[Literal["auto", "gather", "stream"], ExcludedFromId] = "auto"
    """How sampling uses weights that ZeRO-3 has sharded: `gather` collects all of them once, `stream` collects them
    layer by layer for every token, and `auto` gathers them where they fit into the free memory with a small batch."""
    write_every_s: Annotated[float, ExcludedFromId] = Field(20.0, ge=0)
    """Longest time in seconds for which finished samples stay unwritten; they are written when the next prompt is
    finished. A crash loses no more than this."""

    @field_validator("batch_tokens", mode="before")
    @classmethod
    def _batch_tokens_is_auto_or_positive(cls, tokens: Any) -> Any:
        # Before the union is tried: pydantic would report one problem for each of its members.
        if tokens != "auto" and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 1):
            raise ValueError("expected auto or a whole number of at least 1")
        return tokens

    @field_validator("stop")
    @classmethod
    def _stop_texts_are_not_empty(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        if not all(texts):
            raise ValueError("an empty text would end every output at once: remove it")
        return texts

    def fingerprint(self) -> dict[str, Any]:
        """As `Section.fingerprint`; an unset temperature is the default, or left out where the model decides it."""
        settings = super().fingerprint()
        if self.temperature is None:
            del settings["temperature"]
            settings |= {} if self.preset else {"temperature": DEFAULT_TEMPERATURE}
        return settings

    def fingerprint_of_draws(self) -> dict[str, Any]:
        """Of the settings that enter version ids, those that say how a token is drawn."""
        names = ("preset", "temperature", "top_p", "top_k", "min_p")
        return {name: value for name, value in self.fingerprint().items() if name in names}

    @property
    def vllm(self) -> VllmEngine | None:
        """The settings of vLLM where it draws; None where the ranks draw themselves."""
        return self.engine if isinstance(self.engine, VllmEngine) else None

    @property
    def scored_tokens(self) -> int:
        """Number of tokens that one rank processes at a time where outputs are read and none are drawn."""
        return AUTO_TOKENS if self.batch_tokens == "auto" else self.batch_tokens

    @property
    def sorts_vocabulary(self) -> bool:
        """Whether every draw sorts the probabilities of all tokens."""
        return self.top_p is not None and self.top_k is None

    @model_validator(mode="after")
    def _distinct_draws_are_the_models_own(self) -> SamplingConfig:
        if not self.distinct:
            return self
        if self.vllm:
            raise ValueError(
                "vLLM cannot draw distinct outputs: remove sampling.distinct, or set sampling.engine to transformers"
            )
        changed = ["temperature"] if self.temperature not in (None, DEFAULT_TEMPERATURE) else []
        changed += [name for name in ("preset", "top_p", "top_k", "min_p") if getattr(self, name) is not None]
        if changed:
            raise ValueError(
                "distinct outputs are drawn at temperature 1 from all tokens: remove sampling.distinct, or "
                f"{' and '.join(changed)}"
            )
        return self

    @model_validator(mode="after")
    def _vllm_can_draw_so(self) -> SamplingConfig:
        if self.vllm and self.top_p is not None and self.min_p is not None:
            raise ValueError(
                "vLLM applies min_p before top_p, so that the two together would mean something else: remove one of "
                "them, or set sampling.engine to transformers"
            )
        return self

    @model_validator(mode="after")
    def _mix_can_be_drawn(self) -> SamplingConfig:
        if self.mix is not None and self.prompts is None:
            raise ValueError("sampling.mix shares out sampling.prompts: set sampling.prompts, or remove sampling.mix")
        if self.mix is not None and not any(self.mix.values()):
            raise ValueError("mix leaves every task out: give at least one a weight above 0")
        return self
