"""Results of `hir compare`: the arms' learning curves, final accuracies with intervals, and paired differences.

An arm is one method on one task with one seed (`config.comparison`). `Results` is what `results.json` holds, of a
comparison that was run here and of the measurements that are shipped beside the configs. Reads and writes such files;
leaves running arms, tables and plots to `flows`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hir_core.errors import StoreError
from hir_core.store.files import read_json, write_json

_CLOSED = ConfigDict(extra="forbid")
# Student's t at 97.5 % for 1, 2, ... degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


# --- what is measured ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, config=_CLOSED)
class CurvePoint:
    """One model of an arm: its accuracy, and what it was trained on. None where a source does not say."""

    iteration: int
    accuracy: float
    low: float | None = None
    """Lower end of the accuracy's 95 % interval over the test prompts."""
    high: float | None = None
    majority_baseline: float | None = None
    """What always giving the most frequent answer would score."""
    samples: int | None = None
    """Samples that the triples were made from."""
    triples: int | None = None
    steps: int | None = None
    """Optimizer steps of this iteration."""
    seconds: float | None = None
    """Seconds of training."""
    further: Mapping[str, float | None] = field(default_factory=dict)
    """Other figures of a transcribed table, by the heading of their column."""


@dataclass(frozen=True, config=_CLOSED)
class ArmResult:
    """One arm's learning curve, from the first model to the last."""

    task: str
    method: str
    seed: int | None
    curve: tuple[CurvePoint, ...]
    model: str | None = None
    """Version of the last model: its id is a digest of every setting and of all that the model is made from."""
    made_with: Mapping[str, Any] = field(default_factory=dict)
    """Software, device and number of ranks of the last model's launch."""
    seconds: float | None = None
    """Seconds that launches spent on training, evaluating and sampling; starting them is not counted."""

    @property
    def final_accuracy(self) -> float:
        """Accuracy of the last model."""
        return self.curve[-1].accuracy


@dataclass(frozen=True, config=_CLOSED)
class Estimate:
    """A mean with the half-width of its 95 % interval; None where one value says nothing of its spread."""

    mean: float
    half_width: float | None = None


@dataclass(frozen=True, config=_CLOSED)
class MethodSummary:
    """Final accuracies of one method: means over the seeds."""

    method: str
    tasks: Mapping[str, Estimate]
    """Of each task that the method ran on."""
    mean: Estimate | None
    """Over the tasks; None where the method did not run on all of them."""
    training_share: float | None
    """Triples per sample, over all iterations but the warm start."""


@dataclass(frozen=True, config=_CLOSED)
class Difference:
    """How far a method ends ahead of the reference on the tasks and seeds that both ran, seed by seed."""

    method: str
    reference: str
    mean: float
    low: float | None
    """Lower end of the 95 % interval over the seeds; None for one seed."""
    high: float | None
    tasks: int
    seeds: int


@dataclass(frozen=True, config=_CLOSED)
class Results:
    """What a comparison, or a single run that is shown beside it, measured, and where the figures come from."""

    name: str
    source: str
    """`hir compare`, or the place that the figures were transcribed from."""
    date: str
    hir_version: str | None
    git_commit: str | None
    """Commit of the checkout that wrote the results, ending in `-dirty` where files were changed."""
    machine: str | None
    """In words; None where a source does not say."""
    seconds: float | None
    """Sum over the arms; a warm start that several arms share is counted for each of them."""
    config: Mapping[str, Any] | None
    """The comparison's settings."""
    arms_planned: int | None
    arms: tuple[ArmResult, ...] | None
    """None where only the summary is known."""
    summary: tuple[MethodSummary, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...] = ()
    """Further facts of the source, one sentence each."""


# --- what the figures say --------------------------------------------------------------------------------------------


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of some values and the half-width of its 95 % interval by Student's t.

    mean ± t(n - 1) * s / sqrt(n), with s the sample standard deviation.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Estimate(mean)
    freedom = len(values) - 1
    return Estimate(mean, t975(freedom) * statistics.stdev(values) / math.sqrt(len(values)))


def t975(freedom: int) -> float:
    """Student's t at 97.5 %; beyond the table by the first terms of its expansion around the normal quantile z.

    Abramowitz and Stegun, 26.7.5: t = z + (z^3 + z) / 4n + (5 z^5 + 16 z^3 + 3 z) / 96 n^2
    + (3 z^7 + 19 z^5 + 17 z^3 - 15 z) / 384 n^3.
    """
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    z = statistics.NormalDist().inv_cdf(0.975)
    second, third = 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    return z + (z**3 + z) / (4 * freedom) + second / (96 * freedom**2) + third / (384 * freedom**3)


def summarize(arms: Sequence[ArmResult], methods: Sequence[str], tasks: Sequence[str]) -> tuple[MethodSummary, ...]:
    """The final accuracies of those methods that have an arm, in the order given."""
    summaries = []
    for method in methods:
        own = [arm for arm in arms if arm.method == method]
        if not own:
            continue
        finals = {task: [arm.final_accuracy for arm in own if arm.task == task] for task in tasks}
        by_task = {task: estimate(values) for task, values in finals.items() if values}
        by_seed = _by_seed({(arm.task, arm.seed): arm.final_accuracy for arm in own})
        mean = estimate(by_seed) if len(by_task) == len(tasks) else None
        points = [point for arm in own for point in arm.curve if point.iteration > 0]
        samples, triples = sum(point.samples or 0 for point in points), sum(point.triples or 0 for point in points)
        summaries.append(MethodSummary(method, by_task, mean, triples / max(1, samples)))
    return tuple(summaries)


def difference(arms: Sequence[ArmResult], method: str, reference: str) -> Difference | None:
    """How far a method ends ahead of the reference; None where no task and seed has both."""
    final = {(arm.method, arm.task, arm.seed): arm.final_accuracy for arm in arms}
    gaps = {
        (task, seed): accuracy - final[reference, task, seed]
        for (name, task, seed), accuracy in final.items()
        if name == method and (reference, task, seed) in final
    }
    if not gaps:
        return None
    by_seed = _by_seed(gaps)
    gap, tasks = estimate(by_seed), len({task for task, _ in gaps})
    if gap.half_width is None:
        return Difference(method, reference, gap.mean, None, None, tasks, len(by_seed))
    low, high = gap.mean - gap.half_width, gap.mean + gap.half_width
    return Difference(method, reference, gap.mean, low, high, tasks, len(by_seed))


def _by_seed(values: Mapping[tuple[str, int | None], float]) -> list[float]:
    """Values by task and seed, averaged over the tasks of each seed."""
    seeds = dict.fromkeys(seed for _, seed in values)
    return [statistics.fmean(value for (_, of), value in values.items() if of == seed) for seed in seeds]


def statement(gap: Difference) -> str:
    """One sentence on whether a method ends ahead of the reference, and whether the seeds show it."""
    tasks, seeds = (f"{count} {word}{'' if count == 1 else 's'}" for count, word in
                    ((gap.tasks, "task"), (gap.seeds, "seed")))  # fmt: skip
    side = "ahead of" if gap.mean >= 0 else "behind"
    ends = f"{gap.method} ends {abs(100 * gap.mean):.1f} points {side} {gap.reference}"
    if gap.low is None or gap.high is None:
        return f"{ends} ({tasks}, {seeds}): one seed shows nothing"
    shown = "" if gap.low > 0 or gap.high < 0 else ": not shown, the interval contains 0"
    return f"{ends} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] ({tasks}, {seeds}){shown}"


# --- files -----------------------------------------------------------------------------------------------------------


def write_results(path: Path, results: Results) -> Path:
    """Writes results as JSON, without the fields that have their defaults, and returns the path."""
    return write_json(path, TypeAdapter(Results).dump_python(results, mode="json", exclude_defaults=True))


def read_results(path: Path) -> Results:
    """The results in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        StoreError: the file does not hold results.
    """
    try:
        return TypeAdapter(Results).validate_python(read_json(path))
    except ValidationError as error:
        raise StoreError(f"{path} does not hold results of a comparison: {error}") from None
