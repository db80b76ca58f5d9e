"""Markdown tables of comparisons: `table.md` of `hir compare`, and the README of the measurements that are shipped.

    python -m flows.report.comparison_tables

fills the README of `flows/configs/comparisons` from the JSON files in its `results`: everything between
`<!-- results NAME -->` and `<!-- end of results -->` is made from `results/NAME.json`. The rest is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.terminal.formatting import NOTHING, number
from hir_core.inspect.comparison import ArmResult, CurvePoint, Estimate, MethodSummary, Results, read_results, statement
from hir_core.store.files import write_text

COMPARISONS = Path(__file__).resolve().parents[1] / "configs" / "comparisons"
README = COMPARISONS / "README.md"
_BLOCK = re.compile(r"(<!-- results (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)


def filled(readme: str, folder: Path) -> str:
    """The text of a README with every block of results made anew from the JSON files in a folder.

    Raises:
        FileNotFoundError: a block names results that are not there.
    """

    def block(match: re.Match[str]) -> str:
        lines = section(read_results(folder / f"{match[2]}.json"))
        return match[1] + "\n".join(lines) + "\n" + match[3]

    return _BLOCK.sub(block, readme)


def section(results: Results) -> Iterator[str]:
    """Tables, sentences and source of some results, as lines of Markdown."""
    if results.summary:
        yield from ["", *summary_table(results.summary)]
    elif results.arms:
        yield from ["", *curve_table(results.arms)]
    sentences = [*map(statement, results.differences), *results.notes]
    if sentences:
        yield from ["", *(f"- {sentence}" for sentence in sentences)]
    commit = None if results.git_commit is None else f"commit {results.git_commit}"
    seconds = None if results.seconds is None else f"{results.seconds:,.0f} s in all"
    version = None if results.hir_version is None else f"hir {results.hir_version}"
    facts = (results.source, results.date, version, commit, results.machine or "machine not recorded", seconds)
    yield from ["", f"Source: `results/{results.name}.json` ({'; '.join(fact for fact in facts if fact)}).", ""]


def summary_table(summaries: Sequence[MethodSummary], tasks: Sequence[str] = ()) -> list[str]:
    """Final accuracies in percent as a Markdown table: methods by tasks, means over the seeds with 95 % intervals.

    Args:
        tasks: the columns; left out, every task that a summary names. With one task there is no column of means.
    """
    tasks = tasks or list(dict.fromkeys(task for summary in summaries for task in summary.tasks))
    rows = [
        [
            summary.method,
            *(_estimate(summary.tasks.get(task)) for task in tasks),
            *([] if len(tasks) == 1 else [_estimate(summary.mean)]),
            NOTHING if summary.training_share is None else f"{100 * summary.training_share:.0f} %",
        ]
        for summary in summaries
    ]
    return _table(["method", *tasks, *([] if len(tasks) == 1 else ["mean"]), "samples trained on"], rows)


def curve_table(arms: Sequence[ArmResult]) -> list[str]:
    """Accuracies by iteration as a Markdown table, with the further figures that the arms have."""
    points = [point for arm in arms for point in arm.curve]
    further = list(dict.fromkeys(name for point in points for name in point.further))
    several, with_baseline = len(arms) > 1, any(point.majority_baseline is not None for point in points)
    header = ["iteration", "accuracy", *(["majority baseline"] if with_baseline else []), *further]
    rows = [
        [
            *([arm.method] if several else []),
            str(point.iteration),
            _accuracy(point),
            *([number(point.majority_baseline, ".3f")] if with_baseline else []),
            *(number(point.further.get(name), ",.6g") for name in further),
        ]
        for arm in arms
        for point in arm.curve
    ]
    return _table(["method", *header] if several else header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)]


def _estimate(value: Estimate | None) -> str:
    if value is None:
        return NOTHING
    spread = "" if value.half_width is None else f" ± {100 * value.half_width:.1f}"
    return f"{100 * value.mean:.1f}{spread}"


def _accuracy(point: CurvePoint) -> str:
    interval = "" if point.low is None or point.high is None else f" [{point.low:.3f}, {point.high:.3f}]"
    return f"{point.accuracy:.3f}{interval}"


if __name__ == "__main__":
    write_text(README, filled(README.read_text(), README.parent / "results"))
