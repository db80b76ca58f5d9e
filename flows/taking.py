"""`hir sql`, `path`, `export`, `verify`: a run for other questions and programs, and whether it can be trusted.

None writes into it. Exit codes: 0 fine; 1 a version that is read is damaged; 2 what was typed is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.terminal import FOUND, RUNS, AsJson, OneRun, Ref, RunsDir, answer, messages, terminal_width
from flows.wording import NOTHING, clipped, columns, number, printable, size

if TYPE_CHECKING:
    from hir_core.querying import Answer

CELL = 60
AnyRun = Annotated[str | None, typer.Argument(help="A run, by name or folder; all of them where none is named.")]


def sql(
    question: Annotated[str, typer.Argument(help="One SELECT; each stage is a view with iteration and version.")],
    run: OneRun = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show; JSON has all.")] = 40,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Ask SQL over all versions of a run (extra `sql`); nothing can be written, and no other file be read."""
    from flows.runs import one_run
    from hir_core.querying import ask

    with messages():
        found = ask(one_run(run, runs_dir), question)
        if as_json:
            answer(found.records(), as_json, lambda _: ())
        else:
            answer(found, as_json, lambda facts: _table(facts, rows, terminal_width()))


def path(ref: Ref, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Print the folder of a version."""
    from flows.runs import find_version

    with messages():
        _, version = find_version(ref, runs_dir)
        folder = str(version.path.resolve())
        answer({"version": str(version), "path": folder}, as_json, lambda _: [printable(folder)])


def export(
    ref: Ref,
    out: Annotated[Path, typer.Argument(help="The file to make; for hf the folder.")],
    to: Annotated[str, typer.Option(help="jsonl, csv, parquet, or hf: a folder for `datasets`.")],
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Write the table of a version for other programs; replaces nothing."""
    from flows.runs import find_version
    from hir_core import exporting

    with messages():
        rows = exporting.export(*find_version(ref, runs_dir), to, out)
        answer({"rows": rows, "path": str(out)}, as_json, lambda _: [f"{number(rows)} rows in {printable(str(out))}"])


def verify(run: AnyRun = None, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Check every file, count, key and parent of a run, or of all; the exit code is 1 where something is damaged."""
    from flows.runs import some_runs
    from hir_core.soundness import check_run
    from hir_core.store import Store

    with messages():
        found = [check_run(Store(path)) for path in some_runs(run, runs_dir)]
        answer(found, as_json, lambda facts: [line for one in facts for line in _soundness(one)])
        if any(one["problems"] for one in found):
            raise typer.Exit(FOUND)


def _soundness(facts: dict[str, Any]) -> Iterator[str]:
    counts = f"{number(facts['versions'])} versions · {number(facts['files'])} files · {size(facts['bytes'])}"
    problems = facts["problems"]
    damaged = len({problem["version"] for problem in problems})
    yield f"{printable(facts['run'])} · {counts} · {f'{number(damaged)} damaged' if problems else 'sound'}"
    for problem in problems:
        told = problem["problem"].removeprefix(problem["version"]).removeprefix(":").strip()
        yield f"  {problem['version']}  {printable(told)}"


def _table(found: Answer, most: int, width: int) -> Iterator[str]:
    """Rows in aligned columns, or below each other where the terminal is too narrow for that."""
    from flows.show import rows_text

    cells = [[_cell(value) for value in row] for row in found.rows[:most]]
    numbers = [
        n for n in range(len(found.columns)) if all(isinstance(row[n], (int, float)) for row in found.rows[:most])
    ]
    lines = columns([clipped(name, CELL) for name in found.columns], cells, right=numbers)
    fits = max(map(len, lines)) <= width
    yield from lines if fits else rows_text(found.records()[:most], width)
    if len(found.rows) > most:
        yield f"… and {number(len(found.rows) - most)} more rows"


def _cell(value: object) -> str:
    return NOTHING if value is None else clipped(f"{value:.6g}" if isinstance(value, float) else str(value), CELL)


COMMANDS = (sql, path, export, verify)
