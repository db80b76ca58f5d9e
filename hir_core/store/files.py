"""Parts: the Parquet files that a table is made of, and small JSON files; each appears whole or not at all.

Writes under a hidden name in the same folder, syncs, and renames, so a reader never meets half a file and a killed
writer leaves only hidden litter. Shared by the driver and the rank processes, so it stays light. Which folder is a
draft, which a version, and what a table may hold is the store's business.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.errors import StoreError

ROW_GROUP_ROWS = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def write_part(folder: Path, name: str, frame: pl.DataFrame) -> Path:
    """Writes a frame as `part-<name>.parquet` and returns its path; a part of that name is replaced.

    The folder must exist: a rank that outlived its launch must not bring a committed draft back to life.

    Raises:
        StoreError: the name cannot be a file name, or the file cannot be written (folder gone, disk full).
    """
    if not _NAME.fullmatch(name):
        raise StoreError(f"`{name}` cannot name a part: expected letters, digits, `.`, `_` and `-`, as in `r0-00001`")

    def write(path: Path) -> None:
        frame.write_parquet(path, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS)

    return _write_atomically(folder / f"part-{name}.parquet", write)


def write_table(path: Path, frame: pl.DataFrame) -> Path:
    """Writes a frame as one Parquet file that is no part, and returns its path.

    Raises:
        StoreError: the file cannot be written.
    """
    return _write_atomically(path, frame.write_parquet)


def list_parts(folder: Path) -> list[Path]:
    """The folder's parts, sorted by name."""
    return sorted(folder.glob("part-*.parquet"))


def finished_parts(folder: Path) -> list[Path]:
    """The parts of a draft that need not be done again, sorted by name.

    A part that cannot be read (a power cut can leave one empty) is deleted, so that its writer does it once more. Only
    for drafts: nothing may be deleted from a version.
    """
    finished = []
    for path in list_parts(folder):
        try:
            pl.read_parquet_schema(path)
        except pl.exceptions.PolarsError:
            path.unlink()
        else:
            finished.append(path)
    return finished


def read_parts(folder: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All parts of a folder as one frame, rows in order of part name and then as written; deletes nothing.

    Raises:
        FileNotFoundError: the folder holds no part.
    """
    paths = list_parts(folder)
    if not paths:
        raise FileNotFoundError(f"no part-*.parquet in {folder}")
    wanted = None if columns is None else list(columns)
    # One by one: polars promises no row order for a scan of many files.
    return pl.concat([pl.read_parquet(path, columns=wanted) for path in paths])


def write_json(path: Path, value: Any) -> Path:
    """Writes a JSON value and returns the path; NaN and infinities, for which JSON has no word, become null.

    Raises:
        StoreError: the file cannot be written.
        TypeError: the value is not made of plain JSON types.
    """
    # A lone surrogate, which UTF-8 refuses, becomes its \udXXX escape: valid JSON for the same text.
    return write_text(path, json.dumps(finite(value), ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Writes a text as UTF-8 and returns the path; a lone surrogate becomes its \\udXXX escape.

    Raises:
        StoreError: the file cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    return _write_atomically(path, lambda temporary: temporary.write_bytes(data))


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the file holds no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}") from None


def sync(path: Path) -> None:
    """Returns once a file's bytes, or a folder's names, would survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_atomically(path: Path, write: Callable[[Path], object]) -> Path:
    # Not `*.parquet`: a plain glob by polars, unlike a shell's, takes hidden files too.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(temporary)
        sync(temporary)
        temporary.rename(path)
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk is polars' ComputeError
        raise StoreError(f"cannot write {path}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def finite(value: Any) -> Any:
    """The value as `write_json` writes it: null in the place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
