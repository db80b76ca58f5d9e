"""Some rows of a version's table, for `hir head` and `hir show`: the first rows, or rows drawn at random by a seed.

Also some columns of all its rows, for `hir report`. Reads a version's Parquet files after their digests are checked: of
a large table only the rows asked for, and for a random draw also every key.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import polars as pl

from hir_core.errors import ConfigError, did_you_mean
from hir_core.inspect.conditions import condition, invalid
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import schema_of
from hir_core.store.store import Store
from hir_core.store.validation import check_columns
from hir_core.store.version import VersionRef


def head(
    store: Store,
    ref: VersionRef,
    count: int,
    where: str | None = None,
    columns: Sequence[str] = (),
    seed: int | None = None,
) -> pl.DataFrame:
    """The first rows in the order in which they were written or, with a seed, rows drawn at random.

    A draw is without replacement and every row is equally likely. The same seed draws the same rows, in the same order,
    however the table is split into files.

    Args:
        count: the most rows to return.
        where: an SQL condition over the columns; only rows for which it is true are returned or drawn.
        columns: the columns to keep, in this order; an empty sequence keeps all.
        seed: the seed of the random draw; None returns the first rows.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        ConfigError: there is no such column, or `where` is not a valid expression.
    """
    with _explained(where):
        # One scan per file: polars promises no row order for a scan of many files.
        scans = [pl.scan_parquet(path) for path in store.parts(ref)]
        if where is not None:
            chosen = condition(where)
            scans = [scan.filter(chosen) for scan in scans]
        if seed is not None:
            return _drawn(scans, ref.stage, count, columns, seed)
        tables: list[pl.DataFrame] = []
        for scan in scans:
            tables.append(scan.select(_existing(columns, scan)).head(count).collect())
            count -= tables[-1].height
            if count <= 0:
                break
        return pl.concat(tables)


def checked_table(store: Store, ref: VersionRef) -> pl.LazyFrame:
    """A version's table, after checking that it has the columns of its schema.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        SchemaError: its table has other columns: it was made by another version of hir.
    """
    table = store.table(ref)
    schema = schema_of(store.manifest(ref))
    assert schema is not None, "a version without a table has no columns"
    check_columns(schema, table.collect_schema(), str(ref))
    return table


def columns_of(store: Store, ref: VersionRef, names: Sequence[str], where: pl.Expr | None = None) -> pl.DataFrame:
    """Some columns of a version's table, sorted by key, of all rows or of those for which `where` is true.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        SchemaError: its table has other columns: it was made by another version of hir.
    """
    (key,) = SCHEMAS[ref.stage].primary_key()
    rows = checked_table(store, ref).filter(pl.lit(value=True) if where is None else where)
    return rows.select(list(dict.fromkeys([key, *names]))).collect().sort(key).select(names)


def _drawn(scans: list[pl.LazyFrame], stage: str, count: int, columns: Sequence[str], seed: int) -> pl.DataFrame:
    """Rows drawn by their sorted keys, so that the draw does not depend on the files."""
    (key,) = SCHEMAS[stage].primary_key()
    keys = sorted(value for scan in scans for value in scan.select(key).collect()[key])
    drawn = random.Random(seed).sample(keys, min(count, len(keys)))
    order = pl.DataFrame({key: drawn}, schema={key: pl.String}).with_row_index("drawn")
    rows = pl.concat([scan.filter(pl.col(key).is_in(drawn)).collect() for scan in scans])
    return rows.join(order, on=key).sort("drawn").select(_existing(columns, scans[0]))


def _existing(columns: Sequence[str], scan: pl.LazyFrame) -> list[str]:
    """These columns, or all columns where none is named.

    Raises:
        ConfigError: the table has no such column.
    """
    existing = scan.collect_schema().names()
    for name in columns:
        if name not in existing:
            hint = did_you_mean(name, existing) or f"; there are {', '.join(existing)}"
            raise ConfigError(f"--columns: no column `{name}`{hint}")
    return list(columns) or existing


@contextmanager
def _explained(where: str | None) -> Iterator[None]:
    """Turns an error of polars about `where` into a ConfigError; without an expression the user wrote nothing wrong."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        if where is None:
            raise
        raise invalid(where, str(error)) from None
