"""The sections of a run's configuration: model, prompts, sampling, reward, relabeling, training, launch.

Every section is frozen and refuses unknown keys. A field is marked `Performance` when it changes speed or memory but
not the numbers; such fields stay out of the identity of a version (`law`). Reads nothing; `config` puts the sections
together and reads files.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator


class _Performance:
    """Marks a field that cannot change a result."""


Performance = _Performance()


class Part(BaseModel):
    """One section of the configuration: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def law(self) -> dict[str, Any]:
        """The settings that decide a result, as plain JSON values: what a version's id is made from."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not any(isinstance(mark, _Performance) for mark in field.metadata)
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Part):
        return value.law()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _tagged(default: str) -> Discriminator:
    """Chooses a union's member by its `type`, which may be left out for the usual one."""

    def choose(value: Any) -> str:
        found = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)
        return str(found)

    return Discriminator(choose)


# --- the model -------------------------------------------------------------------------------------------------------


class HubModel(Part):
    """A pretrained model by hub name, or a folder that `transformers` can load."""

    type: Literal["hub"] = "hub"
    source: str
    """`owner/name` on the hub, or a folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    template: str | None = None
    """How instruction and query become one text: a format string with `{instruction}` and `{query}`, or `chat` for the
    tokenizer's own chat template. Left out: `chat` where the tokenizer has one, else both on lines of their own."""


class GgufModel(Part):
    """A pretrained model in a GGUF file, loaded dense; the file may lie inside an installed Python package."""

    type: Literal["gguf"] = "gguf"
    path: Path
    """The file; relative to the package where one is named."""
    package: str | None = None
    """An installed package that holds the file."""
    template: str | None = None
    """As for a hub model."""


class ScratchModel(Part):
    """A small model made from nothing, its tokenizer fitted to the prompts: for laptops, demos and tests."""

    type: Literal["scratch"]
    architecture: Literal["llama", "t5"] = "llama"
    hidden_size: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    intermediate_size: int = Field(512, ge=8)
    vocab_size: int = Field(512, ge=300)
    """At most this many tokens; byte-level, so every text can be written."""
    context: int = Field(256, ge=16)
    """Tokens that a sequence may have."""
    template: str | None = None
    """As for a hub model."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchModel:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared by {self.heads} heads: make it a multiple"
            )
        return self


ModelConfig = Annotated[
    Annotated[HubModel, Tag("hub")] | Annotated[GgufModel, Tag("gguf")] | Annotated[ScratchModel, Tag("scratch")],
    _tagged("hub"),
]


# --- prompts ---------------------------------------------------------------------------------------------------------


class SyntheticPrompts(Part):
    """Prompts from a generator with exact answers."""

    type: Literal["synthetic"]
    task: str
    """The generator's name, for example `object_counting`."""
    size: int = Field(ge=1)
    """Prompts to make, train and test together."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the groups held out for evaluation."""
    seed: int = 0
    dials: dict[str, Any] = Field(default_factory=dict)
    """The generator's own difficulty settings."""


class FilePrompts(Part):
    """Prompts from a JSONL or Parquet file with at least a `query`."""

    type: Literal["file"] = "file"
    path: Path
    task: str | None = None
    """Task name for rows that carry none; left out: the file's name."""
    test_share: float = Field(0.2, ge=0, le=1)
    seed: int = 0


class BigBenchHardPrompts(Part):
    """A task file of BIG-Bench-Hard; evaluation only unless told otherwise."""

    type: Literal["bbh"]
    path: Path
    test_share: float = Field(1.0, ge=0, le=1)
    seed: int = 0


PromptSource = Annotated[
    Annotated[SyntheticPrompts, Tag("synthetic")]
    | Annotated[FilePrompts, Tag("file")]
    | Annotated[BigBenchHardPrompts, Tag("bbh")],
    _tagged("file"),
]


class Instructions(Part):
    """The two instructions of the paper's rule; used to the byte in sampling, training and evaluation."""

    correct: str = "Generate a correct answer to this problem."
    wrong: str = "Generate a wrong answer to this problem."

    @model_validator(mode="after")
    def _differ(self) -> Instructions:
        if self.correct == self.wrong:
            raise ValueError(
                "instructions.correct and instructions.wrong are the same text: hindsight could tell nothing apart"
            )
        return self


# --- steps -----------------------------------------------------------------------------------------------------------


class SamplingConfig(Part):
    """How outputs are drawn from the model."""

    prompts: int | None = Field(None, ge=1)
    """Training prompts sampled in each iteration; left out: all of them."""
    k: int = Field(4, ge=1)
    """Samples per prompt."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(32, ge=1)
    batch_tokens: Annotated[int, Performance] = Field(16384, ge=1)
    """Tokens (prompt and output, padding counted) that one rank works on at a time."""
    zero3_weights: Annotated[Literal["auto", "gather", "stream"], Performance] = "auto"
    """Under ZeRO-3: gather all weights once, stream them layer by layer, or decide by a memory estimate."""
    write_every_s: Annotated[float, Performance] = Field(20.0, ge=0)
    """Finished samples are written at least this often, as soon as their batch is done: what a crash can cost."""


class ExactMatchReward(Part):
    """1 where the completion equals an accepted answer, case, blanks and full stops aside; else 0."""

    type: Literal["exact_match"] = "exact_match"


class OptionChoiceReward(Part):
    """1 where the completion names the right option by letter or text, 0 another one; none recognised: cannot judge."""

    type: Literal["option_choice"]


class PythonReward(Part):
    """A function of yours: `score(completions, prompts) -> list[float | None]`."""

    type: Literal["python"]
    function: str
    """`module:function`, importable from where you run."""

    @field_validator("function")
    @classmethod
    def _names_a_function(cls, function: str) -> str:
        if not re.fullmatch(r"[\w.]+:\w+", function):
            raise ValueError("expected module:function, as in my_rewards:score")
        return function


RewardConfig = Annotated[
    Annotated[ExactMatchReward, Tag("exact_match")]
    | Annotated[OptionChoiceReward, Tag("option_choice")]
    | Annotated[PythonReward, Tag("python")],
    _tagged("exact_match"),
]


class HindsightRelabel(Part):
    """The paper's rule: the correct instruction where the score reaches the threshold, else the wrong one."""

    type: Literal["hindsight"] = "hindsight"
    threshold: float = 1.0


class KeepCorrectRelabel(Part):
    """The filtering baseline: only samples whose score reaches the threshold are kept."""

    type: Literal["keep_correct"]
    threshold: float = 1.0


RelabelConfig = Annotated[
    Annotated[HindsightRelabel, Tag("hindsight")] | Annotated[KeepCorrectRelabel, Tag("keep_correct")],
    _tagged("hindsight"),
]


class TrainingConfig(Part):
    """How a model is trained on triples; the defaults are the paper's Table 7, the learning rate aside."""

    epochs: int = Field(4, ge=1)
    batch_size: int = Field(64, ge=1)
    """Triples per optimizer step, over all ranks."""
    micro_batch_size: Annotated[int, Performance] = Field(16, ge=1)
    """Triples per rank and forward pass; gradient accumulation follows from it."""
    learning_rate: float = Field(5e-5, gt=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.2, ge=0, lt=1)
    contrastive: float = Field(1.0, ge=0)
    """Weight of the contrastive term (the paper's alpha)."""
    entropy: float = Field(0.001, ge=0)
    """Weight of the entropy bonus (the paper's beta)."""
    activation_checkpointing: Annotated[bool, Performance] = False
    logits_chunk: Annotated[int, Performance] = Field(1024, ge=1)
    """Target positions whose logits exist at the same time."""
    logprob_tolerance: Annotated[float, Performance] = Field(0.1, gt=0)
    """Largest mean gap, in nats per token, between the trainer's and the sampler's log-probabilities of one batch."""


class WarmStartConfig(TrainingConfig):
    """Supervised training of the seed model on reference answers, before the first iteration."""

    demonstrations: int = Field(ge=1)
    """Training prompts whose reference is shown."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    contrastive: float = Field(0.0, ge=0, le=0)
    """A demonstration has one instruction only, so there is nothing to contrast."""
    entropy: float = Field(0.0, ge=0)


class EvaluationConfig(Part):
    """What every model version is tested on, greedily: the held-out split, and any source named here."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Left out: as in sampling."""
    also: tuple[PromptSource, ...] = ()
    """Sources that are only evaluated, whatever their `test_share`."""


class LaunchConfig(Part):
    """Where the ranks run; none of it changes a result."""

    launcher: Literal["deepspeed", "torchrun"] = "deepspeed"
    processes: int | Literal["auto"] = "auto"
    """Ranks on this machine; `auto`: one per GPU, or one where there is none. With a hostfile its slots decide."""
    hostfile: Path | None = None
    """Lines of `host slots=N`, for several machines (`deepspeed` launcher)."""
    port: int | None = Field(None, ge=1024, le=65535)
    """Port of the first rank; left out: a free one."""
    timeout_s: float | None = Field(None, gt=0)
    """Ends a launch that takes longer."""

    @model_validator(mode="after")
    def _hostfile_needs_deepspeed(self) -> LaunchConfig:
        if self.hostfile is not None and self.launcher != "deepspeed":
            raise ValueError("launch.hostfile is read by the deepspeed launcher only: set launch.launcher to deepspeed")
        return self

    @field_validator("processes", mode="before")
    @classmethod
    def _some_processes(cls, processes: Any) -> Any:
        # Before the union is tried: it would complain once for each of its members.
        if processes != "auto" and not (isinstance(processes, int) and processes >= 1):
            raise ValueError("expected auto or a whole number of at least 1")
        return processes
