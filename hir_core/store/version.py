"""`VersionRef`, the name of a version, and checks of a version's files against its manifest.

Reads folders and files. A file's digest is computed once per process, and again only if the file changes. Raises
StoreError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hir_core.errors import StoreError
from hir_core.store.files import read_json
from hir_core.store.manifest import Part
from hir_core.store.plain_files import open_plain

MANIFEST = "manifest.json"
RELEASED = ".released.json"
"""File in a model's folder that names its deleted files, weights or the state of its optimizer, each with the reason.
The manifest stays as it was."""


@dataclass(frozen=True)
class VersionRef:
    """The name of a version, committed or not yet. Stages pass references to each other, never tables."""

    stage: str
    """One of `manifest.STAGES`."""
    id: str
    """Iteration and hash, as in `0003-3fa1c2d4`."""
    path: Path
    """The folder of the version."""

    @property
    def iteration(self) -> int:
        """The iteration of the outer loop that it belongs to."""
        return int(self.id.partition("-")[0])

    def __str__(self) -> str:
        return f"{self.stage}/{self.id}"


def visible_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted by name, without hidden ones and the manifest.

    Raises:
        StoreError: it contains something else than plain files, which a version may not.
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MANIFEST)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            kind = "a symbolic link" if path.is_symlink() else "a folder" if path.is_dir() else "a pipe or a device"
            raise StoreError(f"{path} is {kind}: a version holds plain files only; remove it")
    return paths


def released(folder: Path) -> dict[str, str]:
    """The deleted files of a version, by name, with the reason; empty for most versions.

    Raises:
        StoreError: `.released.json` is damaged.
    """
    path = folder / RELEASED
    try:
        return {str(name): str(why) for name, why in dict(read_json(path)).items()}
    except FileNotFoundError:
        return {}
    except (TypeError, ValueError):
        raise StoreError(f"{path} is damaged: expected names of files, each with a reason") from None


def is_optimizer_state(name: str) -> bool:
    """Whether a model's file of this name holds the state of its optimizer, and no weights."""
    # Imported here: the package takes long to import, and whoever lists versions needs nothing of it.
    from hir_core.config.model_folder import OPTIMIZER_STATE

    return OPTIMIZER_STATE.fullmatch(name) is not None


_KNOWN_DIGESTS: dict[tuple[int, ...], str] = {}
"""Digests by device, inode, size and times of the file."""


def digests(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file, in hexadecimal; a file is read once per process, unless it changes."""
    keys = [_file_key(path) for path in paths]
    unread = {key: path for key, path in zip(keys, paths, strict=True) if key not in _KNOWN_DIGESTS}
    if len(unread) > 1:
        with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the interpreter lock
            _KNOWN_DIGESTS.update(zip(unread, pool.map(_digest, unread.values()), strict=True))
    else:  # a thread takes longer to start than most tables to read
        _KNOWN_DIGESTS.update((key, _digest(path)) for key, path in unread.items())
    return [_KNOWN_DIGESTS[key] for key in keys]


def _file_key(path: Path) -> tuple[int, ...]:
    # Not by name: after the rename of a commit a large model must not be read a second time.
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _digest(path: Path) -> str:
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(part: Part, path: Path, digest: str) -> list[str]:
    """How a file differs from its entry in a manifest; empty if it does not."""
    size = path.stat().st_size
    if size != part.bytes:
        return [f"{part.name} has {size} bytes, expected {part.bytes}"]
    if digest != part.sha256:
        return [f"{part.name} has sha256 {digest[:12]}…, expected {part.sha256[:12]}…"]
    return []


def remedy(folder: Path) -> str:
    """The end of an error message: what to do about a damaged version."""
    return f"; restore it from a copy, or delete {folder} and run again to remake it"


def problems_of(error: ValidationError) -> str:
    """The problems of a manifest, on one line."""
    problems = [
        (".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, "))
        for problem in error.errors(include_url=False)
    ]
    return "; ".join(f"{field}: {message}" if field else message for field, message in problems)
