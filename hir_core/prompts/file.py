"""Prompts from the rows of a JSONL, Parquet, CSV or TSV file (type `file`); each row has a `query` or `messages`.

`rows` defines what the columns mean. Every cell of a CSV or TSV file is text; an empty cell is a missing value, and
lists are written as JSON. A Prompts table that hir wrote reads back as the same prompts.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.config import FilePrompts
from hir_core.errors import ConfigError
from hir_core.json_values import parse_json
from hir_core.parquet_trial import unreadable
from hir_core.prompts.items import Item
from hir_core.prompts.rows import ANSWER_COLUMNS, Row, item_from_row

_CONVERSATION_EXAMPLE = '[{"role": "user", "content": "2 + 2?"}]'
_LIST_COLUMNS = {
    "options": '["red", "blue"]',
    "messages": _CONVERSATION_EXAMPLE,
    "history": _CONVERSATION_EXAMPLE,
}
"""Columns that hold lists, and an example of a cell."""


def read_file(source: FilePrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every row of a file as an item, in order.

    Raises:
        ConfigError: the file is missing or of another kind, or a row is malformed; names the line.
    """
    suffix, path = source.path.suffix.lower(), source.path
    if suffix not in ROW_READERS:
        *most, last = ROW_READERS
        raise ConfigError(f"prompts: expected a {', '.join(most)} or {last} file, found {path}: convert or rename it")
    task = source.task or path.stem
    try:
        if path.is_dir():
            raise ConfigError(f"prompts: {path} is a folder: name a file in it, or one source for each of its files")
        if not path.is_file():
            raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})")
        return [item_from_row(row, origin, task, source.seed) for origin, row in ROW_READERS[suffix](path)]
    except OSError as error:
        raise ConfigError(f"prompts: cannot read {path}: {error.strerror}") from None


# --- JSONL and Parquet -----------------------------------------------------------------------------------------------


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            origin = f"{path} line {number}"
            if not line.strip():
                continue
            try:
                row = parse_json(line.decode("utf-8-sig"))
            except json.JSONDecodeError as error:
                problem = f"{error.msg} at column {error.colno}"
                raise ConfigError(f"prompts: {origin} is not JSON: {problem}: correct it") from None
            except (UnicodeDecodeError, UnicodeEncodeError) as error:  # half a character can be escaped, but not stored
                message = f"prompts: {origin} is not UTF-8 text: {error.reason}: save the file as UTF-8"
                raise ConfigError(message) from None
            except ValueError as error:  # numbers of thousands of digits, or lists nested too deeply
                raise ConfigError(f"prompts: {origin} is too much JSON for one row: {error}: correct it") from None
            if not isinstance(row, dict):
                found = type(row).__name__
                raise ConfigError(f"prompts: {origin}: expected a JSON object with a `query`, found {found}")
            yield origin, row


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
        yield origin, {name: _cell_value(name, text, origin) for name, text in zip(columns, cells, strict=True)}


def _records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The cells of each record, with the line on which it begins, since cells can hold line breaks; no blank lines."""
    content = path.read_bytes()
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
            kind = path.suffix[1:].upper()
            raise ConfigError(f"prompts: {origin} is not {kind}: {error}: correct it, or use JSONL") from None
        if cells:
            yield origin, cells


def _cell_value(column: str, text: str, origin: str) -> Any:
    """The value of a cell: JSON where its column holds lists, else its text; None where it is empty."""
    if column == "query":
        return text  # a blank query is counted as one; it is not a missing column
    if not text.strip():
        return None
    if column in _LIST_COLUMNS or (column in ANSWER_COLUMNS and text.lstrip().startswith("[")):
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


ROW_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
}
"""For each file suffix, the function that yields every row, with where it stands, for messages."""
