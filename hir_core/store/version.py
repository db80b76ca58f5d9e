"""A version by name, and whether the files in a folder are those that a manifest speaks of.

Reads folders and files; a file is digested once per process, and again only when it changes. Writes nothing.
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

MANIFEST = "manifest.json"
RELEASED = ".released.json"
"""In a model's folder: which of its files `hir gc` has released, and why. Its manifest stays as it was committed."""


@dataclass(frozen=True)
class VersionRef:
    """A version, committed or to be, by name: pass this between stages, never a frame."""

    stage: str
    id: str
    path: Path

    @property
    def iteration(self) -> int:
        """The round of the loop that it belongs to."""
        return int(self.id.partition("-")[0])

    def __str__(self) -> str:
        return f"{self.stage}/{self.id}"


def visible_files(folder: Path) -> list[Path]:
    """A folder's files by name, hidden ones and the manifest aside: all of them parts.

    Raises:
        StoreError: it holds a folder or a link, neither of which a version may.
    """
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != MANIFEST)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            kind = "symbolic link" if path.is_symlink() else "folder"
            raise StoreError(f"{path} is a {kind}: a version holds plain files only; remove it")
    return paths


def released(folder: Path) -> dict[str, str]:
    """Why each file of a version that `hir gc` has released is no longer there, by name; empty but for old models.

    Raises:
        StoreError: the note that says so is damaged.
    """
    path = folder / RELEASED
    try:
        return {str(name): str(why) for name, why in dict(read_json(path)).items()}
    except FileNotFoundError:
        return {}
    except (TypeError, ValueError):
        raise StoreError(f"{path} is damaged: expected names of files, each with a reason") from None


_KNOWN_DIGESTS: dict[tuple[int, ...], str] = {}


def _digest(path: Path) -> str:
    stat = path.stat()
    # Not by name: the rename of a commit must not cost a second reading of a large model.
    key = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    if key not in _KNOWN_DIGESTS:
        with path.open("rb") as file:
            _KNOWN_DIGESTS[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _KNOWN_DIGESTS[key]


def digests(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file, in hexadecimal."""
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing lets go of the interpreter lock
        return list(pool.map(_digest, paths))


def difference(part: Part, path: Path, digest: str) -> list[str]:
    """How a file differs from what a manifest says of it; nothing where it does not."""
    size = path.stat().st_size
    if size != part.bytes:
        return [f"{part.name} has {size} bytes, expected {part.bytes}"]
    if digest != part.sha256:
        return [f"{part.name} has sha256 {digest[:12]}…, expected {part.sha256[:12]}…"]
    return []


def remedy(folder: Path) -> str:
    """What to do about a version that is damaged, to end a message with."""
    return f"; restore it from a copy, or delete {folder} and run again to remake it"


def problems_of(error: ValidationError) -> str:
    """What is wrong with a manifest, on one line."""
    found = error.errors(include_url=False)
    texts = [(".".join(str(step) for step in p["loc"]), p["msg"].removeprefix("Value error, ")) for p in found]
    return "; ".join(f"{place}: {message}" if place else message for place, message in texts)
