"""What a run is told to do: `RunConfig`, read from YAML with `key=value` changes on top.

Reads YAML and DeepSpeed JSON files, and says everything that is wrong with them at once. The fields are in `sections`;
prompts, rewards and relabelers are left to their own packages, and the model to the launch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from hir_core.errors import ConfigError, did_you_mean
from hir_core.explaining import explain, roots
from hir_core.sections import (
    WITH_ATTRIBUTES,
    AttributesRelabel,
    EvaluationConfig,
    ExactMatchReward,
    HindsightRelabel,
    Instructions,
    LaunchConfig,
    ModelConfig,
    Part,
    Performance,
    PromptSource,
    RelabelConfig,
    RetentionConfig,
    RewardConfig,
    SamplingConfig,
    SelectConfig,
    TrainingConfig,
    WarmStartConfig,
    folder_name,
    has_reward_model,
)

P = TypeVar("P", bound=Part)
SHIPPED_DS_CONFIGS = Path(__file__).resolve().parent.parent / "ds_configs"


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
    select: SelectConfig = SelectConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    deepspeed: Annotated[Path, Performance] = Field(Path("ds_configs/zero2.json"), validate_default=True)
    """A DeepSpeed JSON file (ZeRO stage, offload, buckets, dtype): a path, or the name of one that comes with hir."""
    launch: Annotated[LaunchConfig, Performance] = LaunchConfig()
    line: Annotated[str, Performance] = "main"
    """Name of the line of versions that this config makes; one of the same name forgets those it does not use."""
    retention: Annotated[RetentionConfig | None, Performance] = None
    """What `hir gc` leaves of the run; left out: everything."""

    _run_names_a_folder = field_validator("run")(folder_name)

    @field_validator("relabel")
    @classmethod
    def _attributes_are_judged(cls, relabel: Part, others: ValidationInfo) -> Part:
        reward = others.data.get("reward")  # absent where it is wrong itself
        if isinstance(relabel, AttributesRelabel) and reward is not None and not isinstance(reward, WITH_ATTRIBUTES):
            raise ValueError(
                f"attributes come from a reward that judges several: set reward.type to combined, constraints or "
                f"python, found {reward.type}"
            )
        return relabel

    @model_validator(mode="after")
    def _threshold_is_said(self) -> RunConfig:
        if has_reward_model(self.reward) and "threshold" not in self.relabel.model_fields_set:
            raise ValueError(
                "relabel.threshold: required with a reward model, whose scores are seldom exactly 1: say from which "
                "score on an output counts as correct"
            )
        return self

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

    @property
    def evaluation_guidance(self) -> float:
        """Guidance towards the correct instruction in evaluation."""
        own = self.evaluation.guidance
        return self.sampling.guidance if own is None else own

    @property
    def is_bf16(self) -> bool:
        """Whether models are held in bf16, which decides what they learn, write and score."""
        return bool(self.deepspeed_settings().get("bf16", {}).get("enabled"))

    def deepspeed_settings(self) -> dict[str, Any]:
        """The DeepSpeed file's content, checked: see `read_deepspeed`."""
        return read_deepspeed(self.deepspeed)


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
        hint = did_you_mean(str(path), shipped)
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
    settings = read_settings(path, changes)
    if "compare" in settings and "run" not in settings:
        raise ConfigError(f"{path} is a comparison and no single run: start it with `hir compare`")
    return parse_config(settings, str(path))


def find_config(name: str, recipes: Path, here: Path = Path(), where: str = "") -> Path:
    """The file that a name means: a path from `here`, or a recipe among the shipped ones, without its ending.

    Args:
        where: what names it, to begin a message with.

    Raises:
        ConfigError: there is none; hints at the nearest and lists the recipes.
    """
    for path in (here / name, recipes / f"{name.removesuffix('.yaml')}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(str(file.relative_to(recipes).with_suffix("")) for file in recipes.rglob("*.yaml"))
    beside = Path(name).parent
    there = sorted(str(beside / file.name) for file in (here / beside).glob("*.yaml"))
    hint = did_you_mean(name, [*there, *shipped])
    expected = f"{' E' if hint else ': e'}xpected a YAML file or a shipped recipe ({', '.join(shipped)})"
    raise ConfigError(f"{where}no such config: {name}{hint}{expected}")


def read_settings(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file's settings with `key.sub=value` changes applied, not checked yet.

    Raises:
        ConfigError: the file cannot be read, or a change has no place in it.
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
    return raw


def parse_config(raw: dict[str, Any], where: str = "config") -> RunConfig:
    """Checks plain settings and returns them as a `RunConfig`.

    Raises:
        ConfigError: listing every problem at once.
    """
    config = checked(RunConfig, raw, where)
    config.deepspeed_settings()
    return config


def checked(kind: type[P], raw: dict[str, Any], where: str) -> P:
    """Plain settings as a part of the configuration.

    Raises:
        ConfigError: listing every problem at once.
    """
    if halves := list(_half_characters(raw)):
        raise ConfigError(f"{where}: {', '.join(halves)}: half a character (a lone surrogate): write the whole one")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = [explain(problem, kind) for problem in roots(error.errors())]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)])) from None


def _half_characters(value: Any, place: str = "") -> Iterator[str]:
    """Where a text stands that no file can hold: YAML and JSON can escape half of a surrogate pair."""
    if isinstance(value, str):
        if value.encode(errors="replace").decode() != value:
            yield place
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _half_characters(below, f"{place}.{name}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for number, below in enumerate(value):
            yield from _half_characters(below, f"{place}.{number}")


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
