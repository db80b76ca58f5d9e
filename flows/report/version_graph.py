"""The picture of a report's versions: a box for each, and arrows from what it is made from. Reads a report's values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from xml.etree import ElementTree as Tree

from flows.report.svg import draw_text
from flows.terminal.formatting import number, printable, size
from hir_core.inspect.report import Report
from hir_core.store.manifest import STAGES


def version_graph(report: Report) -> str:
    """The picture of all versions but further evaluations: a column for each stage, a row for each iteration."""
    row_of = {iteration.iteration: row for row, iteration in enumerate(report.iterations)}
    main_evaluations = {evaluation.version for evaluation in report.evaluations.values()}
    shown = [
        version for version in report.versions if version.stage != "evaluations" or version.version in main_evaluations
    ]
    stages = [stage for stage in STAGES if any(version.stage == stage for version in shown)]
    nodes, edges = [], []
    for version in shown:
        row = row_of.get(version.iteration, 0)
        rows = "no table" if version.rows is None else f"{number(version.rows)} rows"
        nodes.append(
            Node(
                version.version,
                column=stages.index(version.stage),
                row=row,
                text=version.version.split("/")[1],
                title=f"{version.version} · {rows} · {size(version.bytes)}",
            )
        )
        # Everything is made from the prompts, so these arrows are drawn in the first row only.
        parents = [parent for parent in version.parents if row == 0 or not parent.startswith("prompts/")]
        edges += [(parent, version.version) for parent in parents]
    return _graph(nodes, edges, stages, f"Versions of {report.run} and what each is made from")


class Node(NamedTuple):
    """A version in a graph, with its column and row, the text in its box, and its tooltip."""

    name: str
    column: int
    row: int
    text: str
    title: str


def _graph(nodes: Sequence[Node], edges: Iterable[tuple[str, str]], columns: Sequence[str], label: str) -> str:
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
        draw_text(svg, name, x=place * step + wide / 2, y=18, anchor="middle")
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
        draw_text(group, node.text, x=x + wide / 2, y=y + 20, anchor="middle", style="id")
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
