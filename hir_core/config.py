"""What a run is told to do: `RunConfig` and its parts, read from YAML with `key=value` changes on top.

Every part is frozen and refuses unknown keys. A field is marked `Performance` when it changes speed or memory but not
the numbers; such fields stay out of the identity of a version (`law`). Reads YAML and DeepSpeed JSON files; leaves
prompts, rewards and relabelers to their own packages and the model to the launch.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

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


class RunConfig(Part):
    """Everything that one run does."""

    run: str
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
    """A DeepSpeed JSON file (ZeRO stage, offload, buckets, dtype): a path, or the name of one that comes with hir."""
    launch: Annotated[LaunchConfig, Performance] = LaunchConfig()

    @field_validator("run")
    @classmethod
    def _run_names_a_folder(cls, run: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", run, re.ASCII):
            raise ValueError("expected a folder's name of up to 100 letters, digits, `.`, `_` and `-`")
        return run

    @field_validator("deepspeed")
    @classmethod
    def _find_deepspeed(cls, path: Path) -> Path:
        shipped = SHIPPED_DS_CONFIGS / path.name
        is_shipped = path.parent in (Path("ds_configs"), Path()) and shipped.is_file()
        return shipped if is_shipped and not path.exists() else path

    @property
    def run_dir(self) -> Path:
        """The folder that holds every version of this run."""
        return self.runs_dir / self.run

    @property
    def evaluation_tokens(self) -> int:
        """New tokens that an evaluated answer may have."""
        return self.evaluation.max_new_tokens or self.sampling.max_new_tokens

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
    settings = _read_json_object(path)
    for key, owner in OWNED_BY_CONFIG.items():
        if key in settings:
            raise ConfigError(f"deepspeed: {path} sets `{key}`, which {owner} decides: remove it from the file")
    if '"auto"' in json.dumps(settings):
        raise ConfigError(f'deepspeed: {path} holds "auto", which nothing would fill in: write the value')
    for key in ("zero_optimization", "bf16", "fp16"):
        if not isinstance(settings.get(key, {}), dict):
            raise ConfigError(f"deepspeed: {path}: `{key}` must be an object, found {settings[key]!r}")
    if settings.get("zero_optimization", {}).get("stage", 0) not in (0, 1, 2, 3):
        raise ConfigError(f"deepspeed: {path}: `zero_optimization.stage` must be 0, 1, 2 or 3")
    if settings.get("fp16", {}).get("enabled"):
        raise ConfigError(f"deepspeed: {path} enables fp16, whose loss scaling is not supported: use bf16")
    return settings


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text())
    except FileNotFoundError:
        shipped = shipped_ds_configs()
        hint = _did_you_mean(str(path), shipped)
        raise ConfigError(f"deepspeed: no such file {path}{hint}; shipped: {', '.join(shipped)}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"deepspeed: {path} is not JSON: line {error.lineno}: {error.msg}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"deepspeed: cannot read {path}: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"deepspeed: {path} must hold a JSON object, found {type(settings).__name__}")
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
        raw = _read_yaml(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_yaml_problem(error)}") from None
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
        problems = [_explain(problem) for problem in _roots(error.errors())]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)])) from None
    config.deepspeed_settings()
    return config


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"`{key.value}` twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return where + (getattr(error, "problem", None) or str(error))


def _apply(raw: dict[str, Any], change: str) -> None:
    """Sets one `key.sub=value`; a section that is not there yet is made, an item of a list must be there."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected key=value, found `{change}`; for example iterations=12 or training.epochs=2")
    try:
        value = _read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"`{change}`: the value is not YAML: {_yaml_problem(error)}") from None
    node: Any = raw
    *parents, last = key.split(".")
    for name in parents:
        if isinstance(node, dict) and node.get(name) is None:
            node[name] = {}
        node = node[_place(node, name, change)]
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"`{change}`: `{name}` is {node!r}, so nothing can be set below it")
    node[_place(node, last, change)] = value


def _place(node: dict[str, Any] | list[Any], name: str, change: str) -> Any:
    """The key or, in a list, the position that a name means."""
    if isinstance(node, dict):
        return name
    if not name.isdecimal() or int(name) >= len(node):
        raise ConfigError(f"`{change}`: the list has {len(node)} item(s), counted from 0, so there is no `{name}`")
    return int(name)


# --- explaining ------------------------------------------------------------------------------------------------------

EXPECTED = {
    "missing": "required, but missing",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "dict_type": "expected settings as `key: value`",
    "model_type": "expected settings as `key: value`",
    "model_attributes_type": "expected settings as `key: value`",
    "greater_than_equal": "expected at least {ge}",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected at most {le}",
    "less_than": "expected less than {lt}",
    "literal_error": "expected {expected}",
    "too_short": "expected at least {min_length}",
}
"""What pydantic's errors are in words of a config; others keep its own."""


def _roots(problems: Sequence[Any]) -> list[Any]:
    """The problems without those that only follow from one below: a list whose items are all wrong counts as empty."""
    places = [problem["loc"] for problem in problems]

    def follows(problem: Any) -> bool:
        return any(
            len(place) > len(problem["loc"]) and place[: len(problem["loc"])] == problem["loc"] for place in places
        )

    return [problem for problem in problems if problem["type"] != "too_short" or not follows(problem)]


def _explain(problem: Any) -> str:
    *above, last = problem["loc"] or ("config",)
    place = ".".join(str(step) for step in (*(step for step in above if step not in _members()), last))
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key{_known_keys(above, str(last))}"
    if problem["type"] == "union_tag_invalid":
        kinds = context["expected_tags"].replace("'", "").split(", ")
        hint = _did_you_mean(context["tag"], kinds)
        return f"{place}.type: expected one of {', '.join(kinds)} (found {context['tag']!r}){hint}"
    if last in _members():  # a whole member of a union is wrong: its section's name says more than its type
        place = place.rpartition(".")[0] or place
    text = EXPECTED.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"{place}: {text.format(**context)}{_found(problem)}"


def _found(problem: Any) -> str:
    given = problem["input"]
    if problem["type"] == "missing" or (isinstance(given, dict) and given):
        return ""  # a whole section would bury the message
    return f" (found {given!r})"


def _known_keys(above: Sequence[Any], name: str) -> str:
    """What may have been meant by an unknown key: a near one of its section, else the same one of another section."""
    section = _section(above)
    if hint := _did_you_mean(name, list(section.model_fields)):
        return hint
    homes = [f"{home}.{name}" for home in RunConfig.model_fields if name in _section([home]).model_fields]
    if homes and section is RunConfig:
        return f"; did you mean {' or '.join(f'`{home}`' for home in homes)}?"
    return f"; expected one of {', '.join(section.model_fields)}"


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _section(place: Sequence[Any]) -> type[Part]:
    """The part of the configuration at a place, as pydantic names it."""
    section: type[Part] = RunConfig
    for step in place:
        if step in _members():
            section = _members()[step]
        elif step in section.model_fields:
            annotation = section.model_fields[step].annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            section = next((kind for kind in kinds if issubclass(kind, Part)), Part)
    return section


@cache
def _members() -> dict[str, type[Part]]:
    """The members of all unions by their `type`."""
    ours = [part for part in Part.__subclasses__() if part.__module__ == __name__]  # `jobspec` has parts as well
    members = [part for part in ours if "type" in part.model_fields]
    return {str(tag): part for part in members for tag in get_args(part.model_fields["type"].annotation)}
