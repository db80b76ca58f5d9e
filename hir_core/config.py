"""What a run is told to do: `RunConfig` and its parts, read from YAML with `key=value` changes on top.

Every part is frozen and refuses unknown keys. A field is marked `Performance` when it changes speed or memory but not
the numbers; such fields stay out of the identity of a version (`law`). Reads YAML and DeepSpeed JSON files; leaves
prompts, rewards and relabelers to their own packages and the model to the launch.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from hir_core.errors import ConfigError

SHIPPED_DS_CONFIGS = Path(__file__).resolve().parent.parent / "ds_configs"


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

    type: Literal["file"]
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


class ExactMatchReward(Part):
    """1 where the completion equals an accepted answer, case, blanks and full stops aside; else 0."""

    type: Literal["exact_match"] = "exact_match"


class OptionChoiceReward(Part):
    """1 where the completion names the right option by letter or text, 0 another one; none recognised: cannot judge."""

    type: Literal["option_choice"]


class PythonReward(Part):
    """A function of yours: `score(completions, prompts) -> list[float | None]`."""

    type: Literal["python"]
    function: str = Field(pattern=r"^[\w.]+:\w+$")
    """`module:function`, importable from where you run."""


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
        if isinstance(self.processes, int) and self.processes < 1:
            raise ValueError(f"launch.processes is {self.processes}: expected auto or at least 1")
        return self


class RunConfig(Part):
    """Everything that one run does."""

    run: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the run: its folder under `runs_dir`."""
    runs_dir: Annotated[Path, Performance] = Path("runs")
    iterations: Annotated[int, Performance] = Field(ge=0)
    """Rounds of sample, score, relabel and train."""
    seed: int = 0
    model: ModelConfig
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    instructions: Instructions = Instructions()
    warm_start: WarmStartConfig | None = None
    sampling: SamplingConfig = SamplingConfig()
    reward: RewardConfig = ExactMatchReward()
    relabel: RelabelConfig = HindsightRelabel()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    deepspeed: Annotated[Path, Performance] = Path("ds_configs/zero2.json")
    """A DeepSpeed JSON file: ZeRO stage, offload, buckets, dtype."""
    launch: Annotated[LaunchConfig, Performance] = LaunchConfig()

    @field_validator("deepspeed")
    @classmethod
    def _find_deepspeed(cls, path: Path) -> Path:
        shipped = SHIPPED_DS_CONFIGS / path.name
        return path if path.exists() or not shipped.exists() else shipped

    @property
    def run_dir(self) -> Path:
        """The folder that holds every version of this run."""
        return self.runs_dir / self.run

    def deepspeed_settings(self) -> dict[str, Any]:
        """The DeepSpeed file's content, checked: see `read_deepspeed`."""
        return read_deepspeed(self.deepspeed)


# --- reading ---------------------------------------------------------------------------------------------------------

OWNED_BY_CONFIG = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_size",
    "gradient_accumulation_steps": "training.batch_size and training.micro_batch_size",
    "optimizer": "training.learning_rate and training.weight_decay",
    "scheduler": "training.schedule",
    "gradient_clipping": "training.max_grad_norm",
}


def read_deepspeed(path: Path) -> dict[str, Any]:
    """Returns a DeepSpeed file's settings: memory and communication strategy only.

    Raises:
        ConfigError: the file is missing, not a JSON object, holds `"auto"`, or sets what the run's config owns.
    """
    try:
        settings = json.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"deepspeed: no such file {path}; shipped: {', '.join(shipped_ds_configs())}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"deepspeed: {path} is not JSON: line {error.lineno}: {error.msg}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"deepspeed: {path} must hold a JSON object, found {type(settings).__name__}")
    for key, owner in OWNED_BY_CONFIG.items():
        if key in settings:
            raise ConfigError(f"deepspeed: {path} sets `{key}`, which {owner} decides: remove it from the file")
    if '"auto"' in json.dumps(settings):
        raise ConfigError(f'deepspeed: {path} holds "auto", which nothing would fill in: write the value')
    if settings.get("fp16", {}).get("enabled"):
        raise ConfigError(f"deepspeed: {path} enables fp16, whose loss scaling is not supported: use bf16")
    return settings


def shipped_ds_configs() -> list[str]:
    """Names of the DeepSpeed files that come with hir."""
    return sorted(f"ds_configs/{path.name}" for path in SHIPPED_DS_CONFIGS.glob("*.json"))


def load_config(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Reads a run's YAML file, applies `key.sub=value` changes (values in YAML), and checks all of it.

    Raises:
        ConfigError: listing every problem at once, with the near name for an unknown key.
    """
    try:
        raw = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no such config file: {path}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold settings as `key: value`, found {type(raw).__name__}")
    for change in changes:
        _apply(raw, change)
    return parse_config(raw, str(path))


def parse_config(raw: dict[str, Any], where: str = "config") -> RunConfig:
    """Checks plain settings and returns them as a `RunConfig`.

    Raises:
        ConfigError: listing every problem at once.
    """
    try:
        config = RunConfig.model_validate(raw)
    except ValidationError as error:
        problems = [_explain(problem) for problem in error.errors()]
        raise ConfigError("\n".join([f"{where}: {len(problems)} problem(s)", *(f"  {p}" for p in problems)])) from None
    config.deepspeed_settings()
    return config


def _apply(raw: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected key=value, found `{change}`; for example iterations=12 or training.epochs=2")
    node: Any = raw
    *parents, last = key.split(".")
    for name in parents:
        node = node[int(name)] if isinstance(node, list) and name.isdigit() else node.setdefault(name, {})
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"`{key}`: `{name}` holds a plain value, so nothing can be set below it")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"`{change}`: the value is not YAML: {error}") from None
    if isinstance(node, list):
        node[int(last)] = value
    else:
        node[last] = value


def _explain(problem: Any) -> str:
    place = ".".join(str(step) for step in problem["loc"] if step not in _TAGS)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(problem["loc"][-1]), _field_names(), n=1)
        return f"{place}: unknown key" + (f"; did you mean `{near[0]}`?" if near else "")
    found = "" if problem["type"] == "missing" else f" (found {problem['input']!r})"
    return f"{place or 'config'}: {problem['msg'].removeprefix('Value error, ')}{found}"


_TAGS = {
    "hub",
    "gguf",
    "scratch",
    "synthetic",
    "file",
    "bbh",
    "exact_match",
    "option_choice",
    "python",
    "hindsight",
    "keep_correct",
}


def _field_names() -> list[str]:
    parts: list[type[Part]] = [Part]
    for part in parts:
        parts.extend(child for child in part.__subclasses__() if child not in parts)
    return sorted({name for part in parts for name in part.model_fields})
