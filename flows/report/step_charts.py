"""The figures of a report on single optimizer steps: loss and its terms, entropy, gradient, learning rate, speed.

The steps of all iterations follow one another on one axis. Where there are more of them than a plot has columns, a
column shows the mean of several, and the range of their values. Reads a report's values, writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flows.report.charts import NARROW, WIDE, Figure, legend, short, thousands
from flows.report.svg import Curve, Form, Span, curve_plot
from flows.terminal.formatting import number
from hir_core.inspect.report import Report
from hir_core.store.training_log import TrainingStep

COLUMNS = 80
"""The most columns of a plot: each has to be wide enough to point at, and adds to the size of the page."""
Measure = Callable[[TrainingStep], float]


@dataclass(frozen=True)
class Steps:
    """The optimizer steps of a report, with the columns in which plots show them."""

    steps: Sequence[TrainingStep]
    marks: Sequence[tuple[int, str]]
    """The first step of each iteration, counted over all iterations from 1, and the iteration's name."""

    @classmethod
    def of(cls, report: Report) -> Steps:
        """Those of all models of a report."""
        steps: list[TrainingStep] = []
        marks = []
        for iteration, model in report.models.items():
            if model.training_steps:
                marks.append((len(steps) + 1, str(iteration)))
                steps += model.training_steps
        return cls(steps, marks)

    @property
    def columns(self) -> list[range]:
        """The steps of each column, counted over all iterations from 1."""
        return columns_of(len(self.steps))

    @property
    def titles(self) -> list[str]:
        """The name of each column: its iterations, and its steps as each iteration counts them."""
        return [
            f"iteration {self._iterations(column)}, optimizer step {self._numbers(column)}" for column in self.columns
        ]

    def curve(self, label: str, measure: Measure, style: str) -> Curve:
        """One measurement, column by column."""
        return Curve(label, spans_of([measure(step) for step in self.steps], self.columns), style)

    def rows(self, curves: Sequence[Curve], form: str) -> list[list[str]]:
        """A row of a table for each column, with the mean of every curve."""
        means = [[number(span.mean if span else None, form) for span in curve.spans] for curve in curves]
        places = [(self._iterations(column), self._numbers(column)) for column in self.columns]
        return [[*place, *values] for place, *values in zip(places, *means, strict=True)]

    def _iterations(self, column: range) -> str:
        inside = [name for first, name in self.marks if first in column[1:]]
        begun = next(name for first, name in reversed(self.marks) if first <= column.start)
        return from_to(begun, inside[-1] if inside else begun)

    def _numbers(self, column: range) -> str:
        return from_to(str(self.steps[column.start - 1].step), str(self.steps[column.stop - 2].step))


def columns_of(steps: int) -> list[range]:
    """So many steps, from 1, divided into columns of about equally many."""
    count = min(steps, COLUMNS)
    return [range(1 + place * steps // count, 1 + (place + 1) * steps // count) for place in range(count)]


def spans_of(values: Sequence[float], columns: Sequence[range]) -> list[Span | None]:
    """What the values of each column are: None where a column is beyond the last value."""
    parts = (values[column.start - 1 : column.stop - 1] for column in columns)
    return [Span(sum(part) / len(part), min(part), max(part)) if part else None for part in parts]


def losses(report: Report) -> Iterator[Figure]:
    """The loss and those of its terms that are not 0 throughout."""
    terms: dict[str, Measure] = {
        "supervised": lambda step: step.supervised,
        "contrastive": lambda step: step.contrastive,
        "exclusion": lambda step: step.exclusion,
    }
    steps = Steps.of(report).steps
    there = {name: measure for name, measure in terms.items() if any(map(measure, steps))}
    measures: dict[str, Measure] = {"loss": lambda step: step.loss, **there}
    note = (
        "The loss that is trained on, and its terms before they are weighted. Iterations begin at the vertical lines."
    )
    if (most := max(map(len, columns_of(len(steps))), default=1)) > 1:
        note += f" Each point is the mean of up to {most} steps, in the range of their values."
    yield from _figure(report, "Loss by optimizer step", note, "nats", measures, short, ".4g", is_wide=True)


def entropy(report: Report) -> Iterator[Figure]:
    """How uncertain the model is of the next token."""
    note = "Mean entropy of the model's distribution at the tokens that it is trained on."
    measures: dict[str, Measure] = {"entropy": lambda step: -step.entropy}
    yield from _figure(report, "Entropy by optimizer step", note, "nats per token", measures, short, ".4g")


def gradient_norm(report: Report) -> Iterator[Figure]:
    """The norm of the gradient."""
    note = "Before the gradient is clipped."
    measures: dict[str, Measure] = {"gradient norm": lambda step: step.grad_norm}
    yield from _figure(report, "Gradient norm by optimizer step", note, "norm", measures, short, ".4g")


def learning_rate(report: Report) -> Iterator[Figure]:
    """The learning rate."""
    measures: dict[str, Measure] = {"learning rate": lambda step: step.learning_rate}
    yield from _figure(report, "Learning rate by optimizer step", "", "learning rate", measures, short, ".4g")


def speed(report: Report) -> Iterator[Figure]:
    """How many tokens per second each step read."""
    note = "Tokens per second of all ranks together, contrasts included."
    measures: dict[str, Measure] = {"tokens per second": lambda step: step.tokens_per_s}
    yield from _figure(report, "Speed by optimizer step", note, "tokens per second", measures, thousands, ",.0f")


def _figure(
    report: Report, title: str, note: str, unit: str, measures: dict[str, Measure], form: Form, cell: str,
    *, is_wide: bool = False,
) -> Iterator[Figure]:  # fmt: skip
    """A figure of measurements; none where no step was kept."""
    steps = Steps.of(report)
    if not steps.steps:
        return
    columns, titles = steps.columns, steps.titles
    curves = [steps.curve(name, measure, f"k{place}") for place, (name, measure) in enumerate(measures.items())]
    plots = [
        curve_plot(curves, columns, titles, title, unit, form, marks=steps.marks, size=size)
        for size in ((NARROW, WIDE) if is_wide else (NARROW,))
    ]
    header = ("iteration", "optimizer step", *measures)
    yield Figure(title, note, legend(curves), header, steps.rows(curves, cell), *plots)


def from_to(first: str, last: str) -> str:
    """The name of a range, by its ends."""
    return first if first == last else f"{first} to {last}"
