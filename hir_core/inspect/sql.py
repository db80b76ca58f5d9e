"""SQL over the tables of a run, for `hir sql`: DuckDB with a view for each stage over all its versions.

A query can neither write a file nor read one outside the run. DuckDB itself opens no file: external access is switched
off before the first view exists and locked before the query is parsed, and the rows come from Arrow scans of the run's
own Parquet files, their digests checked. Allowing DuckDB these files alone would not be enough: what it may read it may
also write, with a COPY inside a SELECT.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from hir_core.dynamic_imports import import_extra
from hir_core.errors import ConfigError
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import STAGES
from hir_core.store.store import Store

CLOSED = {
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
}
_VERSIONS = """create table versions (
    stage varchar, iteration integer, version varchar, rows bigint, created timestamptz, parents varchar[], metrics json
)"""


class QueryResult(NamedTuple):
    """The columns and rows that a query returned, as plain JSON values."""

    columns: list[str]
    rows: list[list[Any]]

    def records(self) -> list[dict[str, Any]]:
        """The rows by column; where columns share a name, all but the first have their place added to it."""
        names = [name if name not in self.columns[:n] else f"{name}_{n + 1}" for n, name in enumerate(self.columns)]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def run_query(store: Store, query: str) -> QueryResult:
    """The result of an SQL query over a run.

    Args:
        store: the run.
        query: one SELECT over views named as the stages, each with all columns of its tables and `iteration` and
            `version`; and over `versions`, what manifests say: stage, iteration, version, rows, created, parents,
            metrics (JSON).

    Raises:
        ConfigError: DuckDB is missing, or the query is not one SELECT that it can answer.
        VersionCorrupt: a version of a stage that the query names is damaged.
    """
    duckdb = import_extra("duckdb", "duckdb", "hir sql", extra="sql")
    with _explained(duckdb, query), duckdb.connect(":memory:", config=CLOSED) as connection:
        connection.execute(_VERSIONS)
        manifests = [store.manifest(ref) for stage in STAGES for ref in store.versions(stage)]
        if manifests:
            connection.executemany(
                "insert into versions values (?, ?, ?, ?, ?, ?, ?)",
                [
                    (m.stage, m.iteration, m.id, m.rows, m.created, list(m.parents), json.dumps(m.metrics))
                    for m in manifests
                ],
            )
        for stage in _stages_of(query):
            _add_view(store, stage, connection)
        connection.execute("set lock_configuration = true")
        statements = connection.extract_statements(query)
        allowed = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
        if len(statements) != 1 or statements[0].type not in allowed:
            raise ConfigError(
                f"hir sql: `{query}` is not a single SELECT: give several queries one by one; to use PIVOT, name "
                f"its columns: from (pivot … in (…) …)"
            )
        connection.execute(query)
        columns = [column[0] for column in connection.description]
        return QueryResult(columns, [[_as_json(value) for value in row] for row in connection.fetchall()])


def _stages_of(query: str) -> list[str]:
    """The stages that a query names; all where it names neither a stage nor `versions`, as `show tables` does."""
    named = [stage for stage in SCHEMAS if re.search(rf"\b{stage}\b", query, re.IGNORECASE)]
    return named or ([] if re.search(r"\bversions\b", query, re.IGNORECASE) else list(SCHEMAS))


def _add_view(store: Store, stage: str, connection: Any) -> None:
    """Adds a view over all versions of a stage, read by Arrow; none where the stage has no version."""
    import pyarrow as pa
    from pyarrow import dataset, parquet

    refs = store.versions(stage)
    if not refs:
        return
    files = [str(path.resolve()) for ref in refs for path in store.parts(ref)]
    try:
        schema = pa.unify_schemas([parquet.read_schema(file) for file in files])
    except pa.ArrowException as error:
        raise ConfigError(
            f"hir sql: versions of {stage} have columns of different types: {error}; "
            f"read one of them with `hir head --where`"
        ) from None
    folder = pa.field("version", pa.string())  # the name of the folder that a file lies in
    scan = dataset.dataset(
        files,
        schema=schema.append(folder),
        format="parquet",
        partitioning=dataset.partitioning(pa.schema([folder])),
        partition_base_dir=str((store.run_dir / stage).resolve()),
    )
    connection.register(f"all_{stage}", scan)
    connection.execute(
        f"create view {stage} as select cast(split_part(version, '-', 1) as integer) as iteration, "
        f"version, * exclude (version) from all_{stage}"
    )


@contextmanager
def _explained(duckdb: Any, query: str) -> Iterator[None]:
    """Turns an error of DuckDB into a ConfigError that names the views, and its interrupt into a KeyboardInterrupt."""
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        views = ", ".join([*SCHEMAS, "versions"])
        raise ConfigError(
            f"hir sql: `{query}` cannot be answered: {' '.join(str(error).split())}; "
            f"there are {views}, each with its columns, iteration and version"
        ) from None


def _as_json(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, and a type that JSON does not have becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_json(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, type(None))) else str(value)
