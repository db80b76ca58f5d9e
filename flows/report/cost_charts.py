"""The figures of a report that say what a run costs: lengths, losses, time, speed and memory.

Reads what `hir_core.reporting` found, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from flows.report.charts import Facts, Figure, bars_figure, lines_figure, percent, share
from flows.report.svg import Layer, Line, Point
from flows.terminal.formatting import number, size
from hir_core.inspect.report import each

GB = 1e9
STEPS = (("training", "model"), ("saving", "save"), ("evaluating", "evaluation"), ("sampling", "samples"))
"""What a launch does, in order, and where its measurements stand."""
Steps = Sequence[tuple[str, dict[int, float]]]
"""Of each kind of step a measurement by iteration."""


def outputs(facts: Facts) -> Iterator[Figure]:
    """How long the outputs are and how many were cut off."""
    rounds = facts["rounds"]
    drawn, tested = list(each(rounds, "samples")), list(each(rounds, "evaluation"))
    if any(one["tokens_each"] for _, one in drawn):
        yield _lengths(drawn)
    if any(one["finish_reasons"] for _, one in [*drawn, *tested]):
        yield _cut_off(drawn, tested)


def training(facts: Facts) -> Iterator[Figure]:
    """The losses, where something was trained."""
    trained = [(n, one) for n, one in each(facts["rounds"], "model") if one["loss"] is not None]
    if trained:
        yield _losses(trained)


def resources(facts: Facts) -> Iterator[Figure]:
    """Time, speed and memory, as far as they were measured."""
    rounds = facts["rounds"]
    times = _steps(rounds, "step_seconds")
    if any(values for _, values in times):
        yield _times(rounds, times)
    speeds = _steps(rounds, "tokens_per_s")
    if any(values for _, values in speeds):
        yield _speeds(rounds, speeds)
    peaks = _steps(rounds, "peak_bytes")
    if any(values for _, values in peaks):
        yield _memory(rounds, peaks)


def step_seconds(facts: Facts) -> float:
    """Seconds that the launches spent in their steps, all together."""
    return sum(sum(values.values()) for _, values in _steps(facts["rounds"], "step_seconds"))


def _lengths(drawn: Sequence[tuple[int, Facts]]) -> Figure:
    def points(name: str) -> list[Point]:
        return [Point(n, (one["tokens_each"] or {}).get(name)) for n, one in drawn]

    lines = [Line("95 % are no longer", points("p95"), "k1"), Line("median", points("median"), "k0")]
    rows = [
        [str(n), *(number((one["tokens_each"] or {}).get(name), ",.10g") for name in ("min", "median", "p95", "max"))]
        for n, one in drawn
    ]
    header = ("iteration", "shortest", "median", "95 % are no longer", "longest")
    note = "Tokens of each sample, the one that ends it included."
    return lines_figure("Length of the samples", note, "tokens", lines, _count, header, rows)


def _cut_off(drawn: Sequence[tuple[int, Facts]], tested: Sequence[tuple[int, Facts]]) -> Figure:
    lines = [
        Line("samples", [Point(n, _cut_share(one)) for n, one in drawn], "k0"),
        Line("test answers", [Point(n, _cut_share(one)) for n, one in tested], "k1"),
    ]
    told = (("samples", drawn), ("test answers", tested))
    rows = [
        [str(n), what, number(one["rows"]), number(one["finish_reasons"].get("length", 0)), share(_cut_share(one))]
        for what, found in told
        for n, one in found
    ]
    most = max((point.y or 0.0 for line in lines for point in line.points), default=0.0)
    note = "Outputs that reached the limit of new tokens before the model ended them."
    header = ("iteration", "what", "outputs", "cut off", "share")
    lines = [line for line in lines if line.points]
    return lines_figure(
        "Cut off", note, "share", lines, percent, header, rows, top=1.0 if most > 0.5 else max(most, 0.1)
    )


def _cut_share(one: Facts) -> float | None:
    return one["finish_reasons"].get("length", 0) / one["rows"] if one["rows"] and one["finish_reasons"] else None


def _losses(trained: Sequence[tuple[int, Facts]]) -> Figure:
    names = ("loss", "supervised", "contrastive")
    lines = [
        Line("in all" if name == "loss" else name, [Point(n, one[name]) for n, one in trained], f"k{place}")
        for place, name in enumerate(names)
        if any(one[name] is not None for _, one in trained)
    ]
    more = ("entropy", "grad_norm", "logprob_gap")
    rows = [
        [
            str(n),
            *(number(one[name], ".3f") for name in (*names, *more)),
            number(one["steps"]),
            number(one["target_tokens"]),
            one["version"],
        ]
        for n, one in trained
    ]
    header = ("iteration", "loss", "supervised", "contrastive", "entropy term", "gradient norm",
              "gap to the sampler, nats", "optimizer steps", "target tokens", "version")  # fmt: skip
    note = "Means over the last pass over the triples; each iteration trains on other triples."
    return lines_figure("Loss", note, "nats per token", lines, _short, header, rows)


def _times(rounds: Sequence[Facts], times: Steps) -> Figure:
    layers = [Layer(name, values, f"k{place}") for place, (name, values) in enumerate(times)]
    rows = [
        [
            str(one["iteration"]),
            *(number(values.get(one["iteration"]), ",.2f") for _, values in times),
            number(_per_step(one["model"]), ",.3f"),
        ]
        for one in rounds
    ]
    note = "Seconds in the steps of each launch; what a sample step draws belongs to the iteration after its launch."
    header = ("iteration", *(f"{name}, s" for name, _ in times), "s per optimizer step")
    return bars_figure("Time", note, "seconds", layers, _short, header, rows)


def _per_step(model: Facts | None) -> float | None:
    return model["seconds"] / model["steps"] if model and model["seconds"] and model["steps"] else None


def _speeds(rounds: Sequence[Facts], speeds: Steps) -> Figure:
    there, lines = _lines(speeds)
    rows = [
        [str(one["iteration"]), *(number(values.get(one["iteration"]), ",.0f") for _, values in there)]
        for one in rounds
    ]
    note = "Tokens a second of all ranks together: sampled, or read in training, each contrast counted."
    header = ("iteration", *(f"{name}, tokens/s" for name, _ in there))
    return lines_figure("Speed", note, "tokens per second", lines, _count, header, rows)


def _memory(rounds: Sequence[Facts], peaks: Steps) -> Figure:
    there, lines = _lines(peaks, GB)
    rows = [[str(one["iteration"]), *(_bytes(values.get(one["iteration"])) for _, values in there)] for one in rounds]
    note = "The most that a rank has held up to the end of the step: of its GPU, or without one of main memory."
    return lines_figure("Memory", note, "GB on a rank", lines, _short, ("iteration", *(n for n, _ in there)), rows)


def _lines(steps: Steps, unit: float = 1.0) -> tuple[Steps, list[Line]]:
    """What was measured, and a line for each kind of step in the colour that it has everywhere."""
    lines = [
        Line(name, [Point(n, value / unit) for n, value in values.items()], f"k{place}")
        for place, (name, values) in enumerate(steps)
        if values
    ]
    return [(name, values) for name, values in steps if values], lines


def _steps(rounds: Sequence[Facts], measure: str) -> list[tuple[str, dict[int, float]]]:
    """One measurement of each kind of step, by iteration."""
    return [
        (name, {n: value for n, one in _measured(rounds, stage) if (value := one.get(measure)) is not None})
        for name, stage in STEPS
    ]


def _measured(rounds: Sequence[Facts], stage: str) -> Iterator[tuple[int, Any]]:
    if stage == "save":
        return ((n, one["save"]) for n, one in each(rounds, "model"))
    return each(rounds, stage)


def _bytes(count: float | None) -> str:
    return size(int(count)) if count is not None else number(None)


def _count(value: float) -> str:
    return f"{value:,.10g}" if value < 10_000 else f"{value / 1000:,.3g} k"


def _short(value: float) -> str:
    return f"{value:,.3g}"
