"""File sources: prompts from the rows of a JSONL, Parquet, CSV or TSV file with at least a `query` or `messages`.

What the columns mean is in `rows`. A cell of a CSV or TSV file is text, empty where there is none; lists stand in it as
JSON. A table that hir wrote reads back as the same prompts.
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
from hir_core.prompts.items import Item
from hir_core.prompts.rows import ANSWER_COLUMNS, Row, item_from_row

_A_CONVERSATION = '[{"role": "user", "content": "2 + 2?"}]'
_LISTS = {"options": '["red", "blue"]', "messages": _A_CONVERSATION, "history": _A_CONVERSATION}
"""Columns that hold lists, and what one looks like in its cell."""


def read_file(source: FilePrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Reads a file's rows as items, in order.

    Raises:
        ConfigError: the file is missing or of another kind, or a row is malformed; names the line.
    """
    kind, path = source.path.suffix.lower(), source.path
    if kind not in KINDS:
        *most, last = KINDS
        raise ConfigError(f"prompts: expected a {', '.join(most)} or {last} file, found {path}: convert or rename it")
    if not path.is_file():
        raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})")
    task = source.task or path.stem
    return [item_from_row(row, place, task, source.seed) for place, row in KINDS[kind](path)]


def _jsonl(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                place = f"{path} line {number}"
                yield place, _json_row(line, place)


def _json_row(line: bytes, place: str) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair can be escaped, but not stored
    except json.JSONDecodeError as error:
        raise ConfigError(f"prompts: {place} is not JSON: {error.msg} at column {error.colno}: correct it") from None
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ConfigError(f"prompts: {place} is not UTF-8 text: {error.reason}: save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, lists in lists in lists
        raise ConfigError(f"prompts: {place} is too much JSON for one row: {error}: correct it") from None
    if not isinstance(row, dict):
        raise ConfigError(f"prompts: {place}: expected a JSON object with a `query`, found {type(row).__name__}")
    return row


def _parquet(path: Path) -> Iterator[tuple[str, Row]]:
    try:
        frame = pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"prompts: {path} cannot be read as Parquet: {error}") from None
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        yield f"{path} row {number}", row


def _delimited(path: Path, delimiter: str) -> Iterator[tuple[str, Row]]:
    records = _records(path, delimiter)
    columns = _columns(*next(records, (f"{path} line 1", [])))
    for place, cells in records:
        if len(cells) != len(columns):
            raise ConfigError(
                f"prompts: {place}: expected {len(columns)} cells, one per column, found {len(cells)}: put a cell that "
                f"holds {delimiter!r} or a line break in double quotes"
            )
        yield place, {name: _cell(name, text, place) for name, text in zip(columns, cells, strict=True)}


def _records(path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """Cells line by line, blank lines aside; named by the line that they begin on, since cells can hold line breaks."""
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), delimiter=delimiter, strict=True)
    while True:
        place = f"{path} line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            kind = path.suffix[1:].upper()
            raise ConfigError(f"prompts: {place} is not {kind}: {error}: correct it, or use JSONL") from None
        if cells:
            yield place, cells


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"prompts: {path} line {line} is not UTF-8 text: {error.reason}: save the file as UTF-8"
        ) from None


def _columns(place: str, cells: list[str]) -> list[str]:
    columns = [cell.strip() for cell in cells]
    if "" in columns:
        number = columns.index("") + 1
        raise ConfigError(f"prompts: {place}: column {number} has no name: name it, or drop it (pandas: index=False)")
    if twice := [name for name, count in Counter(columns).items() if count > 1]:
        raise ConfigError(f"prompts: {place}: expected different columns, found `{twice[0]}` twice: rename one")
    return columns


def _cell(name: str, text: str, place: str) -> Any:
    """What a cell means: JSON where its column holds lists, else its text; nothing where it is empty."""
    if name == "query":
        return text  # a blank one is counted, not missing
    if not text.strip():
        return None
    if name in _LISTS or (name in ANSWER_COLUMNS and text.lstrip().startswith("[")):
        values = _json_list(text)
        if values is None and name in _LISTS:
            raise ConfigError(
                f"prompts: {place}: expected `{name}` as a JSON list in its cell, like {_LISTS[name]}, found {text!r}"
            )
        return text.strip() if values is None else values
    return text.strip() if name in ANSWER_COLUMNS else text


def _json_list(text: str) -> list[Any] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) else None


KINDS: dict[str, Callable[[Path], Iterator[tuple[str, Row]]]] = {
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t"),
}
