"""The figures of a report on accuracy, scores and training data, each a plot with the table behind it.

Every public function that takes a `Report` yields its figures where the run has the data for them, and nothing where
it has not. Reads a report's values, writes nothing. The figures on costs are in `flows.report.cost_charts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flows.report.svg import Curve, Form, Layer, Line, Point, bar_plot, line_plot, swatch
from flows.terminal.formatting import NO_INSTRUCTION, NOTHING, accuracy, clipped, number
from hir_core.inspect.report import Report
from hir_core.inspect.stage_reports import (
    Accuracy,
    EvaluationReport,
    InstructionCount,
    SamplesReport,
    TriplesReport,
)
from hir_core.store.manifest import OTHER

NARROW, WIDE = (420, 250), (1000, 330)
"""Width and height of plots, in pixels."""
SERIES = 6
"""Lines or layers that have a colour of their own."""
GREYS = 4
NAME_CHARACTERS = 48
RULED_OUT = "only ruled out"
"""What became of a sample that demonstrates nothing, in place of an instruction."""
RAMP = 10
"""Steps of the ramp of colours from the lowest to the highest score."""


@dataclass(frozen=True)
class Figure:
    """A plot with its legend and the table behind it."""

    title: str
    note: str
    legend: Sequence[tuple[str, str]]
    """Picture and label of each series."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    plot: str
    wide_plot: str = ""
    """The same plot for a wide screen, where the figure has one."""


# --- accuracy --------------------------------------------------------------------------------------------------------


def unseen_accuracy(report: Report) -> Iterator[Figure]:
    """The learning curve: accuracy on test prompts, iteration by iteration."""
    if report.evaluations:
        note = "Greedy answers to prompts that are never trained on; bars are 95 % Wilson intervals."
        yield _accuracy_figure("Accuracy on unseen prompts", list(report.evaluations.items()), note)


def task_accuracy(report: Report) -> Iterator[Figure]:
    """Accuracy on each task, where there are several."""
    evaluations = report.evaluations
    tasks = list(dict.fromkeys(task for evaluation in evaluations.values() for task in evaluation.tasks))
    if len(tasks) < 2:
        return
    lines = [
        Line(
            clipped(task, NAME_CHARACTERS),
            [accuracy_point(n, evaluation.tasks.get(task, {})) for n, evaluation in evaluations.items()],
            f"k{place}",
        )
        for place, task in enumerate(tasks[:SERIES])
    ]
    trained_on = {task for evaluation in evaluations.values() for task in evaluation.overall.get("tasks", [])}
    rows = [
        [
            str(n),
            clipped(task, NAME_CHARACTERS),
            "yes" if task in trained_on else "no",
            accuracy(evaluation.tasks[task]),
            number(evaluation.tasks[task].get("majority_baseline"), ".3f"),
            number(evaluation.tasks[task].get("items")),
            number(evaluation.tasks[task].get("no_answer")),
            number(evaluation.tasks[task].get("not_judged")),
        ]
        for task in tasks
        for n, evaluation in evaluations.items()
        if task in evaluation.tasks
    ]
    header = (
        "iteration", "task", "trained on", "accuracy [95 %]", "majority baseline", "items", "no answer", "not judged"
    )  # fmt: skip
    note = f"The first {SERIES} of {len(tasks)} tasks." if len(tasks) > SERIES else "Each with its 95 % interval."
    yield lines_figure("Accuracy by task", note, "accuracy", lines, decimal, header, rows, top=1.0)


def further_accuracy(report: Report) -> Iterator[Figure]:
    """Accuracy in evaluations of other kinds than the main one, a figure for each kind."""
    for place, further in enumerate(report.further, 1):
        simple = [f"{name} {value}" for name, value in further.config.items() if not isinstance(value, (dict, list))]
        note = clipped("Under other settings: " + " · ".join(simple), 4 * NAME_CHARACTERS)
        yield _accuracy_figure(f"Further evaluation {place}", [(p.iteration, p) for p in further.points], note)


def _accuracy_figure(title: str, evaluations: Sequence[tuple[int, EvaluationReport]], note: str) -> Figure:
    lines = [Line("accuracy", [accuracy_point(n, evaluation.overall) for n, evaluation in evaluations], "k0")]
    baseline = [Point(n, evaluation.overall.get("majority_baseline")) for n, evaluation in evaluations]
    if any(point.y is not None for point in baseline):
        lines.append(Line("always the most frequent answer", baseline, "reference"))
    rows = [
        [
            str(n),
            accuracy(evaluation.overall),
            number(evaluation.overall.get("majority_baseline"), ".3f"),
            number(evaluation.overall.get("items")),
            number(evaluation.overall.get("no_answer")),
            number(evaluation.overall.get("not_judged")),
            number(evaluation.overall.get("mean_score"), ".3f"),
            evaluation.version,
        ]
        for n, evaluation in evaluations
    ]
    header = (
        "iteration", "accuracy [95 %]", "majority baseline", "items", "no answer", "not judged", "mean score", "version"
    )  # fmt: skip
    plots = [line_plot(lines, title, "accuracy", decimal, top=1.0, size=size) for size in (NARROW, WIDE)]
    return Figure(title, note, legend(lines), header, rows, *plots)


def accuracy_point(iteration: int, summary: Accuracy) -> Point:
    """An accuracy with its interval, as a point of a plot."""
    return Point(iteration, summary.get("accuracy"), summary.get("low"), summary.get("high"))


# --- scores ----------------------------------------------------------------------------------------------------------


def sample_scores(report: Report) -> Iterator[Figure]:
    """How many samples have each score."""
    rewards = report.rewards
    if not rewards:
        return

    def shares(counts: Iterable[int]) -> dict[int, float]:
        of_iteration = zip(rewards.items(), counts, strict=True)
        return {n: count / scored.rows if scored.rows else 0.0 for (n, scored), count in of_iteration}

    names = [f"score {low:.4g}" if low == high else f"score {low:.4g} to {high:.4g}" for low, high in report.score_bins]
    layers = []
    for place, name in enumerate(names):
        colour = round(RAMP * place / max(1, len(names) - 1))
        layers.append(Layer(name, shares(scored.histogram[place] for scored in rewards.values()), f"s{colour}"))
    layers.append(Layer("no answer", shares(scored.no_answer for scored in rewards.values()), "g2"))
    layers.append(Layer("not judged", shares(scored.not_judged for scored in rewards.values()), "g1"))
    layers = [layer for layer in layers if any(layer.values.values())] or layers[:1]
    rows = []
    for n, scored in rewards.items():
        reasons = [f"{clipped(why, NAME_CHARACTERS)} {number(count)}" for why, count in scored.unscored_reasons.items()]
        rows.append(
            [str(n), number(scored.rows), share(scored.share_correct), number(scored.mean, ".3f"),
             *map(number, (*scored.histogram, scored.no_answer, scored.not_judged)), " · ".join(reasons) or NOTHING,
             scored.version]
        )  # fmt: skip
    header = ("iteration", "samples", "right", "mean score", *names, "no answer", "not judged", "why", "version")
    note = "The scores of each iteration's samples, which the model of the previous iteration generated."
    yield bars_figure("Scores of the samples", note, "share of samples", layers, percent, header, rows, top=1.0)


def attribute_scores(report: Report) -> Iterator[Figure]:
    """The mean score of each attribute, where the reward scores several."""
    rewards = report.rewards
    names = list(dict.fromkeys(name for scored in rewards.values() for name in scored.attributes))
    if not names:
        return
    means = {name: [(n, scored.attributes.get(name, {})) for n, scored in rewards.items()] for name in names}
    lines = [
        Line(clipped(name, NAME_CHARACTERS), [Point(n, mean.get("mean")) for n, mean in means[name]], f"k{place}")
        for place, name in enumerate(names[:SERIES])
    ]
    rows = [
        [str(n), clipped(name, NAME_CHARACTERS), number(mean.get("mean"), ".3f"), number(mean.get("judged"))]
        for name in names
        for n, mean in means[name]
    ]
    note = f"The first {SERIES} of {len(names)}; the table has all." if len(names) > SERIES else ""
    header = ("iteration", "attribute", "mean score", "judged samples")
    yield lines_figure("Scores by attribute", note, "mean score", lines, decimal, header, rows)


# --- training data ---------------------------------------------------------------------------------------------------


def sample_outcomes(report: Report) -> Iterator[Figure]:
    """With which instruction samples became demonstrations, how many are only ruled out, and why others are neither."""
    relabeled = {n: triples for n, triples in report.triples.items() if n > 0}
    if not relabeled:
        return
    totals = {n: triples.rows_in or triples.rows for n, triples in relabeled.items()}
    instructions: dict[int, Counter[str]] = {n: Counter() for n in relabeled}
    rows = []
    for n, triples in relabeled.items():
        cells = []
        for counted in triples.instructions:
            instructions[n][_instruction(counted)] += counted.rows
            cells.append((_instruction(counted), counted.rows, number(counted.right)))
        if triples.only_ruled_out:
            instructions[n][RULED_OUT] = triples.only_ruled_out
            cells.append((RULED_OUT, triples.only_ruled_out, NOTHING))
        cells += [(f"left out: {reason}", count, NOTHING) for reason, count in triples.rejected.items()]
        for name, count, right in cells:
            part = share(count / totals[n] if totals[n] else None)
            rows.append([str(n), clipped(name, 2 * NAME_CHARACTERS), number(count), part, right, triples.version])
    rejected = {n: triples.rejected for n, triples in relabeled.items()}
    layers = [
        *_layers_of_names(instructions, totals, SERIES, "", "k"),
        *_layers_of_names(rejected, totals, GREYS, "left out: ", "g"),
    ]
    note = "The instruction of which each sample became a demonstration; why some became none, or are only ruled out."
    header = ("iteration", "instruction, or why left out", "rows", "share", "right outputs", "version")
    yield bars_figure("What the samples became", note, "share of samples", layers, percent, header, rows)


def _instruction(counted: InstructionCount) -> str:
    text = counted.instruction or NO_INSTRUCTION
    return f"{counted.name}: {text}" if counted.name else text


def _layers_of_names(
    counts: Mapping[int, Mapping[str, int]], totals: Mapping[int, int], most: int, prefix: str, style: str
) -> Iterator[Layer]:
    """A layer for each of the most frequent names, with its share of the total; the last one has all other names."""
    sums: Counter[str] = Counter()
    for by_name in counts.values():
        sums.update(by_name)
    names = sorted(sums, key=lambda name: (name == OTHER, -sums[name], name))
    groups = {name: {name} for name in names}
    if len(names) > most:
        groups = {name: {name} for name in names[: most - 1]} | {OTHER: {OTHER, *names[most - 1 :]}}
    for place, (name, group) in enumerate(groups.items()):
        values = {
            n: sum(by_name.get(member, 0) for member in group) / max(1, totals[n]) for n, by_name in counts.items()
        }
        yield Layer(prefix + clipped(name, NAME_CHARACTERS), values, f"{style}{place}")


def learned_outputs(report: Report) -> Iterator[Figure]:
    """From how many outputs a model learns, and how many prompts have both right and wrong samples."""
    if not report.samples:
        return

    def learned_share(triples: TriplesReport | None) -> float | None:
        return triples.outputs_with_gradient if triples else None

    def mixed_share(samples: SamplesReport) -> float | None:
        return None if samples.mixed_prompts is None or not samples.prompts else samples.mixed_prompts / samples.prompts

    triples_of = report.triples
    iterations = [(n, samples, triples_of.get(n)) for n, samples in report.samples.items()]
    lines = [
        Line("outputs learned from", [Point(n, learned_share(triples)) for n, _, triples in iterations], "k0"),
        Line("prompts with right and wrong samples", [Point(n, mixed_share(s)) for n, s, _ in iterations], "k1"),
        Line("different outputs", [Point(n, s.distinct / max(1, s.rows)) for n, s, _ in iterations], "k2"),
    ]
    lines = [line for line in lines if any(point.y is not None for point in line.points)] or lines[:1]
    rows = [
        [
            str(n),
            number(samples.rows),
            number(triples.judged_outputs if triples else None),
            share(learned_share(triples)),
            number(samples.prompts),
            number(samples.mixed_prompts),
            share(mixed_share(samples)),
            number(samples.distinct),
        ]
        for n, samples, triples in iterations
    ]
    header = ("iteration", "samples", "distinct judged outputs", "learned from", "prompts",
              "with right and wrong samples", "share", "different outputs")  # fmt: skip
    note = (
        "Outputs learned from: the share of the distinct judged outputs that are demonstrations or ruled out. Only "
        "where a prompt has right and wrong samples can the two be compared."
    )
    yield lines_figure("Outputs that are learned from", note, "share", lines, percent, header, rows, top=1.0)


# --- parts of figures ------------------------------------------------------------------------------------------------


def lines_figure(
    title: str, note: str, unit: str, lines: Sequence[Line], form: Form, header: Sequence[str],
    rows: Sequence[Sequence[str]], *, top: float | None = None,
) -> Figure:  # fmt: skip
    """A figure of lines in the narrow size."""
    plot = line_plot(lines, title, unit, form, top=top, size=NARROW)
    return Figure(title, note, legend(lines), header, rows, plot)


def bars_figure(
    title: str, note: str, unit: str, layers: Sequence[Layer], form: Form, header: Sequence[str],
    rows: Sequence[Sequence[str]], *, top: float | None = None,
) -> Figure:  # fmt: skip
    """A figure of stacked bars in the narrow size; the legend begins with the layer on top."""
    plot = bar_plot(layers, title, unit, form, top=top, size=NARROW)
    return Figure(title, note, legend(reversed(layers)), header, rows, plot)


def share(value: float | None) -> str:
    """A share in percent, for a table."""
    return number(value, ".1%")


def percent(value: float) -> str:
    """A share in whole percent, for an axis."""
    return f"{value:.0%}"


def thousands(value: float) -> str:
    """A large number, for an axis."""
    return f"{value:,.10g}" if value < 10_000 else f"{value / 1000:,.3g} k"


def short(value: float) -> str:
    """A number of three digits, for an axis."""
    return f"{value:,.3g}"


def legend(series: Iterable[Line | Curve | Layer]) -> list[tuple[str, str]]:
    """The legend of a figure's series, in their order."""
    return [(swatch(drawn), drawn.label) for drawn in series]


def decimal(value: float) -> str:
    """A share between 0 and 1, for an axis."""
    return f"{value:.3g}"
