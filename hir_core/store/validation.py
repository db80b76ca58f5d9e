"""Validation of tables: whether Parquet parts together follow a schema in columns, types, rules and unique keys.

Reads at most the key columns or a few row groups of a part at a time. Raises SchemaError, and StoreError for unreadable
files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from hir_core.errors import SchemaError, StoreError
from hir_core.store.files import ROW_GROUP_ROWS, list_parts

if TYPE_CHECKING:
    import dataframely as dy

MOST_GROUPS, CHECKED_BYTES = 8, 4 << 20
"""How many row groups, and bytes of a file, are checked at once: short rows many at a time, long ones one group."""


def check_table(schema: type[dy.Schema], ref: object, paths: Sequence[Path]) -> list[int]:
    """The number of rows of each part, after checking that together they are a table of the schema.

    Args:
        schema: the schema.
        ref: the version, for error messages.
        paths: the files of the version.

    Raises:
        SchemaError: a column, a rule or a key is wrong; names the part.
        StoreError: a file is no part, or cannot be read.
    """
    for path in paths:
        if path not in list_parts(path.parent):
            raise StoreError(f"{ref}: only part-*.parquet may lie in a table's draft; remove {path.name}")
        with _readable(ref, path):
            columns = pl.read_parquet_schema(path)
        check_columns(schema, columns, f"{ref} {path.name}")
        if list(columns) != (order := schema.column_names()):
            raise SchemaError(f"{ref} {path.name} has its columns in another order, expected {', '.join(order)}")
    _check_keys(schema, ref, paths)
    return [_check_rows(schema, ref, path) for path in paths]


@contextmanager
def _readable(ref: object, path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:  # a panic is no Exception
        raise StoreError(f"{ref} {path.name} cannot be read: {str(error).splitlines()[0]}; delete it") from None


def check_columns(schema: type[dy.Schema], found: Mapping[str, Any], where: str) -> None:
    """Checks that columns and their types are those of a schema.

    Args:
        schema: the schema.
        found: the type of each column by name.
        where: the table, for error messages.

    Raises:
        SchemaError: names every column that is missing, unknown or of another type.
    """
    expected = {name: column.dtype for name, column in schema.columns().items()}
    problems = [f"column `{name}` is missing" for name in expected if name not in found]
    problems += [f"column `{name}` is unknown" for name in found if name not in expected]
    problems += [
        f"column `{name}` is {found[name]}, expected {dtype}"
        for name, dtype in expected.items()
        if name in found and found[name] != dtype
    ]
    if problems:
        raise SchemaError(f"{where} does not fit {schema.__name__}: {'; '.join(problems)}")


def _check_keys(schema: type[dy.Schema], ref: object, paths: Sequence[Path]) -> None:
    """Checks that there is a part, and that no two rows of the table have the same key; reads the key columns only."""
    if not paths:
        raise SchemaError(f"{ref} has no part: even an empty table needs one with the columns of {schema.__name__}")
    key = schema.primary_key()
    keys = pl.concat([_read_columns(ref, path, key) for path in paths])
    repeated = keys.filter(keys.is_duplicated()).unique()
    if repeated.is_empty():
        return
    first = repeated.sort(key).head(1)
    holders = [path.name for path in paths if not _read_columns(ref, path, key).join(first, on=key).is_empty()]
    raise SchemaError(
        f"{ref}: {repeated.height} key(s) of {schema.__name__} occur in several rows, "
        f"the first {_key_text(schema, first)} in {', '.join(holders)}"
    )


def _check_rows(schema: type[dy.Schema], ref: object, path: Path) -> int:
    """The number of rows of a part, after checking each against the schema's rules, a few row groups at a time."""
    with _readable(ref, path):
        scan = pl.scan_parquet(path)
        rows = int(scan.select(pl.len()).collect().item())
        groups = max(1, min(MOST_GROUPS, CHECKED_BYTES * rows // (path.stat().st_size * ROW_GROUP_ROWS)))
        for start in range(0, rows, groups * ROW_GROUP_ROWS):
            _, failure = schema.filter(scan.slice(start, groups * ROW_GROUP_ROWS).collect())
            if broken := failure.counts():
                rules = ", ".join(f"`{rule.replace('|', ' ')}` in {count}" for rule, count in broken.items())
                raise SchemaError(
                    f"{ref} {path.name} breaks rules of {schema.__name__} in rows from {start}: {rules}, "
                    f"the first {_key_text(schema, failure.invalid())}"
                )
    return rows


def _read_columns(ref: object, path: Path, columns: list[str]) -> pl.DataFrame:
    with _readable(ref, path):
        return pl.read_parquet(path, columns=columns)


def _key_text(schema: type[dy.Schema], rows: pl.DataFrame) -> str:
    return ", ".join(f"{name} {rows[name][0]!r}" for name in schema.primary_key())
