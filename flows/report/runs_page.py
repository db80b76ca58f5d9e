"""The page of `hir report RUN RUN ...`: several runs, their curves in the same plots, as one HTML text.

Reads the values of each run's report. The page is made as that of one run is: see `flows.report.page`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from flows.report.charts import NARROW, SERIES, WIDE, Figure, accuracy_point, decimal, legend, share, short
from flows.report.cost_charts import job_seconds
from flows.report.page import pairs, rendered
from flows.report.step_charts import COLUMNS, Measure, columns_of, from_to, spans_of
from flows.report.svg import Curve, Line, Point, curve_plot, line_plot
from flows.terminal.formatting import NOTHING, accuracy, clipped, duration, number
from hir_core.errors import ConfigError
from hir_core.inspect.report import Report
from hir_core.store.manifest import STAGES, canonical_json
from hir_core.store.training_log import TrainingStep

NAME_CHARACTERS = 32
Runs = Mapping[str, Report]
"""Reports by the name that the page gives each run."""


def runs_page(reports: Sequence[Report]) -> str:
    """The HTML that compares several runs.

    Raises:
        ConfigError: there are more runs than lines of a plot can be told apart.
    """
    if len(reports) > SERIES:
        raise ConfigError(f"{len(reports)} runs are more than one page shows: name at most {SERIES}")
    runs = _named(reports)
    return rendered(
        "runs.html",
        names=list(runs),
        folders=[report.run for report in reports],
        remarks=list(_remarks(runs)),
        header=FINALS,
        rows=[_final(name, report) for name, report in runs.items()],
        figures=[*_accuracy(runs), *_step_figures(runs), *_correct_samples(runs)],
        settings=list(_different_settings(runs)),
    )


def _named(reports: Sequence[Report]) -> dict[str, Report]:
    """The reports by the names of their runs; where two are the same, with their place."""
    names = [report.run for report in reports]
    return {
        clipped(name if names.count(name) == 1 else f"{name} ({place})", NAME_CHARACTERS): report
        for place, (name, report) in enumerate(zip(names, reports, strict=True), 1)
    }


def _remarks(runs: Runs) -> Iterator[str]:
    """What a reader must know before comparing."""
    if len({_tested_on(report) for report in runs.values() if report.evaluations}) > 1:
        yield (
            "The runs were not tested on the same prompts under the same settings, so their accuracies are not "
            "comparable."
        )


def _tested_on(report: Report) -> str:
    """A text that is equal for runs whose accuracies are comparable: settings and prompts of the main evaluations."""
    last = list(report.evaluations.values())[-1].version
    (version,) = (version for version in report.versions if version.version == last)
    return canonical_json([version.config, [parent for parent in version.parents if parent.startswith("prompts/")]])


FINALS = ("run", "last accuracy [95 %]", "first accuracy [95 %]", "iterations", "majority baseline",
          "correct samples", "loss", "optimizer steps", "tokens trained", "job time")  # fmt: skip


def _final(name: str, report: Report) -> list[str]:
    tested = [evaluation.overall for evaluation in report.evaluations.values()]
    rewards, models = list(report.rewards.values()), list(report.models.values())
    return [
        name,
        accuracy(tested[-1]) if tested else NOTHING,
        accuracy(tested[0]) if tested else NOTHING,
        number(max(report.models, default=None)),
        number(tested[-1].get("majority_baseline") if tested else None, ".3f"),
        share(rewards[-1].share_correct if rewards else None),
        number(models[-1].loss if models else None, ".3f"),
        number(sum(model.steps or 0 for model in models) or None),
        number(sum(model.tokens or 0 for model in models) or None),
        duration(job_seconds(report)),
    ]


def _accuracy(runs: Runs) -> Iterator[Figure]:
    """The learning curves."""
    lines = [
        Line(name, [accuracy_point(n, evaluation.overall) for n, evaluation in report.evaluations.items()], f"k{place}")
        for place, (name, report) in enumerate(runs.items())
    ]
    rows = [
        [name, str(n), accuracy(evaluation.overall)]
        for name, report in runs.items()
        for n, evaluation in report.evaluations.items()
    ]
    if rows:
        title, note = "Accuracy on unseen prompts", "Greedy answers; bars are 95 % Wilson intervals."
        plots = [line_plot(lines, title, "accuracy", decimal, top=1.0, size=size) for size in (NARROW, WIDE)]
        yield Figure(title, note, legend(lines), ("run", "iteration", "accuracy [95 %]"), rows, *plots)


def _correct_samples(runs: Runs) -> Iterator[Figure]:
    """How many of the samples were correct."""
    lines = [
        Line(name, [Point(n, rewards.share_correct) for n, rewards in report.rewards.items()], f"k{place}")
        for place, (name, report) in enumerate(runs.items())
    ]
    rows = [
        [name, str(n), share(rewards.share_correct)]
        for name, report in runs.items()
        for n, rewards in report.rewards.items()
    ]
    if rows:
        title, note = "Correct samples", "Of the samples that each iteration trains on."
        plot = line_plot(lines, title, "share of samples", decimal, top=1.0, size=NARROW)
        yield Figure(title, note, legend(lines), ("run", "iteration", "correct samples"), rows, plot)


def _step_figures(runs: Runs) -> Iterator[Figure]:
    """Loss, entropy and gradient norm of every optimizer step."""
    measures: dict[str, tuple[str, Measure]] = {
        "Loss by optimizer step": ("nats", lambda step: step.loss),
        "Gradient norm by optimizer step": ("norm", lambda step: step.grad_norm),
        "Entropy by optimizer step": ("nats per token", lambda step: -step.entropy),
    }
    steps = {
        name: [step for model in report.models.values() for step in model.training_steps]
        for name, report in runs.items()
    }
    if any(steps.values()):
        for title, (unit, measure) in measures.items():
            yield _step_figure(title, unit, measure, steps)


def _step_figure(
    title: str, unit: str, measure: Callable[[TrainingStep], float], steps: Mapping[str, Sequence[TrainingStep]]
) -> Figure:
    columns = columns_of(max(map(len, steps.values())))
    titles = [f"optimizer step {from_to(str(column[0]), str(column[-1]))}" for column in columns]
    curves = [
        Curve(name, spans_of([measure(step) for step in of_run], columns), f"k{place}")
        for place, (name, of_run) in enumerate(steps.items())
    ]
    plot = curve_plot(curves, columns, titles, title, unit, short, size=NARROW)
    note = f"Steps are counted over all iterations; of more than {COLUMNS} each point is the mean of several."
    means = [[number(span.mean if span else None, ".4g") for span in curve.spans] for curve in curves]
    rows = [list(row) for row in zip(titles, *means, strict=True)]
    return Figure(title, note, legend(curves), ("optimizer steps", *steps), rows, plot)


def _different_settings(runs: Runs) -> Iterator[list[str]]:
    """Settings of the last version of each stage that are not the same in all runs, with the value of each run."""
    by_run: dict[str, dict[str, str]] = {}
    for name, report in runs.items():
        last = {version.stage: version for version in report.versions}
        by_run[name] = {
            f"{stage}: {setting}": value
            for stage in STAGES
            if stage in last
            for setting, value in pairs(last[stage].config)
        }
    for setting in dict.fromkeys(setting for settings in by_run.values() for setting in settings):
        values = [settings.get(setting, NOTHING) for settings in by_run.values()]
        if len(set(values)) > 1:
            yield [setting, *values]
