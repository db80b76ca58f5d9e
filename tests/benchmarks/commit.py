"""The cost of a version: committing and verifying a table of samples, against plain Parquet files and their digests."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import polars as pl

from hir_core.schemas import Samples
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from tests.benchmarks.measure import Case, Side, Work
from tests.benchmarks.side_process import Clock

ROWS, PARTS, K = 200_000, 8, 4
MB = 1e6
IDENTITY = identity("samples", 1, {}, ["prompts/0000-00000000", "models/0000-00000000"])


def samples(rows: int, seed: int = 0) -> pl.DataFrame:
    """Samples as a run draws them: prompts of 24 tokens, outputs of 1 to 40 tokens with their log-probabilities."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, 41, rows)
    ends = np.cumsum(lengths)
    ids, logprobs = draw.integers(0, 30_000, ends[-1], dtype=np.int32), -draw.exponential(1.0, ends[-1])
    prompts = draw.integers(0, 30_000, (rows // K + 1, 24), dtype=np.int32)
    words = np.array([f"word{n}" for n in range(1000)])
    outputs = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    return pl.DataFrame(
        {
            "sample_id": [f"{n:016x}" for n in range(rows)],
            "prompt_id": [f"{n // K:016x}" for n in range(rows)],
            "model": "models/0000-00000000",
            "instruction": "Generate a correct answer to this problem.",
            "k": [n % K for n in range(rows)],
            "prompt_ids": [prompts[n // K].tolist() for n in range(rows)],
            "completion": [" ".join(words[ids[tokens] % 1000]) for tokens in outputs],
            "completion_ids": [ids[tokens].tolist() for tokens in outputs],
            "logprobs": [logprobs[tokens].tolist() for tokens in outputs],
            "finish_reason": "eos",
            "seed": [n % K for n in range(rows)],
        },
        schema=Samples.create_empty().schema,
    )


def prepare_table(inputs: Path) -> None:
    """Writes the table that both sides write again."""
    samples(ROWS).write_parquet(inputs / "samples.parquet")


def prepare_version(inputs: Path) -> None:
    """Commits the version that both sides verify."""
    draft = Store(inputs / "run").draft(IDENTITY)
    for number, part in enumerate(parts_of(samples(ROWS))):
        draft.write(str(number), part)
    draft.commit()


def parts_of(table: pl.DataFrame) -> list[pl.DataFrame]:
    """The table, cut into parts of equal size."""
    return list(table.iter_slices(table.height // PARTS))


def megabytes(folder: Path) -> float:
    """The size of a folder's parts."""
    return sum(path.stat().st_size for path in folder.glob("part-*.parquet")) / MB


def commit_version(clock: Clock, inputs: Path) -> Work:
    """Writes the parts and commits them: checks of the schema and the keys, digests, manifest."""
    parts = parts_of(pl.read_parquet(inputs / "samples.parquet"))
    with clock:
        draft = Store(Path("run")).draft(IDENTITY)
        for number, part in enumerate(parts):
            draft.write(str(number), part)
        version = draft.commit()
    return Work(megabytes(version.path))


def write_plain_files(clock: Clock, inputs: Path, compression_level: int, row_group_rows: int) -> Work:
    """Writes the same parts with polars, flushes them to disk, and computes their digests."""
    parts = parts_of(pl.read_parquet(inputs / "samples.parquet"))
    with clock:
        for number, part in enumerate(parts):
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


_TABLE = f"{ROWS:,} samples in {PARTS} parts"
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
