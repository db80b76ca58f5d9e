"""A model or a table on the Hugging Face hub, for `hir push`: the folder that goes up with its card, and the upload.

Reads the store. Writes a folder, in which nothing names this machine, and with `upload` a repository of the hub. The
card is made by `card`, and the other files by `model_export` and `export`, as for `hir export`.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hir_core.errors import ConfigError, VersionNotFound
from hir_core.inspect.card import HUB_NAME, dataset_card, model_card, public
from hir_core.inspect.export import Exported, export
from hir_core.inspect.model_export import ExportedModel, export_model
from hir_core.inspect.model_usage import model_usage
from hir_core.store.files import write_text
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Kind = Literal["model", "dataset"]
CARD = "README.md"
_OF_VOCABULARY = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Files of tokens, among which `/root` may be one."""
_ORIGINS = ("_name_or_path", "name_or_path")
"""Where transformers notes from which folder it loaded a model or a tokenizer."""


class Prepared(NamedTuple):
    """A folder that is ready to be uploaded."""

    kind: Kind
    files: dict[str, int]
    """Size of each file in bytes, by its path in the folder."""
    card: str


def prepare(store: Store, ref: VersionRef, out: Path, *, is_plain: bool = False) -> Prepared:
    """Writes the folder of a version for the hub, with its card.

    Args:
        out: the folder to make.
        is_plain: whether a model keeps its own chat template, without the instruction of its run.

    Raises:
        ConfigError: `out` cannot be written, no chat template asks as the run did, or a file would name this machine.
        StoreError: the version cannot be read.
        JobFailed: the launch that merges an adapter failed.
    """
    if ref.stage == "models":
        write_model_card(store, ref, out, export_model(store, ref, out, with_instruction=not is_plain))
    else:
        write_dataset_card(store, ref, out, export(store, ref, "hf", out))
    _check_machine_is_unnamed(store, out)
    files = sorted(path for path in out.rglob("*") if path.is_file())
    sizes = {path.relative_to(out).as_posix(): path.stat().st_size for path in files}
    return Prepared("model" if ref.stage == "models" else "dataset", sizes, (out / CARD).read_text(encoding="utf-8"))


def write_model_card(store: Store, ref: VersionRef, out: Path, exported: ExportedModel) -> None:
    """Writes the card of an exported model into its folder, whose configs then name no folder of this machine."""
    try:
        instruction: str | None = model_usage(store, ref).instruction
    except VersionNotFound:  # it was not evaluated, so its run never asked it
        instruction = None
    for path in (out / "config.json", out / "tokenizer_config.json"):
        if path.exists():
            facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            kept = {key: value for key, value in facts.items() if key not in _ORIGINS or public(value) == value}
            if kept != facts:
                write_text(path, json.dumps(kept, ensure_ascii=False, indent=2) + "\n")
    is_in_template = exported.instruction is not None
    write_text(out / CARD, model_card(store, ref, instruction=instruction, is_in_template=is_in_template))


def write_dataset_card(store: Store, ref: VersionRef, out: Path, exported: Exported) -> None:
    """Writes the card of a table that was exported as a folder for `datasets`."""
    write_text(out / CARD, dataset_card(store, ref, exported.rows, exported.left_out, exported.reason))


def _check_machine_is_unnamed(store: Store, folder: Path) -> None:
    """Raises ConfigError where a config or the card holds the path of the run, or of this user's home."""
    places = [str(place) for place in (store.run_dir.resolve(), Path.home()) if len(place.parts) > 1]
    pattern = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, places))})(?![\w-])")
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.md")]):
        text = "" if path.name in _OF_VOCABULARY else path.read_text(encoding="utf-8", errors="replace")
        if found := pattern.search(text):
            raise ConfigError(
                f"{path.relative_to(folder)} would hold the path {found[0]} of this machine, and nothing was uploaded: "
                "export the version, mend that file, and upload the folder with `hf upload`"
            )


def check_name(repository: str) -> None:
    """Raises ConfigError for what cannot name a repository of the hub."""
    if not HUB_NAME.fullmatch(repository):
        raise ConfigError(f"`{repository}` names no repository of the hub: expected USER/NAME")


def upload(folder: Path, repository: str, kind: Kind, *, is_public: bool, message: str) -> str:
    """Uploads a folder as one commit, makes the repository where there is none, and returns the commit's address.

    Args:
        is_public: whether everybody may read it. Otherwise a new repository is private, and a public one is refused.
        message: of the commit.

    Raises:
        ConfigError: there is no token, the hub cannot be reached, or it refuses; says which.
    """
    if not os.isatty(2):
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read when it is imported
    from huggingface_hub import HfApi, errors, get_token  # slow to import

    network_error = errors.HTTPError  # type: ignore[attr-defined]  # that of httpx or httpx2, by the release

    if get_token() is None:
        raise ConfigError(
            "the hub asks for a token: `hf auth login` keeps one, or set HF_TOKEN; its role must be write"
        )
    api = HfApi()
    try:
        api.create_repo(repository, repo_type=kind, private=not is_public, exist_ok=True)
        if not is_public and not api.repo_info(repository, repo_type=kind).private:
            raise ConfigError(
                f"{repository} is public already, and what is uploaded could be read by everybody: give --public, "
                "or another name"
            )
        return str(
            api.upload_folder(repo_id=repository, repo_type=kind, folder_path=folder, commit_message=message).commit_url
        )
    except errors.HfHubHTTPError as error:
        raise ConfigError(f"the hub refuses {repository}: {_reason(error)}") from None
    except (network_error, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"the hub at {api.endpoint} cannot be reached: {reason}; the same command tries again, and --dry-run works "
            "without a network"
        ) from None


def _reason(error: Any) -> str:
    """What the hub's answer means."""
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return "it does not know the token; `hf auth login` keeps another one"
    if status == 403:
        return "the token may not write there: its role must be write, and the account a member of the organization"
    return f"{(error.server_message or str(error)).strip().splitlines()[0]} (HTTP {status})"
