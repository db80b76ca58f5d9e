"""A model version in the tasks of EleutherAI's lm-evaluation-harness, for `hir evaluate`.

The model is exported as for `hir serve`: an adapter merged into its model, and with the chat template that asks as the
run did. A process of its own (`worker.lm_harness`) then asks it the tasks, one after another, and each result is kept
as soon as it is there, so an interrupted call continues. Reads the store; writes the files of `inspect.benchmarks` and
a temporary folder.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from hir_core.dynamic_imports import check_extra
from hir_core.errors import ConfigError, JobFailed
from hir_core.inspect.benchmarks import (
    Benchmark,
    BenchmarkSettings,
    Figure,
    benchmark_path,
    read_benchmark,
    write_benchmark,
)
from hir_core.inspect.model_export import export_model
from hir_core.inspect.model_usage import model_usage
from hir_core.store.files import write_text
from hir_core.store.store import Store
from hir_core.store.version import VersionRef
from hir_core.time_limit import LimitedProcess, Work

LIMIT_S = 7 * 86400.0
"""Seconds that a reply of the process may take: a week, so that one that hangs ends some day."""
TASK_FILES = (".yaml", ".yml", ".py", ".json", ".jsonl")
"""Endings of the files of which a folder of tasks consists, but for data in other formats."""
RELEASES = ("torch", "transformers", "datasets")
OnStep = Callable[[str], None]


class Asked(NamedTuple):
    """The tasks that a model is asked, with options that lm-evaluation-harness has under the same names."""

    tasks: tuple[str, ...]
    num_fewshot: int | None = None
    limit: float | None = None
    batch_size: int | str = 8
    """Requests at once; `auto` for as many as memory allows."""
    include_path: Path | None = None
    is_plain: bool = False
    """Whether the instruction of the run is left out."""
    with_answers: bool = False
    """Whether prompts and answers are kept, too."""


class Results(NamedTuple):
    """The results of a model in the tasks, in the order in which they were named."""

    results: list[Benchmark]
    measured: int
    """How many of them were measured by this call; the others had been kept."""


def evaluate(store: Store, ref: VersionRef, asked: Asked, on_step: OnStep, *, again: bool = False) -> Results:
    """The results of a model in tasks; those that are kept already are not measured again.

    Args:
        on_step: called with what is done next, for a person who waits.
        again: whether to measure those, too, and to replace what was kept.

    Raises:
        ConfigError: lm-evaluation-harness is not installed, or a task cannot be asked; says why.
        StoreError: the model cannot be read, or a kept result is damaged.
        JobFailed: the process that asks ended by itself.
    """
    check_extra("lm_eval", "lm-eval", "hir evaluate")
    settings = {task: _settings(asked, task) for task in dict.fromkeys(asked.tasks)}
    paths = {task: benchmark_path(store, ref, of) for task, of in settings.items()}
    missing = [task for task, path in paths.items() if again or not path.exists()]
    if asked.with_answers and (
        without := [t for t in paths if t not in missing and not _answers_path(paths[t]).exists()]
    ):
        raise ConfigError(f"{', '.join(without)}: kept without the answers: --again measures it anew, with them")
    if missing:
        if not asked.is_plain:
            model_usage(store, ref)  # raises at once what the export would raise once all tasks are read
        _measure(store, ref, asked, [settings[task] for task in missing], on_step)
    return Results([read_benchmark(path) for path in paths.values()], len(missing))


def _settings(asked: Asked, task: str) -> BenchmarkSettings:
    return BenchmarkSettings(
        task=task,
        num_fewshot=asked.num_fewshot,
        limit=asked.limit,
        is_plain=asked.is_plain,
        tasks_sha256=None if asked.include_path is None else _digest(asked.include_path),
        harness=importlib.metadata.version("lm_eval"),
    )


def _digest(folder: Path) -> str:
    """A digest of the files that a folder of tasks consists of."""
    if not folder.is_dir():
        raise ConfigError(f"--include-path: {folder} is no folder: give the one that holds the YAML files of the tasks")
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in TASK_FILES and path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder)}\0{content}\0".encode())
    return digest.hexdigest()


def _answers_path(path: Path) -> Path:
    """The file of the answers, beside that of the figures."""
    return path.with_suffix(".jsonl")


def _measure(
    store: Store, ref: VersionRef, asked: Asked, missing: Sequence[BenchmarkSettings], on_step: OnStep
) -> None:
    """Asks a model the tasks that are missing, and keeps the result of each one."""
    with _harness(asked) as ask, tempfile.TemporaryDirectory(prefix="hir-evaluate-") as temporary:
        for settings in missing:  # before the model is exported: what is wrong with a task is found in seconds
            on_step(f"{settings.task}: reading its questions")
            ask({"type": "prepare", "task": settings.task})
        on_step(f"loading {ref}")
        folder = Path(temporary) / "model"
        exported = export_model(store, ref, folder, with_instruction=not asked.is_plain)
        loaded = ask({"type": "load", "folder": str(folder.resolve())})
        for settings in missing:
            on_step(f"{settings.task}: asking {ref} on {loaded['device']}")
            start = time.monotonic()
            found = ask({"type": "evaluate", "task": settings.task})
            result = Benchmark(
                model=str(ref),
                model_sha256=store.manifest(ref).sha256,
                settings=settings,
                instruction=exported.instruction or None,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                seconds=round(time.monotonic() - start, 1),
                batch_size=asked.batch_size,
                releases={name: importlib.metadata.version(name) for name in RELEASES},
                figures=tuple(Figure.model_validate(figure) for figure in found["figures"]),
                **loaded,
            )
            path = benchmark_path(store, ref, settings)
            if asked.with_answers:
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = [json.dumps(row, ensure_ascii=False) for row in found["answers"]]
                write_text(_answers_path(path), "\n".join(lines) + "\n")
            write_benchmark(store, ref, result)


@contextmanager
def _harness(asked: Asked) -> Iterator[Callable[[dict[str, Any]], Any]]:
    """A process with the harness, and the function that sends it a message and returns its reply."""
    settings = {
        "include_path": None if asked.include_path is None else str(asked.include_path.resolve()),
        "num_fewshot": asked.num_fewshot,
        "limit": asked.limit if asked.limit is None or asked.limit < 1 else int(asked.limit),
        "batch_size": asked.batch_size,
        "with_answers": asked.with_answers,
    }
    process = LimitedProcess(Work("hir_core.worker.lm_harness:make_harness", settings))

    def ask(message: dict[str, Any]) -> Any:
        result = process.process(message, LIMIT_S)
        if result.problem:
            raise JobFailed(f"the process that asks the model {result.problem}: memory may have run out")
        return result.value

    try:
        yield ask
    finally:
        process.end(0)
