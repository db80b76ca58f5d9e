"""The optimizer steps of a model's training, in two small Parquet files beside its weights.

    training_steps.parquet    what each step computed: equal trainings have equal files
    training_times.parquet    how long each step took, and how much memory: never the same twice

A rank writes them when it saves a model that it has trained, and the manifest covers them like any file of the version.
`hir report`, `hir sql` and trackers read them, the digests of these two files checked; weights need not be there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from hir_core.errors import VersionCorrupt
from hir_core.store.files import write_table
from hir_core.store.store import Store
from hir_core.store.version import VersionRef, differences, digests, remedy

STEPS, TIMES = "training_steps.parquet", "training_times.parquet"
MEASURED = ("seconds", "tokens_per_s", "peak_bytes")
"""The columns of the second file, beside `step`."""


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """One optimizer step, over all ranks and micro-batches. Each field is a column of one of the two files."""

    step: int
    """From 1."""
    learning_rate: float
    loss: float
    """The weighted sum of the terms, at the weights before the step; nats per token, as the next three."""
    supervised: float
    contrastive: float
    """In nats per triple."""
    entropy: float
    exclusion: float
    """In nats per prompt with excluded outputs."""
    grad_norm: float
    """Norm of the gradient of all weights, before it is clipped."""
    tokens: int
    """Tokens read, those of contrasts included; padding is not."""
    target_tokens: int
    """Tokens that are predicted."""
    seconds: float
    """Of this step alone."""
    tokens_per_s: float
    peak_bytes: int
    """The most memory that any rank has held up to the end of this step: of its GPU, or main memory without one."""


COLUMNS = {field.name: pl.Int64 if field.type == "int" else pl.Float64 for field in dataclasses.fields(TrainingStep)}


def write_training_log(folder: Path, steps: Sequence[TrainingStep]) -> None:
    """Writes both files into the draft of a model.

    Raises:
        StoreError: a file cannot be written.
    """
    table = pl.DataFrame([dataclasses.asdict(step) for step in steps], schema=COLUMNS)
    write_table(folder / STEPS, table.drop(MEASURED))
    write_table(folder / TIMES, table.select("step", *MEASURED))


def read_training_log(store: Store, model: VersionRef) -> pl.DataFrame:
    """The optimizer steps of a model in their order, with the columns of `TrainingStep`.

    No row where the model was not trained, or was made before its steps were kept.

    Raises:
        VersionNotFound: there is no such version.
        VersionCorrupt: a file is missing, or is not what the manifest says.
    """
    parts = {part.name: part for part in store.manifest(model).parts}
    if STEPS not in parts or TIMES not in parts:
        return pl.DataFrame(schema=COLUMNS)
    for name in (STEPS, TIMES):
        path = model.path / name
        problems = differences(parts[name], path, digests([path])[0]) if path.is_file() else [f"{name} is missing"]
        if problems:
            raise VersionCorrupt(f"{model} differs from its manifest: {'; '.join(problems)}{remedy(model.path)}")
    steps, times = (pl.read_parquet(model.path / name) for name in (STEPS, TIMES))
    return steps.join(times, on="step", validate="1:1").sort("step").select(*COLUMNS)
