"""Markdown tables of the measurements that are kept in `results.json`, in the README of this folder.

    python -m tests.benchmarks.results_page

makes everything between `<!-- results -->` and `<!-- end of results -->` anew from the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from hir_core.store.files import write_text
from tests.benchmarks import report
from tests.benchmarks.measure import Result

FOLDER = Path(__file__).resolve().parent
README, RESULTS = FOLDER / "README.md", FOLDER / "results.json"
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def filled(readme: str, results: Iterable[Result]) -> str:
    """The README's text with the block of results made anew."""
    lines = [line for result in results for line in section(result)]
    return _BLOCK.sub(lambda match: match[1] + "\n".join(["", *lines]) + match[2], readme)


def section(result: Result) -> Iterator[str]:
    """One case: the question, a row for each side, the figures and where they come from, as lines of Markdown."""
    yield from [f"### {result.case}", "", f"{result.question[0].upper()}{result.question[1:]}.", ""]
    header = ["side", "rounds", f"{result.unit} per CPU second", "CPU s", "wall s", "peak MiB"]
    yield from [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header))]
    for side in result.settings:
        if measured := result.of(side):
            cells = [side, str(len(measured)), *report.columns(measured)]
            yield f"| {' | '.join(cells)} |"
    yield ""
    for figure in result.figures:
        yield f"- {figure.name}: {report.span(figure)} {figure.unit}".rstrip()
    yield from (f"- {side}: {reason}" for side, reason in result.left_out.items())
    commits = ", ".join(dict.fromkeys(m.commit for m in result.measurements))
    times = sorted(m.time for m in result.measurements)
    machine = f"{result.machine['cores']} CPU cores ({result.machine['processor']})"
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''} per library"
    yield from ["", f"Source: commit {commits}; {times[0][:10]}; {machine}; {threads}.", ""]


if __name__ == "__main__":
    write_text(README, filled(README.read_text(), report.read(RESULTS).values()))
