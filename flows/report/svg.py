"""SVG pictures of a report: plots of lines with intervals, plots of stacked bars, and a graph of versions.

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

    @property
    def dashes(self) -> str:
        """The dashes of its stroke, by which lines differ where colours cannot be told apart."""
        return "5 4" if self.style == "reference" else DASHES[int(self.style[1:]) % len(DASHES)]


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

    def x(self, value: float) -> float:
        """The horizontal position of an iteration, in pixels."""
        low, high = self.xs
        return round(LEFT + (value - low) / (high - low) * (self.width - LEFT - RIGHT), 1)

    def y(self, value: float) -> float:
        """The vertical position of a value, in pixels."""
        return round(self.height - BOTTOM - value / self.top * (self.height - TOP - BOTTOM), 1)


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
    svg = _canvas(area, label, unit, form, range(min(xs), max(xs) + 1))
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
    svg = _canvas(area, label, unit, form, xs)
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


def swatch(series: Line | Layer) -> str:
    """A piece of a line or a bar as it looks in the plot, for a legend."""
    svg = Tree.Element("svg", {"class": f"swatch {series.style}", "viewBox": "0 0 26 12", "aria-hidden": "true"})
    if isinstance(series, Layer):
        Tree.SubElement(svg, "rect", x="6", y="1", width="14", height="11", rx="2")
        return Tree.tostring(svg, encoding="unicode")
    line = {"class": "line", "points": "0,6 26,6", "stroke-dasharray": series.dashes or "none"}
    Tree.SubElement(svg, "polyline", line)
    if series.style != "reference":
        Tree.SubElement(svg, "circle", {"class": "dot", "cx": "13", "cy": "6", "r": "3.5"})
    return Tree.tostring(svg, encoding="unicode")


class Node(NamedTuple):
    """A version in a graph, with its column and row, the text in its box, and its tooltip."""

    name: str
    column: int
    row: int
    text: str
    title: str


def graph(nodes: Sequence[Node], edges: Iterable[tuple[str, str]], columns: Sequence[str], label: str) -> str:
    """A graph of versions: a box for each, and an arrow from every parent to what is made from it.

    Args:
        nodes: the versions.
        edges: names of two nodes, the parent first; an edge of a version that is not drawn is left out.
        columns: the heading of each column.
        label: what the picture shows, for readers who cannot see it.
    """
    wide, high, step, gap = 116, 30, 150, 58
    rows = max((node.row for node in nodes), default=0)
    width, height = step * len(columns), 40 + gap * (rows + 1)
    svg = Tree.Element("svg", viewBox=f"0 0 {width} {height}", width=str(width), height=str(height), role="img")
    svg.set("aria-label", printable(label))
    arrow = Tree.SubElement(svg, "marker", {"id": "arrow", "viewBox": "0 0 8 8", "refX": "8", "refY": "4",
                                            "markerWidth": "7", "markerHeight": "7", "orient": "auto"})  # fmt: skip
    Tree.SubElement(arrow, "path", {"class": "tip", "d": "M0 0L8 4L0 8z"})
    for place, name in enumerate(columns):
        _text(svg, name, x=place * step + wide / 2, y=18, anchor="middle")
    places = {node.name: (node.column * step, 34 + node.row * gap) for node in nodes}
    for parent, child in edges:
        if parent in places and child in places:
            way = {"class": "edge", "d": _edge(places[parent], places[child], wide, high), "marker-end": "url(#arrow)"}
            Tree.SubElement(svg, "path", way)
    for node in nodes:
        x, y = places[node.name]
        group = Tree.SubElement(svg, "g")
        Tree.SubElement(group, "title").text = printable(node.title)
        Tree.SubElement(group, "rect", {"class": "node", "x": f"{x}", "y": f"{y}", "width": f"{wide}",
                                        "height": f"{high}", "rx": "5"})  # fmt: skip
        _text(group, node.text, x=x + wide / 2, y=y + 20, anchor="middle", style="id")
    return Tree.tostring(svg, encoding="unicode")


def _edge(parent: tuple[float, float], child: tuple[float, float], wide: float, high: float) -> str:
    """The path of an arrow to a box in the same column, in a later column, or in an earlier one."""
    (x, y), (to_x, to_y) = parent, child
    if x == to_x:
        return f"M{x + wide / 2} {y + high}V{to_y}"
    if x < to_x:
        x, y, to_y = x + wide, y + high / 2, to_y + high / 2
        middle = (x + to_x) / 2
    else:
        x, y, to_x = x + wide / 2, y + high, to_x + wide / 2
        middle = (y + to_y) / 2
        return f"M{x} {y}C{x} {to_y} {to_x} {y} {to_x} {to_y}"
    return f"M{x} {y}C{middle} {y} {middle} {to_y} {to_x} {to_y}"


# --- axes and marks --------------------------------------------------------------------------------------------------


def _canvas(area: Area, label: str, unit: str, form: Form, xs: Sequence[int]) -> Tree.Element:
    """An empty plot with its axes."""
    svg = Tree.Element("svg", viewBox=f"0 0 {area.width} {area.height}", role="img")
    svg.set("aria-label", printable(label))
    _text(svg, unit, x=4, y=12)
    step = _step(area.top)
    for value in (step * place for place in range(math.floor(area.top / step + 1e-9) + 1)):
        y = area.y(value)
        _stroke(svg, "grid", x1=LEFT, x2=area.width - RIGHT, y1=y, y2=y)
        _text(svg, form(value), x=LEFT - 6, y=y + 4, anchor="end")
    _text(svg, "iteration", x=LEFT - 6, y=area.height - BOTTOM + 20, anchor="end")
    every = -(-len(xs) // (12 if area.width < 600 else 24))
    for x in xs[::every]:
        _text(svg, str(x), x=area.x(x), y=area.height - BOTTOM + 20, anchor="middle")
    return svg


def _draw_line(svg: Tree.Element, area: Area, line: Line, form: Form) -> None:
    measured = [(point, point.y) for point in line.points if point.y is not None]
    group = Tree.SubElement(svg, "g", {"class": line.style})
    path = {"class": "line", "points": " ".join(f"{area.x(point.x)},{area.y(y)}" for point, y in measured)}
    if line.dashes:
        path["stroke-dasharray"] = line.dashes
    Tree.SubElement(group, "polyline", path)
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


def _text(parent: Tree.Element, text: str, *, x: float, y: float, anchor: str = "start", style: str = "label") -> None:
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
