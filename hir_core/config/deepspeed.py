"""DeepSpeed JSON files: `DeepSpeedFile`, the field `deepspeed` of a config, read once when the config is built.

Reads the file that `deepspeed:` names, or one of the files in `ds_configs/`. Raises ConfigError.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator
from pydantic_core import PydanticCustomError

from hir_core.errors import ConfigError, did_you_mean
from hir_core.json_values import parse_json

SHIPPED_DS_CONFIGS = Path(__file__).resolve().parents[2] / "ds_configs"
FILE_PROBLEM = "deepspeed_file"
"""pydantic's type of the validation error for a missing or wrong file."""

OWNED_BY_CONFIG = {
    "train_batch_size": "training.batch_size",
    "train_micro_batch_size_per_gpu": "training.micro_batch_tokens",
    "gradient_accumulation_steps": "training.batch_size and training.micro_batch_tokens",
    "optimizer": "training.learning_rate and training.weight_decay",
    "scheduler": "training.schedule",
    "gradient_clipping": "training.max_grad_norm",
}
"""DeepSpeed's keys that a file must not set, with the keys of the config that decide them."""


@dataclass(frozen=True)
class DeepSpeedFile:
    """A DeepSpeed file with its content at the time when the config was built.

    The content decides version ids (bf16 or not), so a config keeps it: an edit of the file during a run changes
    nothing.
    """

    path: Path
    content: str
    """The checked settings as JSON text, which no caller can change."""

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as a new dict for each caller."""
        return dict(json.loads(self.content))


def _read_once(value: Any) -> DeepSpeedFile:
    """The validated field: the file of a path, or of a name such as `zero2` or `ds_configs/zero2.json` that comes with
    hir."""
    if isinstance(value, DeepSpeedFile):
        return value
    if not isinstance(value, (str, Path)):
        raise PydanticCustomError("path_type", "expected a path")
    path = Path(value)
    shipped = SHIPPED_DS_CONFIGS / (path.name if path.suffix else f"{path.name}.json")
    with suppress(OSError):  # a name that is too long for the file system
        if path.parent in (Path("ds_configs"), Path()) and shipped.is_file() and not path.exists():
            path = shipped
    try:
        return DeepSpeedFile(path, json.dumps(read_deepspeed(path)))
    except ConfigError as error:  # reported together with the other problems of the config
        problem = str(error).removeprefix("deepspeed: ")
        raise PydanticCustomError(FILE_PROBLEM, "{problem}", {"problem": problem}) from None


DeepSpeedSetting = Annotated[
    DeepSpeedFile,
    PlainValidator(_read_once, json_schema_input_type=Path),
    PlainSerializer(lambda file: file.path, return_type=Path),
]
"""The type of the field: given and dumped as a path, held as a `DeepSpeedFile`."""


def read_deepspeed(path: Path) -> dict[str, Any]:
    """The settings in a DeepSpeed file, which may set the memory and communication strategy only.

    Raises:
        ConfigError: the file is missing, not a JSON object, sets a key of `OWNED_BY_CONFIG` to another value than
            `"auto"`, or has `"auto"` elsewhere.
    """
    settings = _read_json_object(path)
    for key, owner in OWNED_BY_CONFIG.items():
        if key in settings and not _is_auto(settings[key]):
            raise ConfigError(f"deepspeed: {path} sets `{key}`, which {owner} decides: remove it from the file")
    settings = {key: value for key, value in settings.items() if key not in OWNED_BY_CONFIG}
    if '"auto"' in json.dumps(settings):
        keys = ", ".join(f"`{key}`" for key, value in settings.items() if '"auto"' in json.dumps(value))
        raise ConfigError(f'deepspeed: {path} contains "auto" in {keys}, which hir does not replace: write the value')
    for key in ("zero_optimization", "bf16", "fp16"):
        if not isinstance(settings.get(key, {}), dict):
            raise ConfigError(f"deepspeed: {path}: `{key}` must be an object, found {settings[key]!r}")
    if settings.get("zero_optimization", {}).get("stage", 0) not in (0, 1, 2, 3):
        raise ConfigError(f"deepspeed: {path}: `zero_optimization.stage` must be 0, 1, 2 or 3")
    if settings.get("fp16", {}).get("enabled"):
        raise ConfigError(f"deepspeed: {path} enables fp16, whose loss scaling is not supported: use bf16")
    return settings


def _is_auto(value: Any) -> bool:
    """Whether a value is left to the program that reads the file, as are those of an optimizer that is "auto"."""
    if isinstance(value, dict):
        inner = [entry for key, entry in value.items() if key != "type"]
        return bool(inner) and all(map(_is_auto, inner))
    return bool(value == "auto")


def _read_json_object(path: Path) -> dict[str, Any]:
    try:
        settings = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        shipped = sorted(f"ds_configs/{file.name}" for file in SHIPPED_DS_CONFIGS.glob("*.json"))
        hint = did_you_mean(str(path), shipped)
        raise ConfigError(f"deepspeed: no such file {path}{hint}; shipped: {', '.join(shipped)}") from None
    except IsADirectoryError:
        raise ConfigError(f"deepspeed: {path} is a folder: name a file in it") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"deepspeed: {path} is not JSON: line {error.lineno}: {error.msg}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"deepspeed: cannot read {path}: {error}") from None
    if not isinstance(settings, dict):
        raise ConfigError(f"deepspeed: {path} must hold a JSON object, found {type(settings).__name__}")
    return settings
