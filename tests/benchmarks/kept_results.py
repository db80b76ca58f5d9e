"""The results that are kept with the code, as tables in READMEs.

`python -m tests.benchmarks.kept_results` fills this folder's README from `results/suite.json`, a file that
`python -m tests.benchmarks --out` has written, and that of `ds_configs` from `results/peak_memory.json`, which
`python -m tests.benchmarks.peak_memory --out` has written; what is planned is computed anew. The rest of the READMEs is
written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks import peak_memory, report
from tests.benchmarks.measure import Figure, Result

FOLDER = Path(__file__).parent
README, KEPT = FOLDER / "README.md", FOLDER / "results" / "suite.json"
DS_CONFIGS_README = FOLDER.parents[1] / "ds_configs" / "README.md"
_BLOCK = re.compile(r"(<!-- results -->\n).*?(<!-- end of results -->)", re.DOTALL)


def filled(readme: str, made: Iterable[str]) -> str:
    """The text of a README with the lines between its two marks made anew."""
    text = "\n".join(made)
    return _BLOCK.sub(lambda match: f"{match[1]}{text}\n{match[2]}", readme)


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


def memory_lines(launches: Mapping[str, Any]) -> Iterator[str]:
    """A table of planned and measured memory in GB, and where it was measured, as lines of Markdown.

    Args:
        launches: content of a file of `peak_memory`.
    """
    yield from ["", "| model | trained | file | ranks | training: planned, peak | ratio | with sampling | ratio |"]
    yield "|" + "---|" * 8
    for figures in launches.values():
        plan, peak = peak_memory.planned(figures), figures["peak_bytes"]
        trained = f"an adapter of rank {figures['lora']}" if figures["lora"] else "all"
        name = f"{figures['model']} | {trained} | `{figures['file']}.json` | {figures['ranks']}"
        pairs = ((plan["total"], peak["training"]), (plan["sampling"], peak["all"]))
        yield f"| {name} | " + " | ".join(f"{a / 1e9:.2f}, {b / 1e9:.2f} | {a / b:.2f}" for a, b in pairs) + " |"
    commits = sorted({figures["commit"] for figures in launches.values()})
    machines = {f"{one['machine']['processor']}, {one['machine']['cores']} cores" for one in launches.values()}
    releases = next(iter(launches.values()))["releases"]
    used = ", ".join(f"{name} {releases[name]}" for name in ("torch", "transformers", "deepspeed"))
    yield from ["", f"Peaks at {', '.join(commits)}; {'; '.join(sorted(machines))}; {used}.", ""]


def main() -> None:
    README.write_text(filled(README.read_text(), lines(list(report.read(KEPT).values()))))
    launches = json.loads(peak_memory.KEPT.read_text())
    DS_CONFIGS_README.write_text(filled(DS_CONFIGS_README.read_text(), memory_lines(launches)))


if __name__ == "__main__":
    main()
