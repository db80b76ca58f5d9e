"""The figures of a report on what a run costs: output lengths, losses, time, speed and memory.

Each function that takes a `Report` yields its figure where the run has the data for it. Reads a report's values,
writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from flows.report.charts import Figure, bars_figure, lines_figure, percent, share, short, thousands
from flows.report.svg import Layer, Line, Point
from flows.terminal.formatting import NOTHING, number, size
from hir_core.inspect.report import Report
from hir_core.inspect.stage_reports import EvaluationReport, Measurements, SamplesReport

GB = 1e9


def output_lengths(report: Report) -> Iterator[Figure]:
    """How many tokens the samples have."""
    lengths = {n: samples.tokens_each for n, samples in report.samples.items()}
    if not any(lengths.values()):
        return
    lines = [
        Line("95th percentile", [Point(n, each["p95"] if each else None) for n, each in lengths.items()], "k1"),
        Line("median", [Point(n, each["median"] if each else None) for n, each in lengths.items()], "k0"),
    ]
    rows = [
        [str(n), *(number(count, ",.10g") for count in (each["min"], each["median"], each["p95"], each["max"]))]
        if each
        else [str(n), *[NOTHING] * 4]
        for n, each in lengths.items()
    ]
    header = ("iteration", "shortest", "median", "95th percentile", "longest")
    note = "Tokens of each sample, including the one that ends it."
    yield lines_figure("Length of the samples", note, "tokens", lines, thousands, header, rows)


def cut_off(report: Report) -> Iterator[Figure]:
    """How many outputs were cut off at the limit of new tokens."""

    def cut_share(outputs: SamplesReport | EvaluationReport) -> float | None:
        known = outputs.rows and outputs.finish_reasons
        return outputs.finish_reasons.get("length", 0) / outputs.rows if known else None

    kinds: dict[str, Mapping[int, SamplesReport | EvaluationReport]]
    kinds = {"samples": report.samples, "test answers": report.evaluations}
    if not any(outputs.finish_reasons for by_iteration in kinds.values() for outputs in by_iteration.values()):
        return
    lines = [
        Line(kind, [Point(n, cut_share(outputs)) for n, outputs in by_iteration.items()], f"k{place}")
        for place, (kind, by_iteration) in enumerate(kinds.items())
        if by_iteration
    ]
    rows = [
        [str(n), kind, number(outputs.rows), number(outputs.finish_reasons.get("length", 0)), share(cut_share(outputs))]
        for kind, by_iteration in kinds.items()
        for n, outputs in by_iteration.items()
    ]
    highest = max(point.y or 0.0 for line in lines for point in line.points)
    top = 1.0 if highest > 0.5 else max(highest, 0.1)
    note = "Outputs that reached the limit of new tokens before the model ended them."
    header = ("iteration", "what", "outputs", "cut off", "share")
    yield lines_figure("Cut off", note, "share", lines, percent, header, rows, top=top)


def losses(report: Report) -> Iterator[Figure]:
    """The training losses, where something was trained."""
    trained = {n: model for n, model in report.models.items() if model.loss is not None}
    if not trained:
        return
    values = {
        "total": {n: model.loss for n, model in trained.items()},
        "supervised": {n: model.supervised for n, model in trained.items()},
        "contrastive": {n: model.contrastive for n, model in trained.items()},
    }
    lines = [
        Line(name, [Point(n, loss) for n, loss in by_iteration.items()], f"k{place}")
        for place, (name, by_iteration) in enumerate(values.items())
        if any(loss is not None for loss in by_iteration.values())
    ]
    rows = [
        [
            str(n),
            number(model.loss, ".3f"),
            number(model.supervised, ".3f"),
            number(model.contrastive, ".3f"),
            number(model.entropy, ".3f"),
            number(model.grad_norm, ".3f"),
            number(model.logprob_gap, ".3f"),
            number(model.steps),
            number(model.target_tokens),
            model.version,
        ]
        for n, model in trained.items()
    ]
    header = ("iteration", "loss", "supervised", "contrastive", "entropy term", "gradient norm",
              "log-probability gap, nats", "optimizer steps", "target tokens", "version")  # fmt: skip
    note = "Means over the last pass over the triples; each iteration trains on other triples."
    yield lines_figure("Loss", note, "nats per token", lines, short, header, rows)


def times(report: Report) -> Iterator[Figure]:
    """How long each step of the jobs took."""
    steps = _measured_steps(report, lambda measured: measured.step_seconds)
    if not any(steps.values()):
        return
    layers = [Layer(name, values, f"k{place}") for place, (name, values) in enumerate(steps.items())]
    per_optimizer_step = {
        n: model.seconds / model.steps for n, model in report.models.items() if model.seconds and model.steps
    }
    rows = [
        [
            str(n),
            *(number(values.get(n), ",.2f") for values in steps.values()),
            number(per_optimizer_step.get(n), ",.3f"),
        ]
        for n in (iteration.iteration for iteration in report.iterations)
    ]
    note = "Seconds of each step of the jobs; sampling counts for the iteration that trains on the samples."
    header = ("iteration", *(f"{name}, s" for name in steps), "s per optimizer step")
    yield bars_figure("Time", note, "seconds", layers, short, header, rows)


def speeds(report: Report) -> Iterator[Figure]:
    """How many tokens per second each step processed."""
    steps = _measured_steps(report, lambda measured: measured.tokens_per_s)
    if any(steps.values()):
        lines = _lines(steps)
        rows = _rows(report, steps, lambda value: number(value, ",.0f"))
        note = "Tokens per second of all ranks together: sampled, or read in training, contrasts included."
        header = ("iteration", *(f"{line.label}, tokens/s" for line in lines))
        yield lines_figure("Speed", note, "tokens per second", lines, thousands, header, rows)


def memory(report: Report) -> Iterator[Figure]:
    """How much memory a rank held."""
    steps = _measured_steps(report, lambda measured: measured.peak_bytes)
    if any(steps.values()):
        lines = _lines(steps, GB)
        rows = _rows(report, steps, lambda value: NOTHING if value is None else size(int(value)))
        note = "The most memory that any rank held up to the end of the step: of its GPU, or main memory without one."
        header = ("iteration", *(line.label for line in lines))
        yield lines_figure("Memory", note, "GB on a rank", lines, short, header, rows)


def job_seconds(report: Report) -> float:
    """Seconds of all steps of all jobs together."""
    return sum(sum(values.values()) for values in _measured_steps(report, lambda m: m.step_seconds).values())


# --- measurements of steps -------------------------------------------------------------------------------------------


def _measured_steps(report: Report, measure: Callable[[Measurements], float | None]) -> dict[str, dict[int, float]]:
    """One measurement by kind of step, in the order in which a job does them, and by iteration."""
    steps: dict[str, dict[int, Measurements]] = {
        "training": dict(report.models),
        "saving": {n: model.saving for n, model in report.models.items()},
        "evaluating": dict(report.evaluations),
        "sampling": dict(report.samples),
    }
    return {
        name: {n: value for n, measured in by_iteration.items() if (value := measure(measured)) is not None}
        for name, by_iteration in steps.items()
    }


def _lines(steps: dict[str, dict[int, float]], unit: float = 1.0) -> list[Line]:
    """A line for each kind of step that was measured, in the colour that it has in every figure."""
    return [
        Line(name, [Point(n, value / unit) for n, value in values.items()], f"k{place}")
        for place, (name, values) in enumerate(steps.items())
        if values
    ]


def _rows(report: Report, steps: dict[str, dict[int, float]], form: Callable[[float | None], str]) -> list[list[str]]:
    """A row for each iteration, with a cell for each kind of step that was measured."""
    measured = [values for values in steps.values() if values]
    iterations = (iteration.iteration for iteration in report.iterations)
    return [[str(n), *(form(values.get(n)) for values in measured)] for n in iterations]
