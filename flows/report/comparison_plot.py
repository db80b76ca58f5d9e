"""Learning curves as a picture: accuracy by iteration, a panel per task, a line per method with its seeds' range."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLOURS = mpl.color_sequences["tab10"]
LINES = ("-", "--", ":")


def draw(curves: pl.DataFrame, methods: Sequence[str], path: Path) -> None:
    """Writes the picture of `curves` (task, method, seed, iteration, accuracy, majority_baseline) to a PNG file."""
    tasks = curves["task"].unique(maintain_order=True).to_list()
    figure = Figure(figsize=(4.2 * len(tasks) + 2.2, 3.6), layout="constrained")
    panels = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for panel, task in zip(panels, tasks, strict=True):
        _panel(panel, curves.filter(pl.col("task") == task), methods)
        panel.set_title(task)
    panels[0].set_ylabel("held-out accuracy")
    handles = {line.get_label(): line for panel in panels for line in panel.get_lines()}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)


def _panel(panel: Axes, curves: pl.DataFrame, methods: Sequence[str]) -> None:
    for number, method in enumerate(methods):
        rows = curves.filter(pl.col("method") == method)
        if rows.is_empty():
            continue
        by_iteration = rows.group_by("iteration").agg(
            mean=pl.col("accuracy").mean(), low=pl.col("accuracy").min(), high=pl.col("accuracy").max()
        )
        x, mean, low, high = by_iteration.sort("iteration").get_columns()
        colour, line = COLOURS[number % len(COLOURS)], LINES[number // len(COLOURS) % len(LINES)]
        panel.plot(x, mean, line, color=colour, label=method)
        panel.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    baseline = curves["majority_baseline"].drop_nulls()
    if not baseline.is_empty():
        panel.axhline(float(baseline[0]), color="grey", linewidth=0.8, label="majority answer")
    panel.set_xlabel("iteration")
    panel.set_ylim(0, 1)
    panel.grid(alpha=0.2)
