"""Results as a table and as a JSON file, with the commit, the machine and the releases that they belong to."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

import psutil

from hir_core.store.files import write_json
from tests.benchmarks.measure import CHECKOUT, Figure, Result, Surroundings, spread

LIBRARIES = ("torch", "transformers", "deepspeed", "accelerate", "polars", "pyarrow", "numpy", "trl", "datasets")
MIB = 1 << 20


def surroundings() -> Surroundings:
    """The commit, the machine and the releases of now."""
    return Surroundings(commit=_commit(), machine=_machine(), releases=_releases())


def _commit() -> str:
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        return found + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _machine() -> dict[str, str | int]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _releases() -> dict[str, str]:
    installed = {}
    for name in LIBRARIES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def read(path: Path) -> dict[str, Result]:
    """The results of a file by case; none where there is no file."""
    if not path.exists():
        return {}
    return {name: Result.model_validate(result) for name, result in json.loads(path.read_text()).items()}


def write(path: Path, results: Iterable[Result]) -> None:
    """Writes results by case."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {result.case: result.model_dump(mode="json") for result in results})


def table(result: Result) -> str:
    """A result as text: the question, a line for each side, and the figures."""
    starts = "start of the program included" if result.starts_inside else "start of the process excluded"
    threads = f"{result.threads} thread{'s' if result.threads > 1 else ''}"
    lines = [f"{result.case}: {result.question}", f"  {threads}, {starts}; median [least, most] of each round", ""]
    columns = ("rounds", f"{result.unit}/CPU s", "CPU s", "wall s", "peak MiB")
    width = max(len(side) for side in result.settings)
    lines.append("  " + "  ".join([" " * width, f"{columns[0]:>6}", *(f"{column:>26}" for column in columns[1:])]))
    for side in result.settings:
        measured = result.of(side)
        if measured:
            values = [
                [m.amount / m.cpu_s for m in measured],
                [m.cpu_s for m in measured],
                [m.wall_s for m in measured],
                [m.peak_bytes / MIB for m in measured],
            ]
            shown = [f"{_span(spread('', column, '')):>26}" for column in values]
            lines.append("  " + "  ".join([f"{side:<{width}}", f"{len(measured):>6}", *shown]))
        if side in result.left_out:
            lines.append(f"  {side:<{width}}  {result.left_out[side]}")
    lines += ["", *(f"  {figure.name}: {_span(figure)} {figure.unit}" for figure in result.figures), ""]
    for side, settings in result.settings.items():
        lines.append(f"  {side}: " + ", ".join(f"{key} {value}" for key, value in settings.items()))
    return "\n".join(lines) + "\n"


def _span(figure: Figure) -> str:
    if figure.low == figure.high:
        return _number(figure.value)
    return f"{_number(figure.value)} [{_number(figure.low)}, {_number(figure.high)}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
