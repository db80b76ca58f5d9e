"""Learning curves of a comparison as one SVG picture, for `hir compare`: a panel per task and a line per method.

Each line is the mean over the seeds; a whisker spans the seeds' lowest and highest accuracy. The plots are those of the
report (`svg`), which names styles by class: this picture stands alone, so it carries its own style sheet. Reads and
writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Tree

import polars as pl

from flows.report.svg import Line, Point, line_plot, swatch
from flows.terminal.formatting import clipped

PANEL = (400, 260)
TITLE_HEIGHT = 26
LEGEND_WIDTH, LEGEND_STEP, LEGEND_CHARACTERS = 190, 22, 22
COLOURS = ("#0067a5", "#bd4a00", "#00755a", "#93458a", "#806000", "#5b6168",
           "#00a0c8", "#e0529c", "#58a618", "#c4a000", "#7b61d1", "#a03020")  # fmt: skip
STYLE = """
text { fill: #33383e; font: 12.5px system-ui, sans-serif; }
.title { font-size: 14px; font-weight: 600; }
.grid { stroke: #dcdfe3; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.whisker { stroke: var(--c); stroke-width: 1; opacity: .45; }
.dot { fill: var(--c); }
.touch { fill: transparent; }
.reference { --c: #7d858d; }
""" + "".join(f".k{number} {{ --c: {colour}; }}\n" for number, colour in enumerate(COLOURS))


def comparison_plot(curves: pl.DataFrame, methods: Sequence[str]) -> str:
    """The SVG text of learning curves.

    Args:
        curves: one row per arm and iteration, with `task`, `method`, `seed`, `iteration`, `accuracy` and
            `majority_baseline`.
        methods: in the order of the legend; those beyond the twelfth repeat colours.
    """
    tasks = curves["task"].unique(maintain_order=True).to_list()
    panel_width, panel_height = PANEL
    width, height = panel_width * len(tasks) + LEGEND_WIDTH, panel_height + TITLE_HEIGHT
    height = max(height, TITLE_HEIGHT + LEGEND_STEP * (len(methods) + 1))
    root = Tree.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {width} {height}"})
    root.attrib.update(width=str(width), height=str(height), role="img")
    root.set("aria-label", "Held-out accuracy by iteration, a panel per task and a line per method")
    Tree.SubElement(root, "style").text = STYLE
    Tree.SubElement(root, "rect", width=str(width), height=str(height), fill="#fff")
    legend: dict[str, Line] = {}
    for number, task in enumerate(tasks):
        left = number * panel_width
        lines = _lines(curves.filter(pl.col("task") == task), methods)
        legend |= {line.label: line for line in lines if line.label not in legend}
        title = {"class": "title", "x": f"{left + panel_width / 2}", "y": "18", "text-anchor": "middle"}
        Tree.SubElement(root, "text", title).text = clipped(task, panel_width // 9)
        plot = line_plot(lines, f"Accuracy on {task}", "held-out accuracy", "{:.0%}".format, top=1.0, size=PANEL)
        _place(root, plot, left, TITLE_HEIGHT, PANEL)
    for number, line in enumerate(legend.values()):
        left, top = panel_width * len(tasks) + 8, TITLE_HEIGHT + LEGEND_STEP * number
        _place(root, swatch(line), left, top, (26, 12))
        Tree.SubElement(root, "text", x=f"{left + 34}", y=f"{top + 10}").text = clipped(line.label, LEGEND_CHARACTERS)
    return Tree.tostring(root, encoding="unicode") + "\n"


def _lines(curves: pl.DataFrame, methods: Sequence[str]) -> list[Line]:
    """One task's lines: each method's mean over the seeds with their range, and the majority baseline."""
    lines = []
    for number, method in enumerate(methods):
        by_iteration = (
            curves.filter(pl.col("method") == method)
            .group_by("iteration")
            .agg(pl.col("accuracy").mean(), low=pl.col("accuracy").min(), high=pl.col("accuracy").max())
            .sort("iteration")
        )
        points = [Point(*row) for row in by_iteration.iter_rows()]
        if points:
            lines.append(Line(method, points, f"k{number % len(COLOURS)}"))
    baseline = curves["majority_baseline"].drop_nulls()
    if not baseline.is_empty():
        ends = (curves["iteration"].min(), curves["iteration"].max())
        lines.append(Line("majority answer", [Point(end, float(baseline[0])) for end in ends], "reference"))
    return lines


def _place(root: Tree.Element, svg: str, left: float, top: float, size: tuple[int, int]) -> None:
    """Puts a picture into the root at a position in pixels."""
    picture = Tree.fromstring(svg)
    picture.attrib.update(x=f"{left}", y=f"{top}", width=f"{size[0]}", height=f"{size[1]}")
    root.append(picture)
