"""The module that ranks of measured launches run: the steps of jobs, with the time and the memory of each.

`python -m measured_ranks JOB_DIR` does the steps of every `JOB_DIR/cases/*/job.json` with the library's own `Job`, and
leaves beside each a `measured.json`: a list of `Measured`, in the order in which things happened.
"""

import dataclasses
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zero_cases import run_cases

from hir_core.launch.rank import Rank
from hir_core.progress import Progress
from hir_core.store.files import write_json


@dataclass(frozen=True)
class Measured:
    """One action of a job: loading, gathering the weights, releasing the optimizer, or a step."""

    name: str
    """`load`, `gather`, `release`, or the type of the step."""
    seconds: float
    bytes_before: int
    """Of GPU memory in tensors; 0 without a GPU, as are the other two."""
    bytes_after: int
    peak_bytes: int
    """The most since its start, or since that of the step it is a part of."""
    tokens: int = 0
    """Read or written by a step."""
    tokens_per_s: float = 0.0
    """Of a train step without its first optimizer step, which is slower; of a sample step as it is."""


@dataclass(frozen=True)
class RecordingRank(Rank):
    """A rank that keeps the progress of training."""

    steps: list[Progress] = dataclasses.field(default_factory=list)

    def progress(self, progress: Progress) -> None:
        if progress.step == "train":
            self.steps.append(progress)

    def steady_speed(self) -> float:
        """Tokens per second of all optimizer steps but the first; 0 where there are fewer than two."""
        if len(self.steps) < 2:
            return 0.0
        first, last = self.steps[0], self.steps[-1]
        return (last.tokens - first.tokens) / (last.seconds - first.seconds)


class Recorder:
    """What was measured in one job."""

    def __init__(self, is_cuda: bool) -> None:
        self.is_cuda = is_cuda
        self.measured: list[Measured] = []
        self.depth = 0

    @contextmanager
    def action(self, name: str, result: dict[str, Any]) -> Iterator[None]:
        """Measures the block; `result` may get `tokens` and `tokens_per_s` in it."""
        import torch

        gc.collect()
        if self.is_cuda:
            torch.cuda.synchronize()
        if self.is_cuda and not self.depth:  # a part of a step must not forget the step's peak
            torch.cuda.reset_peak_memory_stats()
        before, started = self.allocated(), time.monotonic()
        self.depth += 1
        yield
        self.depth -= 1
        if self.is_cuda:
            torch.cuda.synchronize()
        seconds = time.monotonic() - started
        peak = torch.cuda.max_memory_allocated() if self.is_cuda else 0
        speed = {key: result[key] for key in ("tokens", "tokens_per_s") if result.get(key)}
        self.measured.append(Measured(name, seconds, before, self.allocated(), peak, **speed))

    def allocated(self) -> int:
        import torch

        return int(torch.cuda.memory_allocated()) if self.is_cuda else 0


@contextmanager
def recorded_calls(recorder: Recorder) -> Iterator[None]:
    """A context in which gathering weights and releasing the optimizer are actions of their own."""
    from hir_core.modeling import zero

    gathered_copy, release_optimizer = zero.gathered_copy, zero.release_optimizer

    def gather(*arguments: Any) -> Any:
        with recorder.action("gather", {}):
            return gathered_copy(*arguments)

    def release(*arguments: Any) -> None:
        with recorder.action("release", {}):
            release_optimizer(*arguments)

    zero.gathered_copy, zero.release_optimizer = gather, release
    try:
        yield
    finally:
        zero.gathered_copy, zero.release_optimizer = gathered_copy, release_optimizer


def run_case(rank: RecordingRank, device: Any) -> None:
    from hir_core.launch.job_spec import JobSpec
    from hir_core.worker.job import Job

    spec, recorder = JobSpec.read(rank.job_dir), Recorder(device.type == "cuda")
    with recorded_calls(recorder):
        with recorder.action("load", {}):
            job = Job(rank, spec, device)
        for step in spec.steps:
            result: dict[str, Any] = {}
            with recorder.action(step.type, result):
                result |= job.do(step)
                if step.type == "train":
                    result["tokens_per_s"] = rank.steady_speed()
            if rank.rank == 0:
                write_json(rank.job_dir / "measured.json", [dataclasses.asdict(one) for one in recorder.measured])


if __name__ == "__main__":
    run_cases(RecordingRank, run_case)
