"""The cost of a version: committing and verifying a table of samples, against plain Parquet files and their digests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import polars as pl

from hir_core.store.store import Store
from tests.benchmarks.measure import Case, Side, Work
from tests.benchmarks.side_process import Clock
from tests.benchmarks.tables import ROWS_OF_A_PART, SAMPLES, commit, parts_of, samples

ROWS, MB = 200_000, 1e6


def prepare_table(inputs: Path) -> None:
    """Writes the table that both sides write again."""
    samples(ROWS).write_parquet(inputs / "samples.parquet")


def prepare_version(inputs: Path) -> None:
    """Commits the version that both sides verify."""
    commit(Store(inputs / "run"), SAMPLES, samples(ROWS))


def megabytes(folder: Path) -> float:
    """The size of a folder's parts."""
    return sum(path.stat().st_size for path in folder.glob("part-*.parquet")) / MB


def commit_version(clock: Clock, inputs: Path) -> Work:
    """Writes the parts and commits them: checks of the schema and the keys, digests, manifest."""
    table = pl.read_parquet(inputs / "samples.parquet")
    with clock:
        version = commit(Store(Path("run")), SAMPLES, table)
    return Work(megabytes(version.path))


def write_plain_files(clock: Clock, inputs: Path, compression_level: int, row_group_rows: int) -> Work:
    """Writes the same parts with polars, flushes them to disk, and computes their digests."""
    table = pl.read_parquet(inputs / "samples.parquet")
    with clock:
        for number, part in enumerate(parts_of(table)):
            with Path(f"part-{number}.parquet").open("wb") as file:
                part.write_parquet(
                    file, compression="zstd", compression_level=compression_level, row_group_size=row_group_rows
                )
                file.flush()
                os.fsync(file.fileno())
        digests_of(Path())
    return Work(megabytes(Path()))


def verify_version(clock: Clock, inputs: Path) -> Work:
    """Opens the version, which compares every file with the manifest."""
    store = Store(inputs / "run")
    with clock:
        store.verify(store.resolve("samples@1"))
    return Work(megabytes(store.resolve("samples@1").path))


def digest_plain_files(clock: Clock, inputs: Path) -> Work:
    """Computes the digests of the same files."""
    folder = Store(inputs / "run").resolve("samples@1").path
    with clock:
        digests_of(folder)
    return Work(megabytes(folder))


def digests_of(folder: Path) -> list[str]:
    """The sha256 of each part of a folder."""
    digests = []
    for path in sorted(folder.glob("part-*.parquet")):
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests


_TABLE = f"{ROWS:,} samples in parts of {ROWS_OF_A_PART:,}"
CASES = (
    Case(
        name="commit/write",
        question=f"{_TABLE}: a committed version against polars' write_parquet, fsync and sha256",
        unit="MB",
        sides=(
            Side("hir", commit_version, {}),
            Side("polars", write_plain_files, {"compression_level": 3, "row_group_rows": 4096}),
        ),
        prepare=prepare_table,
    ),
    Case(
        name="commit/verify",
        question=f"{_TABLE}: opening a version, which verifies it, against sha256 of its files",
        unit="MB",
        sides=(Side("hir", verify_version, {}), Side("sha256", digest_plain_files, {})),
        prepare=prepare_version,
    ),
)
