"""Learning curves of a comparison as one SVG picture, for `hir compare`: a panel per task and a line per method.

Each line is the mean over the seeds; a whisker spans the seeds' lowest and highest accuracy. The plots are those of the
report (`svg`), which names styles by class: this picture stands alone, so it carries its own style sheet. Reads and
writes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean
from xml.etree import ElementTree as Tree

from flows.report.svg import Line, Point, line_plot, swatch
from flows.terminal.formatting import clipped
from hir_core.inspect.comparison import ArmResult

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


def comparison_plot(arms: Sequence[ArmResult], methods: Sequence[str]) -> str:
    """The SVG text of the arms' learning curves.

    Args:
        methods: in the order of the legend; those beyond the twelfth repeat colours.
    """
    tasks = list(dict.fromkeys(arm.task for arm in arms))
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
        lines = _lines([arm for arm in arms if arm.task == task], methods)
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


def _lines(arms: Sequence[ArmResult], methods: Sequence[str]) -> list[Line]:
    """One task's lines: each method's mean over the seeds with their range, and the majority baseline."""
    lines = []
    for number, method in enumerate(methods):
        accuracies: dict[int, list[float]] = defaultdict(list)
        for arm in arms:
            for point in arm.curve if arm.method == method else ():
                accuracies[point.iteration].append(point.accuracy)
        if accuracies:
            points = [Point(x, fmean(ys), min(ys), max(ys)) for x, ys in sorted(accuracies.items())]
            lines.append(Line(method, points, f"k{number % len(COLOURS)}"))
    baselines = [point for arm in arms for point in arm.curve if point.majority_baseline is not None]
    if baselines:
        iterations = [point.iteration for point in baselines]
        ends = [Point(end, baselines[0].majority_baseline) for end in (min(iterations), max(iterations))]
        lines.append(Line("majority answer", ends, "reference"))
    return lines


def _place(root: Tree.Element, svg: str, left: float, top: float, size: tuple[int, int]) -> None:
    """Puts a picture into the root at a position in pixels."""
    picture = Tree.fromstring(svg)
    picture.attrib.update(x=f"{left}", y=f"{top}", width=f"{size[0]}", height=f"{size[1]}")
    root.append(picture)
