"""SQL over the tables of a run: DuckDB, with a view for each stage over all its versions, and nothing else in reach.

DuckDB never opens a file here: external access is off before the first view exists and locked before the question is
looked at, and rows come from scans that Arrow makes of the run's own parts, verified. Allowing DuckDB these files
alone would not do: what it may read it may also write, with a COPY inside a SELECT.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from hir_core.dynamic_imports import import_extra
from hir_core.errors import ConfigError
from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import STAGES
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

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


class Answer(NamedTuple):
    """What a question gave: plain JSON values, row by row."""

    columns: list[str]
    rows: list[list[Any]]

    def records(self) -> list[dict[str, Any]]:
        """The rows by column; of columns with one name, all but the first get a number."""
        names = [name if name not in self.columns[:n] else f"{name}_{n + 1}" for n, name in enumerate(self.columns)]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def ask(store: Store, question: str) -> Answer:
    """The answer to an SQL question over a run.

    Args:
        store: the run.
        question: one SELECT over views named as the stages, each with all columns of its tables and `iteration` and
            `version`; and over `versions`, what manifests say: stage, iteration, version, rows, created, parents,
            metrics (JSON).

    Raises:
        ConfigError: DuckDB is missing, or the question is not one SELECT that it can answer.
        VersionCorrupt: a version of a stage that the question names is damaged.
    """
    duckdb = import_extra("duckdb", "duckdb", "hir sql", extra="sql")
    with _understood(duckdb, question), duckdb.connect(":memory:", config=CLOSED) as connection:
        connection.execute(_VERSIONS)
        _add_versions(store, connection)
        for stage in _named(question):
            _add_view(store, stage, connection)
        connection.execute("set lock_configuration = true")
        _check(duckdb, connection.extract_statements(question), question)
        connection.execute(question)
        columns = [column[0] for column in connection.description]
        return Answer(columns, [[_plain(value) for value in row] for row in connection.fetchall()])


def _named(question: str) -> list[str]:
    """The stages that a question speaks of; all where it names none, as `show tables` does."""
    named = [stage for stage in SCHEMAS if re.search(rf"\b{stage}\b", question, re.IGNORECASE)]
    return named or ([] if re.search(r"\bversions\b", question, re.IGNORECASE) else list(SCHEMAS))


def _add_versions(store: Store, connection: Any) -> None:
    manifests = [store.manifest(ref) for stage in STAGES for ref in store.versions(stage)]
    facts = [(m.stage, m.iteration, m.id, m.rows, m.created, list(m.parents), json.dumps(m.metrics)) for m in manifests]
    if facts:
        connection.executemany("insert into versions values (?, ?, ?, ?, ?, ?, ?)", facts)


def _add_view(store: Store, stage: str, connection: Any) -> None:
    """A view over all versions of a stage; none where it has no version."""
    refs = store.versions(stage)
    if not refs:
        return
    connection.register(f"all_{stage}", _scan(store, stage, refs))
    connection.execute(
        f"create view {stage} as select cast(split_part(version, '-', 1) as integer) as iteration, "
        f"version, * exclude (version) from all_{stage}"
    )


def _scan(store: Store, stage: str, refs: Sequence[VersionRef]) -> Any:
    """The parts of these versions, verified, as one Arrow data set whose column `version` is their folder's name."""
    import pyarrow as pa
    from pyarrow import dataset, parquet

    files = [str(path.resolve()) for ref in refs for path in store.parts(ref)]
    try:
        schema = pa.unify_schemas([parquet.read_schema(file) for file in files])
    except pa.ArrowException as error:
        raise ConfigError(
            f"hir sql: versions of {stage} have columns of different types, as different releases write them: "
            f"{error}; ask for one with `hir head --where`"
        ) from None
    folder = pa.field("version", pa.string())
    return dataset.dataset(
        files,
        schema=schema.append(folder),
        format="parquet",
        partitioning=dataset.partitioning(pa.schema([folder])),
        partition_base_dir=str((store.run_dir / stage).resolve()),
    )


def _check(duckdb: Any, statements: Sequence[Any], question: str) -> None:
    allowed = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN}
    if len(statements) != 1 or statements[0].type not in allowed:
        raise ConfigError(
            f"hir sql: `{question}` is not one SELECT: a run is only read; for several answers ask several times, and "
            f"give PIVOT its columns: from (pivot … in (…) …)"
        )


@contextmanager
def _understood(duckdb: Any, question: str) -> Iterator[None]:
    try:
        yield
    except duckdb.InterruptException:
        raise KeyboardInterrupt from None
    except duckdb.Error as error:
        views = ", ".join([*SCHEMAS, "versions"])
        raise ConfigError(
            f"hir sql: `{question}` cannot be answered: {' '.join(str(error).split())}; "
            f"there are {views}, each with its columns, iteration and version"
        ) from None


def _plain(value: Any) -> Any:
    """A value as JSON has it: NaN and infinities become null, and what JSON has no word for becomes text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, type(None))) else str(value)
