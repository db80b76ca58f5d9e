"""SVG pictures of a report: plots of lines with intervals, curves of many points, and stacked bars.

Pictures are built as element trees, which escape every text. Colours are classes that the page's style sheet defines,
so that the same picture serves light and dark pages. Points and bars have their values as tooltips. Reads and writes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from xml.etree import ElementTree as Tree

from flows.terminal.formatting import printable

Form = Callable[[float], str]
"""How a plot writes a value."""
LEFT, RIGHT, TOP, BOTTOM = 68, 12, 26, 34
TICKS = 5
DASHES = ("", "7 4", "2 3", "9 3 2 3", "1 3", "12 3")


class Point(NamedTuple):
    """A value at an iteration, with its interval where there is one; None where nothing was measured."""

    x: int
    y: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Line:
    """A series of points, in the colour and dashes of its style: `k0`, `k1`, ... or `reference`."""

    label: str
    points: Sequence[Point]
    style: str


@dataclass(frozen=True)
class Layer:
    """One layer of stacked bars: its value at each iteration, and the style that colours it."""

    label: str
    values: dict[int, float]
    style: str


@dataclass(frozen=True)
class Area:
    """The area of a plot: its size in pixels, and the ranges of its axes."""

    width: int
    height: int
    xs: tuple[float, float]
    top: float
    bottom: float = 0.0

    def x(self, value: float) -> float:
        """The horizontal position of an iteration, in pixels."""
        low, high = self.xs
        return round(LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """The vertical position of a value, in pixels."""
        share = (value - self.bottom) / (self.top - self.bottom)
        return round(self.height - BOTTOM - share * (self.height - TOP - BOTTOM), 1)


def line_plot(
    lines: Sequence[Line], label: str, unit: str, form: Form, *, top: float | None = None, size: tuple[int, int]
) -> str:
    """A plot of lines over iterations, its axis from 0 up.

    Args:
        lines: the series, in the order of the legend.
        label: what the picture shows, for readers who cannot see it.
        unit: the unit of the values, written above the axis.
        form: how a value is written.
        top: upper end of the axis; None means a round number above all values.
        size: width and height in pixels.
    """
    points = [point for line in lines for point in line.points]
    values = [value for point in points for value in (point.y, point.high) if value is not None]
    xs = [point.x for point in points] or [0]
    area = Area(*size, (min(xs) - 0.4, max(xs) + 0.4), top or _round_up(max(values, default=1.0)))
    svg = _canvas(area, label, unit, form, _thinned(range(min(xs), max(xs) + 1), area))
    for line in lines:
        _draw_line(svg, area, line, form)
    return Tree.tostring(svg, encoding="unicode")


def bar_plot(
    layers: Sequence[Layer], label: str, unit: str, form: Form, *, top: float | None = None, size: tuple[int, int]
) -> str:
    """A plot of stacked bars over iterations, the first layer at the bottom; the arguments are those of `line_plot`."""
    xs = sorted({x for layer in layers for x in layer.values}) or [0]
    sums = [sum(layer.values.get(x, 0.0) for layer in layers) for x in xs]
    area = Area(*size, (xs[0] - 0.6, xs[-1] + 0.6), top or _round_up(max(sums)))
    svg = _canvas(area, label, unit, form, _thinned(xs, area))
    wide = round(0.72 * (area.x(1) - area.x(0)), 1)
    for x in xs:
        below = 0.0
        for layer in layers:
            value = layer.values.get(x, 0.0)
            if value > 0:
                upper, lower = area.y(below + value), area.y(below)
                box = {"class": layer.style, "x": f"{area.x(x) - wide / 2:.1f}", "y": f"{upper}", "width": f"{wide}"}
                bar = Tree.SubElement(svg, "rect", {**box, "height": f"{max(0.5, lower - upper):.1f}"})
                Tree.SubElement(bar, "title").text = printable(f"{layer.label}, iteration {x}: {form(value)}")
            below += value
    return Tree.tostring(svg, encoding="unicode")


class Span(NamedTuple):
    """The values of a curve within one column of a plot: their mean, the smallest and the largest."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A series of many values: a span for each column of the plot, None where there is none; drawn as a `Line` is."""

    label: str
    spans: Sequence[Span | None]
    style: str


def curve_plot(
    curves: Sequence[Curve],
    columns: Sequence[range],
    titles: Sequence[str],
    label: str,
    unit: str,
    form: Form,
    *,
    marks: Sequence[tuple[int, str]] = (),
    size: tuple[int, int],
) -> str:
    """A plot of curves over optimizer steps, each the means of its columns within the range of their values.

    Whatever column the mouse is over has all its values as a tooltip.

    Args:
        curves: the series, in the order of the legend.
        columns: the optimizer steps of each column; they follow one another.
        titles: what a column's tooltip begins with.
        marks: steps before which a vertical line is drawn, and its name.
    """
    spans = [span for curve in curves for span in curve.spans if span is not None]
    high, low = max((span.high for span in spans), default=1.0), min((span.low for span in spans), default=0.0)
    last = columns[-1].stop - 1
    bottom = -_round_up(-low) if low < 0 else 0.0
    area = Area(*size, (0.5, last + 0.5), _round_up(high) if high > 0 or not bottom else 0.0, bottom)
    every = math.ceil(_step(last))
    svg = _canvas(area, label, unit, form, range(every, last + 1, every), "step")
    _draw_marks(svg, area, marks)
    for curve in curves:
        _draw_curve(svg, area, curve, columns)
    for place, (steps, title) in enumerate(zip(columns, titles, strict=True)):
        values = [(curve.label, span.mean) for curve in curves if (span := curve.spans[place]) is not None]
        left, right = area.x(steps.start - 0.5), area.x(steps.stop - 0.5)
        box = {"class": "column", "x": f"{left}", "y": f"{TOP}", "width": f"{right - left:.1f}"}
        column = Tree.SubElement(svg, "rect", {**box, "height": f"{area.height - TOP - BOTTOM}"})
        lines = [title, *(f"{name}: {form(value)}" for name, value in values)]
        Tree.SubElement(column, "title").text = "\n".join(map(printable, lines))
    return Tree.tostring(svg, encoding="unicode")


def swatch(series: Line | Curve | Layer) -> str:
    """A piece of a line or a bar as it looks in the plot, for a legend."""
    svg = Tree.Element("svg", {"class": f"swatch {series.style}", "viewBox": "0 0 26 12", "aria-hidden": "true"})
    if isinstance(series, Layer):
        Tree.SubElement(svg, "rect", x="6", y="1", width="14", height="11", rx="2")
        return Tree.tostring(svg, encoding="unicode")
    line = {"class": "line", "points": "0,6 26,6", "stroke-dasharray": _dashes(series.style) or "none"}
    Tree.SubElement(svg, "polyline", line)
    if isinstance(series, Line) and series.style != "reference":
        Tree.SubElement(svg, "circle", {"class": "dot", "cx": "13", "cy": "6", "r": "3.5"})
    return Tree.tostring(svg, encoding="unicode")


# --- axes and marks --------------------------------------------------------------------------------------------------


def _canvas(
    area: Area, label: str, unit: str, form: Form, ticks: Sequence[int], axis: str = "iteration"
) -> Tree.Element:
    """An empty plot with its axes."""
    svg = Tree.Element("svg", viewBox=f"0 0 {area.width} {area.height}", role="img")
    svg.set("aria-label", printable(label))
    draw_text(svg, unit, x=4, y=12)
    step = _step(area.top - area.bottom)
    places = range(math.ceil(area.bottom / step - 1e-9), math.floor(area.top / step + 1e-9) + 1)
    for value in (step * place for place in places):
        y = area.y(value)
        _stroke(svg, "grid", x1=LEFT, x2=area.width - RIGHT, y1=y, y2=y)
        draw_text(svg, form(value), x=LEFT - 6, y=y + 4, anchor="end")
    draw_text(svg, axis, x=LEFT - 6, y=area.height - BOTTOM + 20, anchor="end")
    for x in ticks:
        anchor = "end" if area.x(x) > area.width - RIGHT - 12 else "middle"
        draw_text(svg, f"{x:,}", x=area.x(x), y=area.height - BOTTOM + 20, anchor=anchor)
    return svg


def _thinned(xs: Sequence[int], area: Area) -> Sequence[int]:
    """As many iterations as have room for their numbers below the axis."""
    return xs[:: -(-len(xs) // (12 if area.width < 600 else 24))]


def _draw_marks(svg: Tree.Element, area: Area, marks: Sequence[tuple[int, str]]) -> None:
    """Vertical lines before these steps, with names where there is room for them."""
    written = -math.inf
    for step, name in marks:
        x = area.x(step - 0.5)
        _stroke(svg, "mark", x1=x, x2=x, y1=TOP, y2=area.height - BOTTOM)
        if x - written >= 30:
            written = x
            draw_text(svg, name, x=x, y=TOP - 3, anchor="middle")


def _draw_curve(svg: Tree.Element, area: Area, curve: Curve, columns: Sequence[range]) -> None:
    drawn = [
        (area.x((steps.start + steps.stop - 1) / 2), span)
        for steps, span in zip(columns, curve.spans, strict=True)
        if span is not None
    ]
    group = Tree.SubElement(svg, "g", {"class": curve.style})
    if any(span.low < span.high for _, span in drawn):
        edge = [(x, span.high) for x, span in drawn] + [(x, span.low) for x, span in reversed(drawn)]
        Tree.SubElement(group, "polygon", {"class": "band", "points": _points(area, edge)})
    if len(drawn) == 1:
        ((x, span),) = drawn
        Tree.SubElement(group, "circle", {"class": "dot", "cx": f"{x}", "cy": f"{area.y(span.mean)}", "r": "3.5"})
    _draw_polyline(group, _points(area, [(x, span.mean) for x, span in drawn]), curve.style)


def _points(area: Area, points: Iterable[tuple[float, float]]) -> str:
    """Points of a shape, from positions in pixels and values."""
    return " ".join(f"{x},{area.y(value)}" for x, value in points)


def _draw_polyline(group: Tree.Element, points: str, style: str) -> None:
    line = {"class": "line", "points": points}
    if dashes := _dashes(style):
        line["stroke-dasharray"] = dashes
    Tree.SubElement(group, "polyline", line)


def _dashes(style: str) -> str:
    """The dashes of a line, by which lines differ where colours cannot be told apart."""
    return "5 4" if style == "reference" else DASHES[int(style[1:]) % len(DASHES)]


def _draw_line(svg: Tree.Element, area: Area, line: Line, form: Form) -> None:
    measured = [(point, point.y) for point in line.points if point.y is not None]
    group = Tree.SubElement(svg, "g", {"class": line.style})
    _draw_polyline(group, _points(area, [(area.x(point.x), y) for point, y in measured]), line.style)
    for point, y in measured:
        x, tooltip = area.x(point.x), f"{line.label}, iteration {point.x}: {form(y)}"
        if point.low is not None and point.high is not None:
            tooltip += f" [{form(point.low)}, {form(point.high)}]"
            _stroke(group, "whisker", x1=x, x2=x, y1=area.y(point.low), y2=area.y(point.high))
            for end in (point.low, point.high):
                _stroke(group, "whisker", x1=x - 4, x2=x + 4, y1=area.y(end), y2=area.y(end))
        marks = [("dot", "3.5"), ("touch", "12")] if line.style != "reference" else [("touch", "8")]
        for style, radius in marks:
            dot = Tree.SubElement(group, "circle", {"class": style, "cx": f"{x}", "cy": f"{area.y(y)}", "r": radius})
        Tree.SubElement(dot, "title").text = printable(tooltip)


def _stroke(parent: Tree.Element, style: str, **ends: float) -> None:
    Tree.SubElement(parent, "line", {"class": style, **{name: f"{value:g}" for name, value in ends.items()}})


def draw_text(
    parent: Tree.Element, text: str, *, x: float, y: float, anchor: str = "start", style: str = "label"
) -> None:
    """Draws a text at a place in pixels, control characters made visible."""
    place = {"class": style, "x": f"{x:g}", "y": f"{y:g}", "text-anchor": anchor}
    Tree.SubElement(parent, "text", place).text = printable(text)


def _step(top: float) -> float:
    """A round distance between ticks, so that an axis up to `top` has about `TICKS` of them."""
    rough = top / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    step = _step(value)
    return step * math.ceil(value / step - 1e-9)
