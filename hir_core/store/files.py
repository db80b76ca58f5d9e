"""Atomic writing and reading of files: a table's parts in Parquet, JSON files and texts.

A file is written under a hidden name in the same folder, synced, and renamed. So a reader never sees half a file, and a
killed writer leaves only a hidden temporary file. Used by the driver and by rank processes, so it imports little.
Raises StoreError. Which folders are drafts or versions is decided by `store.store`, what tables hold by `schemas`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from hir_core.errors import FULL_DISK, MAKE_ROOM, StoreError
from hir_core.json_values import finite, parse_json
from hir_core.store.plain_files import open_plain, write_whole

ROW_GROUP_ROWS = 4096
"""Rows per Parquet row group: what a reader must load at once."""
_PART_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def write_part(folder: Path, name: str, frame: pl.DataFrame) -> Path:
    """Writes a frame as `part-<name>.parquet` and returns its path; replaces an existing part of that name.

    The folder must exist: a rank that outlived its launch must not create the folder of a committed draft anew.

    Raises:
        StoreError: the name cannot be a file name, or the file cannot be written (folder gone, disk full).
    """
    if not _PART_NAME.fullmatch(name):
        raise StoreError(f"`{name}` cannot name a part: expected letters, digits, `.`, `_` and `-`, as in `r0-00001`")

    def write(file: BinaryIO) -> None:
        _in_row_groups(frame).write_parquet(
            file, compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS
        )

    return _write_atomically(folder / f"part-{name}.parquet", write)


def _in_row_groups(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows as one chunk per row group, each a copy that holds its own rows only.

    Of a list column, polars would go through the whole column's items for every row group, and estimate the size of a
    page by all of them: a million rows of short texts took 70 times as long to write, in files 4 times as large.
    """
    rows = pl.int_range(ROW_GROUP_ROWS, dtype=pl.UInt32, eager=True)
    groups = [group[rows[: group.height]] for group in frame.iter_slices(ROW_GROUP_ROWS)]
    return pl.concat(groups, rechunk=False) if len(groups) > 1 else frame


def write_table(path: Path, frame: pl.DataFrame) -> Path:
    """Writes a frame as a Parquet file that is not part of a version, and returns its path.

    Raises:
        StoreError: the file cannot be written.
    """
    return _write_atomically(path, frame.write_parquet)


def list_parts(folder: Path) -> list[Path]:
    """The paths of a folder's parts, sorted by name."""
    return sorted(folder.glob("part-*.parquet"))


def finished_parts(folder: Path) -> list[Path]:
    """The paths of a draft's readable parts, sorted by name.

    An unreadable part (a power cut can leave an empty one) is deleted, so that its writer writes it again. For drafts
    only: nothing may be deleted from a version.
    """
    finished = []
    for path in list_parts(folder):
        try:
            pl.read_parquet_schema(path)
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            path.unlink()
        else:
            finished.append(path)
    return finished


def read_parts(folder: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """All parts of a folder as one frame: in order of their names, and the rows of each as written.

    Raises:
        FileNotFoundError: the folder contains no part.
    """
    paths = list_parts(folder)
    if not paths:
        raise FileNotFoundError(f"no part-*.parquet in {folder}")
    names = None if columns is None else list(columns)
    # One by one: polars guarantees no row order for a scan of several files.
    return pl.concat([pl.read_parquet(path, columns=names) for path in paths])


def write_json(path: Path, value: Any) -> Path:
    """Writes a JSON value and returns the path; NaN and infinities, which JSON cannot express, become null.

    Raises:
        StoreError: the file cannot be written.
        TypeError: the value does not consist of plain JSON types.
    """
    # A lone surrogate, which UTF-8 refuses, becomes its \udXXX escape: valid JSON for the same text.
    return write_text(path, json.dumps(finite(value), ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Writes a text as UTF-8 and returns the path; a lone surrogate becomes its \\udXXX escape.

    Raises:
        StoreError: the file cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    return _write_atomically(path, lambda file: file.write(data))


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the file is not JSON, is nested too deeply, or is no plain file.
    """
    with open_plain(path) as file:
        content = file.readall()
    try:
        return parse_json(content, lone_surrogates=True)  # as `write_json` writes them
    except ValueError as error:
        raise StoreError(f"{path} is not JSON that can be read: {error}") from None


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A context in which a file or folder is written, by whatever library.

    Raises:
        StoreError: the file system refused something; one line says what, and on a full disk what helps.
    """
    try:
        yield
    except Exception as error:
        problem = refusal(error) or (str(error) if isinstance(error, OSError | pl.exceptions.PolarsError) else "")
        if not problem:
            raise
        raise StoreError(f"cannot write {path}: {problem}") from error


def refusal(error: Exception) -> str:
    """What a file system refused, in words; empty for an error that does not come from one.

    Libraries in Rust (polars, safetensors, tokenizers) have errors of their own, which hold `(os error 28)`.
    """
    found = re.search(r"\(os error ([0-9]+)\)", str(error))
    number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
    if number is None:
        return ""
    return f"{os.strerror(number)}: {MAKE_ROOM}" if number in FULL_DISK else os.strerror(number)


def _write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    with writing(path):
        write_whole(path, write)
    return path
