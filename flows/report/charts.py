"""The figures of a report: what a run learned and from what. Each is a plot and the table behind it.

Reads what `hir_core.reporting` found, writes nothing. What a run costs stands in `costs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.report.svg import Layer, Line, Point, bar_plot, line_plot, swatch
from flows.terminal.formatting import NOTHING, accuracy, clipped, number
from hir_core.inspect.report import each
from hir_core.store.manifest import OTHER

Facts = dict[str, Any]
NARROW, WIDE = (420, 250), (1000, 330)
SERIES = 6
"""Lines or layers that have a colour of their own."""
GREYS = 4
NAME = 48
RAMP = 10
"""Steps of the ramp from the lowest to the highest score."""


@dataclass(frozen=True)
class Figure:
    """A plot with its legend and the table behind it."""

    title: str
    note: str
    legend: Sequence[tuple[str, str]]
    """Picture and label."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    plot: str
    wide_plot: str = ""
    """The same for a wide screen, where the figure has one."""


def learning(facts: Facts) -> Iterator[Figure]:
    """What the model is worth, iteration by iteration."""
    rounds = facts["rounds"]
    tested = list(each(rounds, "evaluation"))
    if tested:
        yield _accuracy("Accuracy on unseen prompts", tested)
    tasks = list(dict.fromkeys(task for _, one in tested for task in one["tasks"]))
    if len(tasks) > 1:
        yield _by_task(tested, tasks)
    for number_of, other in enumerate(facts["further"], 1):
        points = [(point["iteration"], point) for point in other["points"]]
        yield _accuracy(f"Further evaluation {number_of}", points, _settings(other["config"]))


def learned_from(facts: Facts) -> Iterator[Figure]:
    """What the model drew, how it was scored, and what it was trained on."""
    rounds = facts["rounds"]
    scored = list(each(rounds, "rewards"))
    if scored:
        yield _scores(scored, facts["score_bins"])
    attributes = list(dict.fromkeys(name for _, one in scored for name in one["attributes"]))
    if attributes:
        yield _attributes(scored, attributes)
    relabeled = [(n, one) for n, one in each(rounds, "triples") if n > 0]
    if relabeled:
        yield _mix(relabeled)
    drawn = [(one["iteration"], one["samples"], one["triples"]) for one in rounds if one["samples"]]
    if drawn:
        yield _gradient(drawn)


def share(value: float | None) -> str:
    """A share in percent."""
    return number(value, ".1%")


def percent(value: float) -> str:
    """A share in whole percent, for an axis."""
    return f"{value:.0%}"


def lines_figure(
    title: str, note: str, unit: str, lines: Sequence[Line], form: Any, header: Sequence[str],
    rows: Sequence[Sequence[str]], *, top: float | None = None,
) -> Figure:  # fmt: skip
    """A figure of lines in the narrow size."""
    plot = line_plot(lines, title, unit, form, top=top, size=NARROW)
    return Figure(title, note, _legend(lines), header, rows, plot)


def bars_figure(
    title: str, note: str, unit: str, layers: Sequence[Layer], form: Any, header: Sequence[str],
    rows: Sequence[Sequence[str]], *, top: float | None = None,
) -> Figure:  # fmt: skip
    """A figure of stacked bars in the narrow size; the legend begins with the layer on top."""
    plot = bar_plot(layers, title, unit, form, top=top, size=NARROW)
    return Figure(title, note, _legend(list(reversed(layers))), header, rows, plot)


def style(place: int) -> str:
    """The style of the series at this place."""
    return f"k{min(place, SERIES - 1)}"


# --- accuracy --------------------------------------------------------------------------------------------------------


def _accuracy(title: str, tested: Sequence[tuple[int, Facts]], about: str = "") -> Figure:
    overall = [(n, one["overall"]) for n, one in tested]
    points = [Point(n, one.get("accuracy"), one.get("low"), one.get("high")) for n, one in overall]
    lines = [Line("accuracy", points, "k0")]
    baseline = [Point(n, one.get("majority_baseline")) for n, one in overall]
    if any(point.y is not None for point in baseline):
        lines.append(Line("always the most frequent answer", baseline, "reference"))
    rows = [
        [
            str(n),
            accuracy(one["overall"]),
            number(one["overall"].get("majority_baseline"), ".3f"),
            number(one["overall"].get("items")),
            number(one["overall"].get("not_judged")),
            number(one["overall"].get("mean_score"), ".3f"),
            one["version"],
        ]
        for n, one in tested
    ]
    header = ("iteration", "accuracy [95 %]", "majority baseline", "items", "not judged", "mean score", "version")
    note = about or "Greedy answers to prompts that are never trained on; bars are 95 % Wilson intervals."
    plots = [line_plot(lines, title, "accuracy", _decimal, top=1.0, size=size) for size in (NARROW, WIDE)]
    return Figure(title, note, _legend(lines), header, rows, *plots)


def _by_task(tested: Sequence[tuple[int, Facts]], tasks: Sequence[str]) -> Figure:
    def points(task: str) -> list[Point]:
        found = [(n, one["tasks"].get(task, {})) for n, one in tested]
        return [Point(n, one.get("accuracy"), one.get("low"), one.get("high")) for n, one in found]

    lines = [Line(clipped(task, NAME), points(task), style(n)) for n, task in enumerate(tasks[:SERIES])]
    own = {task for _, one in tested for task in one["overall"].get("tasks", [])}
    rows = [
        [
            str(n),
            clipped(task, NAME),
            "yes" if task in own else "no",
            accuracy(found),
            number(found.get("majority_baseline"), ".3f"),
            number(found.get("items")),
            number(found.get("not_judged")),
        ]
        for task in tasks
        for n, one in tested
        if (found := one["tasks"].get(task))
    ]
    header = ("iteration", "task", "trained on", "accuracy [95 %]", "majority baseline", "items", "not judged")
    note = f"The first {SERIES} of {len(tasks)} tasks." if len(tasks) > SERIES else "Each with its 95 % interval."
    return lines_figure("Accuracy by task", note, "accuracy", lines, _decimal, header, rows, top=1.0)


# --- scores ----------------------------------------------------------------------------------------------------------


def _scores(scored: Sequence[tuple[int, Facts]], bars: Sequence[Sequence[float]]) -> Figure:
    names = [f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}" for low, high in bars]
    layers = [
        Layer(f"score {name}", _shares(scored, lambda one, bar=place: one["histogram"][bar]), _ramp(place, names))
        for place, name in enumerate(names)
    ]
    layers.append(Layer("cannot be judged", _shares(scored, lambda one: one["not_judged"]), "g1"))
    rows = [
        [str(n), number(one["rows"]), share(one["share_correct"]), number(one["mean"], ".3f"),
         *map(number, one["histogram"]), number(one["not_judged"]), _counted(one["not_judged_reasons"]), one["version"]]
        for n, one in scored
    ]  # fmt: skip
    header = ("iteration", "samples", "right", "mean score", *(f"score {name}" for name in names),
              "cannot be judged", "why not", "version")  # fmt: skip
    note = "What the samples of each iteration scored, drawn by the model of the iteration before."
    return bars_figure("Scores of the samples", note, "share of samples", _used(layers), percent, header, rows, top=1.0)


def _ramp(place: int, names: Sequence[str]) -> str:
    return f"s{round(RAMP * place / max(1, len(names) - 1))}"


def _attributes(scored: Sequence[tuple[int, Facts]], names: Sequence[str]) -> Figure:
    means = {name: [(n, one["attributes"].get(name, {})) for n, one in scored] for name in names}
    lines = [
        Line(clipped(name, NAME), [Point(n, one.get("mean")) for n, one in means[name]], style(place))
        for place, name in enumerate(names[:SERIES])
    ]
    rows = [
        [str(n), clipped(name, NAME), number(one.get("mean"), ".3f"), number(one.get("judged"))]
        for name in names
        for n, one in means[name]
    ]
    note = f"The first {SERIES} of {len(names)}; the table has all." if len(names) > SERIES else ""
    header = ("iteration", "attribute", "mean score", "judged samples")
    return lines_figure("Scores by attribute", note, "mean score", lines, _decimal, header, rows)


# --- what is trained on ----------------------------------------------------------------------------------------------


def _mix(relabeled: Sequence[tuple[int, Facts]]) -> Figure:
    instructions = _most((_key(told), told["rows"]) for _, one in relabeled for told in one["instructions"])
    reasons = _most((reason, count) for _, one in relabeled for reason, count in one["rejected"].items())
    kept = {n: {_key(told): told["rows"] for told in one["instructions"]} for n, one in relabeled}
    left = {n: one["rejected"] for n, one in relabeled}
    totals = {n: one["rows_in"] or one["rows"] for n, one in relabeled}
    layers = [
        Layer(clipped(name, NAME), _part(kept, name, instructions, SERIES, totals), style(place))
        for place, name in enumerate(_shown(instructions, SERIES))
    ]
    layers += [
        Layer(f"left out: {clipped(name, NAME)}", _part(left, name, reasons, GREYS, totals), f"g{place}")
        for place, name in enumerate(_shown(reasons, GREYS))
    ]
    rows = [[str(n), *cells] for n, one in relabeled for cells in _mix_rows(one, totals[n])]
    note = "What each sample became a demonstration of, and why some became none."
    header = ("iteration", "instruction, or why left out", "rows", "share", "right outputs", "version")
    return bars_figure("What the samples became", note, "share of samples", layers, percent, header, rows)


def _mix_rows(one: Facts, total: int) -> Iterator[list[str]]:
    for told in one["instructions"]:
        part = share(told["rows"] / total if total else None)
        yield [clipped(_key(told), 2 * NAME), number(told["rows"]), part, number(told["right"]), one["version"]]
    for reason, count in one["rejected"].items():
        part = share(count / total if total else None)
        yield [f"left out: {clipped(reason, 2 * NAME)}", number(count), part, NOTHING, one["version"]]


def _key(told: Facts) -> str:
    return f"{told['name']}: {told['instruction']}" if told["name"] else str(told["instruction"])


def _gradient(drawn: Sequence[tuple[int, Facts, Facts | None]]) -> Figure:
    def trained(samples: Facts, triples: Facts | None) -> float | None:
        return triples["samples_trained"] / samples["rows"] if triples and samples["rows"] else None

    def mixed(samples: Facts) -> float | None:
        there = samples["mixed_prompts"]
        return None if there is None or not samples["prompts"] else there / samples["prompts"]

    lines = [
        Line("samples that train", [Point(n, trained(samples, triples)) for n, samples, triples in drawn], "k0"),
        Line("prompts with right and wrong samples", [Point(n, mixed(samples)) for n, samples, _ in drawn], "k1"),
        Line("different outputs", [Point(n, s["distinct"] / max(1, s["rows"])) for n, s, _ in drawn], "k2"),
    ]
    rows = [
        [
            str(n),
            number(samples["rows"]),
            number(triples["samples_trained"] if triples else None),
            share(trained(samples, triples)),
            number(samples["prompts"]),
            number(samples["mixed_prompts"]),
            share(mixed(samples)),
            number(samples["distinct"]),
        ]
        for n, samples, triples in drawn
    ]
    header = ("iteration", "samples", "that train", "share", "prompts", "with right and wrong samples", "share",
              "different outputs")  # fmt: skip
    note = "Samples that are part of the loss. Only prompts whose samples differ tell right from wrong by comparison."
    return lines_figure(
        "Samples that carry a gradient", note, "share", _measured(lines), percent, header, rows, top=1.0
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _legend(series: Iterable[Line | Layer]) -> list[tuple[str, str]]:
    return [(swatch(one), one.label) for one in series]


def _measured(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if any(point.y is not None for point in line.points)] or list(lines[:1])


def _used(layers: Sequence[Layer]) -> list[Layer]:
    return [layer for layer in layers if any(layer.values.values())] or list(layers[:1])


def _shares(found: Sequence[tuple[int, Facts]], count: Callable[[Facts], int]) -> dict[int, float]:
    return {n: count(one) / one["rows"] if one["rows"] else 0.0 for n, one in found}


def _most(counts: Iterable[tuple[str, int]]) -> list[str]:
    """Names, the most frequent first."""
    totals: dict[str, int] = {}
    for name, count in counts:
        totals[name] = totals.get(name, 0) + count
    return sorted(totals, key=lambda name: (name == OTHER, -totals[name], name))


def _shown(names: Sequence[str], most: int) -> list[str]:
    return list(names) if len(names) <= most else [*names[: most - 1], OTHER]


def _part(counts: dict[int, dict[str, int]], name: str, names: Sequence[str], most: int,
          totals: dict[int, int]) -> dict[int, float]:  # fmt: skip
    """The share that one name has at each iteration; `other` has all that are not shown."""
    meant = {name, *(names[most - 1 :] if name == OTHER and len(names) > most else ())}
    return {n: sum(c for key, c in found.items() if key in meant) / max(1, totals[n]) for n, found in counts.items()}


def _counted(counts: dict[str, int]) -> str:
    return " · ".join(f"{clipped(name, NAME)} {number(count)}" for name, count in counts.items()) or NOTHING


def _settings(config: Facts) -> str:
    named = [f"{name} {value}" for name, value in config.items() if not isinstance(value, (dict, list))]
    return clipped("Under other settings: " + " · ".join(named), 4 * NAME)


def _decimal(value: float) -> str:
    return f"{value:.3g}"
