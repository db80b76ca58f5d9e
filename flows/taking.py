"""`hir sql`: commands that take data out of a run, for other questions and other programs; none writes into it.

Exit codes: 0 fine; 1 a version that is read is damaged; 2 what was typed is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import RUNS, AsJson, RunsDir, answer, messages, terminal_width
from flows.wording import NOTHING, clipped, columns, number

if TYPE_CHECKING:
    from hir_core.querying import Answer

CELL = 60
OneRun = Annotated[str | None, typer.Argument(help="A run, by name or folder; needed where there are several.")]


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


COMMANDS = (sql,)
