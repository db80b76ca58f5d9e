"""Prompts from the rows of files: JSONL, JSON, Parquet, CSV or TSV, plain or under gzip (type `file`).

`forms` lists which forms a row can have, and `rows` defines what its columns mean. Every cell of a CSV or TSV file is
text; an empty cell is a missing value, and lists are written as JSON. A Prompts table that hir wrote reads back as the
same prompts. A small file under gzip can become terabytes: what it becomes is limited.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import IO, Any

import polars as pl

from hir_core.config import FilePrompts
from hir_core.errors import ConfigError
from hir_core.json_values import parse_json
from hir_core.parquet_trial import unreadable
from hir_core.prompts.forms import ANSWER_COLUMNS, TEXT_QUESTIONS, Row, renamed
from hir_core.prompts.items import Item
from hir_core.prompts.rows import item_from_row

_CONVERSATION_EXAMPLE = '[{"role": "user", "content": "2 + 2?"}]'
_LIST_COLUMNS = {
    "options": '["red", "blue"]',
    "messages": _CONVERSATION_EXAMPLE,
    "history": _CONVERSATION_EXAMPLE,
    "conversations": '[{"from": "human", "value": "2 + 2?"}]',
}
"""Columns that hold lists, and an example of a cell."""
_LISTS_OR_TEXTS = (*ANSWER_COLUMNS, "completion")
MOST_UNPACKED, LARGEST_RATIO = 256 * 10**6, 100
"""A file under gzip may become so many bytes, or so many times its size: texts shrink to a tenth or a twentieth."""


def read_file(source: FilePrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every row of a file or folder as an item, in order.

    Raises:
        ConfigError: a file is missing or of another kind, or a row is malformed; names the line.
    """
    task = source.task or Path(source.path.name.removesuffix(GZIP)).stem
    return [item_from_row(row, origin, task, source.seed) for origin, row in read_rows(source)]


def read_rows(source: FilePrompts) -> Iterator[tuple[str, Row]]:
    """Every row of a file or folder under the names that the source gives its columns, with where it stands.

    Raises:
        ConfigError: a file is missing, of another kind or no valid one, or a column is missing.
    """
    for path in _files(source.path):
        reader = ROW_READERS[_ending(path)]
        try:
            for origin, row in reader(path):
                own = renamed(row, source.columns, origin)
                yield origin, own if reader not in CELL_READERS else _cell_values(own, origin)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ConfigError(f"prompts: {path} is no whole gzip file: {error}: copy it again") from None
        except OSError as error:
            raise ConfigError(f"prompts: cannot read {path}: {error.strerror}") from None


def _files(path: Path) -> list[Path]:
    """The file itself, or the files of a folder that can be read, by name."""
    *most, last = ROW_READERS
    endings = f"{', '.join(most)} or {last}"
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if _ending(file) in ROW_READERS and file.is_file())
        found = [file for file in found if not file.name.startswith(".")]
        if not found:
            raise ConfigError(f"prompts: the folder {path} has no {endings} file: name a folder that has, or a file")
        return found
    if _ending(path) not in ROW_READERS:
        raise ConfigError(f"prompts: expected a {endings} file, found {path}: convert or rename it")
    if not path.is_file():
        raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})")
    return [path]


def _ending(path: Path) -> str:
    """What says how a file is read: its suffix, and before `.gz` the suffix of what is packed."""
    name = path.name.lower()
    suffix = Path(name.removesuffix(GZIP)).suffix
    return suffix + GZIP if name.endswith(GZIP) and suffix == ".parquet" else suffix  # which packs itself


class _Limited(io.RawIOBase):
    """The bytes of a file under gzip, up to a limit."""

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, gzip.open(path)  # noqa: SIM115 - closed with this
        self._left = max(MOST_UNPACKED, LARGEST_RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ConfigError(
                f"prompts: {self._path} becomes more than {LARGEST_RATIO} times its size: unpack it yourself"
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def _open(path: Path) -> IO[bytes]:
    return io.BufferedReader(_Limited(path)) if path.name.lower().endswith(GZIP) else path.open("rb")


# --- JSONL, JSON and Parquet -----------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                origin = f"{path} line {number}"
                yield origin, _object(_parsed(line, origin), origin)


def _json(path: Path) -> Iterator[tuple[str, Row]]:
    """The objects of a list; a file that holds none is read as JSONL, since many call that `.json` too."""
    with _open(path) as file:
        begin = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
        if begin == b"[":
            file.seek(0)
            rows = _parsed(file.read(), str(path))
            for number, row in enumerate(rows, start=1):
                yield f"{path} row {number}", _object(row, f"{path} row {number}")
            return
    yield from _jsonl(path)


def _parsed(text: bytes, origin: str) -> Any:
    try:
        return parse_json(text.decode("utf-8-sig").rstrip())
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno} column {error.colno}"
        raise ConfigError(f"prompts: {origin} is not JSON: {error.msg} at {place}: correct it") from None
    except (UnicodeDecodeError, UnicodeEncodeError) as error:  # half a character can be escaped, but not stored
        raise ConfigError(f"prompts: {origin} is not UTF-8 text: {error.reason}: save the file as UTF-8") from None
    except ValueError as error:  # numbers of thousands of digits, or lists nested too deeply
        raise ConfigError(f"prompts: {origin} is too much JSON for one row: {error}: correct it") from None


def _object(row: Any, origin: str) -> Row:
    if not isinstance(row, dict):
        raise ConfigError(f"prompts: {origin}: expected a JSON object with a `query`, found {type(row).__name__}")
    return row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    if problem := unreadable([path]).get(path):
        raise ConfigError(f"prompts: {path} cannot be read as Parquet: {problem}")
    try:
        frame = pl.read_parquet(path, glob=False)
        yield from ((f"{path} row {number}", row) for number, row in enumerate(frame.iter_rows(named=True), start=1))
    except (ValueError, OverflowError, pl.exceptions.PanicException) as error:
        raise ConfigError(
            f"prompts: {path} is damaged, or holds dates or times beyond the years 1 to 9999: {error}: drop that column"
        ) from None


# --- CSV and TSV -----------------------------------------------------------------------------------------------------


def _delimited(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    records = _records(path, delimiter)
    origin, header = next(records, (f"{path} line 1", []))
    columns = [cell.strip() for cell in header]
    if "" in columns:
        number = columns.index("") + 1
        raise ConfigError(f"prompts: {origin}: column {number} has no name: name it, or drop it (pandas: index=False)")
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        names = ", ".join(f"`{name}`" for name in repeated)
        raise ConfigError(f"prompts: {origin}: expected different columns, found {names} more than once: rename them")
    for origin, cells in records:
        if len(cells) != len(columns):
            raise ConfigError(
                f"prompts: {origin}: expected {len(columns)} cells, one per column, found {len(cells)}: put a cell "
                f"that holds {delimiter!r} or a line break in double quotes"
            )
        yield origin, dict(zip(columns, cells, strict=True))


def _records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each record, with the line on which it begins, since cells can hold line breaks; no blank lines."""
    with _open(path) as file:
        content = file.read()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"prompts: {path} line {line} is not UTF-8 text: {error.reason}: save the file as UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        origin = f"{path} line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            kind = _ending(path)[1:].upper()
            raise ConfigError(f"prompts: {origin} is not {kind}: {error}: correct it, or use JSONL") from None
        if cells:
            yield origin, cells


def _cell_values(row: Row, origin: str) -> Row:
    """The row with the value of each cell, also of those that a mapping of columns has made metadata."""
    metadata = row.get("metadata")
    if isinstance(metadata, dict):
        row = row | {"metadata": {name: text if text.strip() else None for name, text in metadata.items()}}
    return {name: _cell_value(name, cell, origin) if isinstance(cell, str) else cell for name, cell in row.items()}


def _cell_value(column: str, text: str, origin: str) -> Any:
    """The value of a cell: JSON where its column holds lists, else its text; None where it is empty."""
    if not text.strip():
        return text if column in TEXT_QUESTIONS else None  # a blank question is counted; it is no missing column
    if column in _LIST_COLUMNS or (column in _LISTS_OR_TEXTS and text.lstrip().startswith("[")):
        try:
            values = parse_json(text)
        except ValueError:
            values = None
        if isinstance(values, list):
            return values
        if column in _LIST_COLUMNS:
            raise ConfigError(
                f"prompts: {origin}: expected `{column}` as a JSON list in its cell, like {_LIST_COLUMNS[column]}, "
                f"found {text!r}"
            )
    return text.strip() if column in ANSWER_COLUMNS else text


GZIP = ".gz"
CELL_READERS = (partial(_delimited, delimiter=","), partial(_delimited, delimiter="\t"))
"""The readers of files whose cells are texts."""
ROW_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
    ".csv": CELL_READERS[0],
    ".tsv": CELL_READERS[1],
}
"""For each ending, the function that yields every row, with where it stands, for messages; all but Parquet also where
the file is packed and its name goes on with `.gz`."""
