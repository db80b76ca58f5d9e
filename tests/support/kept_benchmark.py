"""A result of a benchmark as `hir evaluate` keeps it, without a model that was asked."""

from hir_core.inspect.benchmarks import Benchmark, BenchmarkSettings, Figure
from hir_core.store.version import VersionRef

FIGURE = Figure(task="t", metric="acc", filter="none", value=0.5, stderr=0.25, n=4, num_fewshot=0, task_version="1")


def result(ref: VersionRef, value: float = 0.5, **settings: object) -> Benchmark:
    asked = {"task": "t", "num_fewshot": None, "limit": None, "is_plain": False, "tasks_sha256": None, "harness": "1"}
    return Benchmark(
        model=str(ref),
        model_sha256="0",
        settings=BenchmarkSettings.model_validate(asked | settings),
        instruction="Be \x1b[31m right.",
        created="2026-01-01T00:00:00+00:00",
        seconds=2.0,
        batch_size=8,
        device="cpu",
        dtype="float32",
        releases={},
        figures=(FIGURE.model_copy(update={"value": value}),),
    )
