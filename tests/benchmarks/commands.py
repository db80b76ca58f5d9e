"""The time of commands that look at a run, for stores of different sizes: it should not grow with the rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.benchmarks.measure import Case, Figure, Result, Side, Work
from tests.benchmarks.side_process import Clock

SIZES = (1_000, 100_000, 1_000_000)
COMMANDS = {"ls": ("sums",), "show": ("sums/samples@1",), "row": (f"sums/5{77:015}",)}
"""Commands and their arguments; the row is the same in every store."""


def make_runs(inputs: Path) -> None:
    """Writes a run of each size."""
    from tests.benchmarks.tables import make_run

    for rows in SIZES:
        make_run(inputs / str(rows) / "sums", rows)


def call(clock: Clock, inputs: Path, command: str, rows: int) -> Work:
    """Calls a command in a process of its own."""
    runs_dir = () if command == "--help" else ("--runs-dir", str(inputs / str(rows)))
    hir = Path(sys.executable).with_name("hir")
    with clock:
        done = subprocess.run(
            [hir, command, *COMMANDS.get(command, ()), *runs_dir], check=True, capture_output=True, text=True
        )
    if not done.stdout.strip():
        raise RuntimeError(f"hir {command} printed nothing")
    return Work(1)


def start_python(clock: Clock, inputs: Path) -> Work:
    """Starts an interpreter that does nothing: what no command in Python can go below."""
    with clock:
        subprocess.run([sys.executable, "-c", "pass"], check=True)
    return Work(1)


def growth(result: Result) -> list[Figure]:
    """How much longer each command takes in the larger stores than in the smallest."""
    figures = []
    for command in COMMANDS:
        for rows in SIZES[1:]:
            figure = result.ratio(_name(command, rows), "cpu_s", to=_name(command, SIZES[0]))
            figures += [] if figure is None else [figure]
    return figures


def _name(command: str, rows: int) -> str:
    return f"hir {command}, {rows:,} rows"


CASES = (
    Case(
        name="commands",
        question="commands that look at a run of prompts, samples and rewards; rows are samples",
        unit="calls",
        sides=(
            Side("hir --help", call, {"command": "--help", "rows": 0}),
            Side("python -c pass", start_python, {}),
            *(
                Side(_name(command, rows), call, {"command": command, "rows": rows})
                for command in COMMANDS
                for rows in SIZES
            ),
        ),
        starts_inside=True,
        prepare=make_runs,
        conclude=growth,
    ),
)
