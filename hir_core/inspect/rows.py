"""Some rows of a version's table: the first, or some drawn by seed; all columns or a few, all rows or those that fit.

Reads a version's parts, their digests checked; of a large table no more than the rows asked for, and a draw its keys.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import polars as pl

from hir_core.errors import ConfigError, did_you_mean
from hir_core.schemas import SCHEMAS
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


def head(
    store: Store, ref: VersionRef, count: int, where: str | None = None, columns: Sequence[str] = ()
) -> pl.DataFrame:
    """The first rows, in the order in which they were written.

    Args:
        count: rows at most.
        where: an SQL expression of the columns; only rows of which it is true.
        columns: the columns to keep, in this order; none means all.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        ConfigError: there is no such column, or the expression is not one.
    """
    found: list[pl.DataFrame] = []
    with _meant(where):
        for scan in _scans(store, ref, where):
            found.append(scan.select(_known(columns, scan)).head(count).collect())
            count -= found[-1].height
            if count <= 0:
                break
    return pl.concat(found)


def draw(
    store: Store, ref: VersionRef, count: int, seed: int, where: str | None = None, columns: Sequence[str] = ()
) -> pl.DataFrame:
    """Rows drawn without replacement, each equally likely; the same ones whatever parts the table lies in.

    Args:
        count: rows at most.
        seed: another seed draws others.
        where: an SQL expression of the columns; only rows of which it is true.
        columns: the columns to keep, in this order; none means all.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        ConfigError: there is no such column, or the expression is not one.
    """
    with _meant(where):
        scans = list(_scans(store, ref, where))
        (key,) = SCHEMAS[ref.stage].primary_key()
        keys = sorted(name for scan in scans for name in scan.select(key).collect()[key])
        drawn = random.Random(seed).sample(keys, min(count, len(keys)))
        places = pl.DataFrame({key: drawn}, schema={key: pl.String}).with_row_index("drawn")
        rows = pl.concat([scan.filter(pl.col(key).is_in(drawn)).collect() for scan in scans])
        wanted = _known(columns, scans[0])
    return rows.join(places, on=key).sort("drawn").select(wanted)


def columns_of(store: Store, ref: VersionRef, names: Sequence[str], where: pl.Expr | None = None) -> pl.DataFrame:
    """Some columns of a version's table, by key, of all rows or of those that fit; what no part holds is null.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
    """
    schema = SCHEMAS[ref.stage]
    (key,) = schema.primary_key()
    scan, types = store.table(ref), schema.create_empty().schema
    there = scan.collect_schema().names()
    missing = [pl.lit(None, dtype=types[name]).alias(name) for name in names if name not in there]
    rows = scan.with_columns(missing).filter(pl.lit(value=True) if where is None else where)
    return rows.select(list(dict.fromkeys([key, *names]))).collect().sort(key).select(names)


def _scans(store: Store, ref: VersionRef, where: str | None) -> Iterator[pl.LazyFrame]:
    """The rows of each part that fit. One by one: polars promises no row order for a scan of many files."""
    for path in store.parts(ref):
        scan = pl.scan_parquet(path)
        yield scan if where is None else scan.filter(pl.sql_expr(where))


def _known(columns: Sequence[str], scan: pl.LazyFrame) -> list[str]:
    there = scan.collect_schema().names()
    for name in columns:
        if name not in there:
            hint = did_you_mean(name, there) or f"; there are {', '.join(there)}"
            raise ConfigError(f"--columns: no column `{name}`{hint}")
    return list(columns) or there


@contextmanager
def _meant(where: str | None) -> Iterator[None]:
    """Tells what is wrong with an expression; without one, nothing a user wrote can be."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        if where is None:
            raise
        problem = str(error).splitlines()[0]
        example = """as in "finish_reason = 'length' and k > 0\""""
        raise ConfigError(f"--where: `{where}` cannot be asked: {problem}; expected SQL, {example}") from None
