"""The results that are kept with the code, as tables in this folder's README.

`python -m tests.benchmarks.kept_results` fills the README from `results/suite.json`, a file that
`python -m tests.benchmarks --out` has written. The rest of the README is written by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.measure import Figure, Result

FOLDER = Path(__file__).parent
README, KEPT = FOLDER / "README.md", FOLDER / "results" / "suite.json"
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def filled(readme: str, results: list[Result]) -> str:
    """The text of a README with its tables made anew."""
    return _BLOCK.sub(lambda match: match[1] + "\n".join(lines(results)) + "\n" + match[2], readme)


def lines(results: list[Result]) -> Iterator[str]:
    """A table of all figures but those of wall seconds, and where they were measured, as lines of Markdown."""
    yield from ["", "| case | what | median | least, most |", "|---|---|---|---|"]
    for result in results:
        for figure in result.figures:
            if not figure.name.startswith("wall seconds"):
                yield f"| {result.case} | {figure.name} | {_shown(figure.value, figure)} | {_range(figure)} |"
    commits = sorted({measurement.commit for result in results for measurement in result.measurements})
    machines = {f"{result.machine['processor']}, {result.machine['cores']} cores" for result in results}
    releases = {name: release for result in results for name, release in result.releases.items()}
    used = ", ".join(f"{name} {releases[name]}" for name in ("torch", "transformers", "deepspeed", "trl"))
    yield from ["", f"Commit {', '.join(commits)}; {'; '.join(sorted(machines))}; {used}.", ""]


def _range(figure: Figure) -> str:
    if figure.low == figure.high:
        return "–"
    return f"{_shown(figure.low, figure)}, {_shown(figure.high, figure)}"


def _shown(value: float, figure: Figure) -> str:
    unit = f" {figure.unit}" if figure.unit else ""
    return f"{value:,.0f}{unit}" if abs(value) >= 100 else f"{value:.3g}{unit}"


def main() -> None:
    README.write_text(filled(README.read_text(), list(report.read(KEPT).values())))


if __name__ == "__main__":
    main()
