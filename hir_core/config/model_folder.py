"""What a model's folder may hold, checked before `transformers` opens it: on the driver, and again on every rank.

`transformers` opens whatever the index of the weights names: files outside the folder, and as a pickle what is not
called `.safetensors`. Reads `config.json` and that index, and no weights. Raises ConfigError.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hir_core.errors import ConfigError
from hir_core.json_values import parse_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""Names of an adapter's files, as `peft` writes them."""
JSON_BYTES = 64 * 1024**2
"""Largest `config.json` or index that is read; the index of a model with 100,000 tensors has about 10 MB."""
MOST_LABELS = 10**6
"""Labels of a classifier; `transformers` makes a name for each."""
OPTIMIZER_STATE = re.compile(r"optimizer-[0-9]{5}-of-[0-9]{5}\.safetensors")
"""Name of a file that holds the state of the optimizer which trained the model: no part of the model itself."""
_PLAIN_NAME = re.compile(r"[^/\\\x00]+\.safetensors")
_SHARD_OF_A_RANK = re.compile(r"shard-[0-9]{5}-model-[0-9]{5}-of-[0-9]{5}\.safetensors")
_SHOWN = 100
"""Characters of a name that a message repeats."""


def check_folder(folder: Path, setting: str) -> None:
    """Checks that loading a model from a folder reads files of that folder only, and its weights from safetensors.

    Args:
        setting: the key that names the folder, for messages.

    Raises:
        ConfigError: an entry of the folder leads out of it or is no file; it holds an adapter, or shards of ranks; or
            its weights are not, or not all, in safetensors files of the folder.
    """
    for path in sorted(folder.iterdir()):
        if problem := _problem(path, folder):
            raise ConfigError(f"{setting}: {folder} cannot be loaded: {_shown(path.name)} {problem}")
    config = read_object(folder / "config.json", setting) if (folder / "config.json").exists() else {}
    if isinstance(labels := config.get("num_labels"), int) and labels > MOST_LABELS:
        raise ConfigError(f"{setting}: the config.json of {folder} has {labels:,} labels, more than {MOST_LABELS:,}")
    name = config.get("transformers_weights", WEIGHTS if (folder / WEIGHTS).exists() else INDEX)
    if isinstance(name, str) and name.endswith(".safetensors.index.json") and _PLAIN_NAME.fullmatch(name[:-11]):
        if (folder / name).exists():
            _check_index(folder / name, setting)
    elif not _is_weights(name, folder):
        raise ConfigError(f"{setting}: the config.json of {folder} {_not_weights(name)}")


def read_object(path: Path, setting: str) -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        ConfigError: the file cannot be read, is larger than `JSON_BYTES`, or holds something else.
    """
    try:
        if (size := path.stat().st_size) > JSON_BYTES:
            raise ValueError(f"it has {size:,} bytes, more than the {JSON_BYTES:,} that are read")
        value = parse_json(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"expected a JSON object, found {type(value).__name__}")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{setting}: cannot read {path}: {error}") from None
    return value


def _problem(path: Path, folder: Path) -> str:
    """Why an entry of a model's folder is refused; empty where it is not."""
    if path.is_symlink() and not _stays(path, folder):
        return "is a link that leads out of the folder: put the file itself there"
    if not path.is_file() and not path.is_dir():
        return "is neither a file nor a folder: remove it"
    if path.name == ADAPTER_CONFIG:
        return (
            "makes it an adapter, which is no whole model: merge it into its model (`hir export` does so for a run's)"
        )
    if _SHARD_OF_A_RANK.fullmatch(path.name):
        return "is a rank's share of the weights: save the whole model with save_pretrained"
    return ""


def _stays(link: Path, folder: Path) -> bool:
    """Whether a link leads to a file of the folder, or to a blob of the hub's cache where the folder is a snapshot."""
    home = folder.resolve()
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):  # it leads nowhere, or to itself
        return False
    is_snapshot = home.parent.name == "snapshots"
    return target.is_relative_to(home) or (is_snapshot and target.is_relative_to(home.parent.parent / "blobs"))


def _check_index(index: Path, setting: str) -> None:
    files = read_object(index, setting).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise ConfigError(f"{setting}: {index} has no `weight_map` that says which file holds which weight")
    for name in {str(name): name for name in files.values()}.values():
        if not _is_weights(name, index.parent):
            raise ConfigError(f"{setting}: {index} {_not_weights(name)}")


def _is_weights(name: object, folder: Path) -> bool:
    return isinstance(name, str) and _PLAIN_NAME.fullmatch(name) is not None and (folder / name).is_file()


def _not_weights(name: object) -> str:
    return (
        f"names {_shown(name)} as a file of weights: expected a .safetensors file in the same folder; weights in other "
        "files are never opened, since pickles can run code: save the model with save_pretrained where you trust it"
    )


def _shown(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
