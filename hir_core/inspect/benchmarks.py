"""The kept results of benchmarks, for `hir evaluate`, model cards and the report: one JSON file for a task of a model.

    runs/<name>/benchmarks/<model id>/<task>-<hash>.json      figures, and what they were measured with
    runs/<name>/benchmarks/<model id>/<task>-<hash>.jsonl     answers, where they were asked for

The hash is made from the settings that decide the figures, so that "is this done already?" is one look-up, and other
settings have another file. They lie beside the versions of the run, none of which they change. Which tasks there are
and how a model is asked is left to `inspect.evaluate`.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hir_core.errors import StoreError
from hir_core.store.files import read_json, write_json
from hir_core.store.manifest import canonical_json
from hir_core.store.store import Store
from hir_core.store.version import VersionRef, problems_of

FOLDER = "benchmarks"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BenchmarkSettings(_Frozen):
    """What decides the figures of a model in a task, but for rounding."""

    task: str
    """Name of a task, or of a group of tasks, in lm-evaluation-harness."""
    num_fewshot: int | None
    """Examples before each question; None: as many as the task itself says."""
    limit: float | None
    """Number of questions, or a share of them below 1; None for all."""
    is_plain: bool
    """Whether the model was asked without the instruction of its run."""
    tasks_sha256: str | None
    """Digest of the files in the folder of further tasks; None where no folder was named."""
    harness: str
    """Release of lm-evaluation-harness."""


class Figure(_Frozen):
    """One figure of a task."""

    task: str
    """The task; in a group of tasks one of them, or the group."""
    metric: str
    filter: str
    """Name of the filter by which the answer was read from the output, in lm-evaluation-harness; `none` for no filter.
    """
    value: float
    stderr: float | None
    """Standard error of the value."""
    n: int = Field(ge=0)
    """Number of questions."""
    num_fewshot: int | None
    task_version: str


def metric_name(metric: str, answer_filter: str) -> str:
    """How a figure's metric is named in a table: with the filter of the answers, where there is one."""
    return metric if answer_filter == "none" else f"{metric} ({answer_filter})"


class Benchmark(_Frozen):
    """The result of a model in a task, or in a group of tasks: the content of its file."""

    model: str
    """The model version, as `models/id`."""
    model_sha256: str
    """Digest of its manifest, and so of its files: equal ids can stand for different weights on two machines."""
    settings: BenchmarkSettings
    instruction: str | None
    """The instruction before each question; None where there was none."""
    created: str
    """When it was measured: ISO 8601, with its distance from UTC."""
    seconds: float
    batch_size: int | str
    device: str
    dtype: str
    """Number format of the weights."""
    releases: dict[str, str]
    """Releases of the packages that computed it."""
    figures: tuple[Figure, ...]


def benchmark_path(store: Store, ref: VersionRef, settings: BenchmarkSettings) -> Path:
    """The file of a result, whether it exists or not."""
    digest = hashlib.sha256(canonical_json(settings.model_dump(mode="json")).encode()).hexdigest()
    task = re.sub(r"[^\w.-]", "_", settings.task)[:80]
    return store.run_dir / FOLDER / ref.id / f"{task}-{digest[:8]}.json"


def write_benchmark(store: Store, ref: VersionRef, result: Benchmark) -> Path:
    """Keeps a result, in the place of an earlier one of the same settings.

    Raises:
        StoreError: the file cannot be written.
    """
    path = benchmark_path(store, ref, result.settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_json(path, result.model_dump(mode="json"))


def read_benchmark(path: Path) -> Benchmark:
    """A kept result.

    Raises:
        StoreError: the file cannot be read, or is damaged.
    """
    try:
        raw: Any = read_json(path)
        return Benchmark.model_validate(raw)
    except ValidationError as error:
        raise StoreError(f"{path} is no result of `hir evaluate`: {problems_of(error)}: remove it") from None


def benchmarks_of(store: Store, ref: VersionRef) -> list[Benchmark]:
    """The kept results of a model, the oldest first.

    Raises:
        StoreError: a file cannot be read, or is damaged.
    """
    paths = sorted((store.run_dir / FOLDER / ref.id).glob("*.json"))
    return sorted((read_benchmark(path) for path in paths), key=lambda result: result.created)
