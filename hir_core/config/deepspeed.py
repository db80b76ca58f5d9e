"""DeepSpeed JSON files: reading one, and refusing what the run's own config sets.

Reads the file that `deepspeed:` names, or one that ships in `ds_configs/`. Raises ConfigError.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hir_core.errors import ConfigError, did_you_mean

SHIPPED_DS_CONFIGS = Path(__file__).resolve().parents[2] / "ds_configs"


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
