"""The commands that look at runs, versions and rows: `hir ls`, `show`, `head`, `row`, `trace`, `diff` and others.

They read the store and change nothing. Exit code 1 where `diff` finds a difference or `verify` damage.
"""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import (
    FOUND,
    RUNS,
    AsJson,
    OneRun,
    Ref,
    RunsDir,
    answer,
    messages,
    print_json,
    print_lines,
    terminal_width,
)
from flows.terminal.formatting import NOTHING, clipped, columns, number, printable, size
from hir_core.errors import VersionNotFound

if TYPE_CHECKING:
    import polars as pl

    from hir_core.inspect.sql import Answer
    from hir_core.store.store import Store
    from hir_core.store.version import VersionRef

Key = Annotated[str, typer.Argument(help="A prompt_id, sample_id or triple_id, or its first digits; [RUN/] in front.")]
Where = Annotated[str | None, typer.Option(help="Only rows of which this SQL expression is true, as in 'k = 0'.")]
Columns = Annotated[str | None, typer.Option(help="Columns to show, with commas between: a,b.")]
CELL = 60
AnyRun = Annotated[str | None, typer.Argument(help="A run, by name or folder; all of them where none is named.")]


def ls(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs to look into, by name or folder.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """List the runs, or the versions of some."""
    from flows.terminal import version_list
    from hir_core.store.references import find_run

    with messages():
        if runs:
            listed = [facts for name in runs for facts in version_list.describe_versions(find_run(name, runs_dir))]
            answer(listed, as_json, version_list.versions_text)
        else:
            found = version_list.describe_runs(runs_dir)
            answer(found, as_json, version_list.runs_text if found else lambda _: [_how_to_start(runs_dir)])


def show(
    ref: Ref,
    rows: Annotated[int, typer.Option(min=0, help="Rows of the table to show.")] = 3,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show a version: where it comes from, what it holds, and its first rows."""
    from flows.terminal import version as version_text
    from hir_core.store.references import find_version

    with messages():
        store, version = find_version(ref, runs_dir)
        if as_json:
            print_json(
                {**version_text.describe(store, version), "first_rows": version_text.first_rows(store, version, rows)}
            )
            return
        width = terminal_width()
        print_lines(version_text.version_text(store, version, width))
        print_lines(version_text.rows_text(version_text.first_rows(store, version, rows), width))


def _how_to_start(runs_dir: Path) -> str:
    return f"no runs in {runs_dir}: start one with `hir run quickstart`"


def head(
    ref: Ref,
    rows: Annotated[int, typer.Option(min=0, help="Rows at most.")] = 10,
    where: Where = None,
    columns: Columns = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show the first rows of a version."""
    from hir_core.inspect import rows as table_rows
    from hir_core.store.references import find_version

    with messages():
        _answer_rows(table_rows.head(*find_version(ref, runs_dir), rows, where, _names(columns)), as_json)


def sample(
    ref: Ref,
    rows: Annotated[int, typer.Option(min=0, help="Rows at most.")] = 10,
    seed: Annotated[int, typer.Option(help="Another seed draws other rows.")] = 0,
    where: Where = None,
    columns: Columns = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show rows of a version that chance picks; the same seed picks the same."""
    from hir_core.inspect import rows as table_rows
    from hir_core.store.references import find_version

    with messages():
        _answer_rows(table_rows.draw(*find_version(ref, runs_dir), rows, seed, where, _names(columns)), as_json)


def row(
    key: Key,
    iteration: Annotated[int | None, typer.Option(min=0, help="Only what belongs to this iteration.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show a prompt with its samples and scores, and the instruction that each was asked and became an example of."""
    from flows.terminal.row import row_text
    from hir_core.inspect.lineage import row_history
    from hir_core.store.references import find_key

    with messages():
        answer(
            row_history(*find_key(key, runs_dir), iteration), as_json, lambda facts: row_text(facts, terminal_width())
        )


def trace(key: Key, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Show the versions that a row comes from, up to its prompt and writer, and goes to, down to the trained models."""
    from flows.terminal.row import trace_text
    from hir_core.inspect.lineage import trace as trace_row
    from hir_core.store.references import find_key

    with messages():
        answer(trace_row(*find_key(key, runs_dir)), as_json, lambda facts: trace_text(facts, terminal_width()))


def stats(ref: Ref, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Show a table in figures: rows, lengths, nulls, scores, duplicates, why samples ended, instructions, tasks."""
    from flows.terminal.stats import stats_text
    from hir_core.inspect.stats import figures
    from hir_core.store.references import find_version

    with messages():
        answer(figures(*find_version(ref, runs_dir)), as_json, lambda facts: stats_text(facts, terminal_width()))


def diff(
    a: Ref,
    b: Ref,
    key: Annotated[
        str | None, typer.Option(help="Show all about one prompt, sample or triple, as a text diff.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show how two versions of a stage differ, rows matched by prompt and k; the exit code is 1 where they do."""
    from flows.terminal.stats import diff_text
    from hir_core.inspect.diff import Side, difference
    from hir_core.store.references import find_version

    with messages():
        found = difference(Side(*find_version(a, runs_dir)), Side(*find_version(b, runs_dir)), key)
        answer(found, as_json, lambda facts: diff_text(facts, terminal_width()))
        if found["differs"]:
            raise typer.Exit(FOUND)


def _answer_rows(found: pl.DataFrame, as_json: bool) -> None:
    from flows.terminal.version import rows_text

    answer(found.to_dicts(), as_json, lambda rows: rows_text(rows, terminal_width()) if rows else ["no rows"])


def _names(columns: str | None) -> list[str]:
    return [] if columns is None else [name.strip() for name in columns.split(",")]


def sql(
    question: Annotated[str, typer.Argument(help="One SELECT; each stage is a view with iteration and version.")],
    run: OneRun = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show; JSON has all.")] = 40,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Ask SQL over all versions of a run (extra `sql`); nothing can be written, and no other file be read."""
    from hir_core.inspect.sql import ask
    from hir_core.store.references import one_run

    with messages():
        found = ask(one_run(run, runs_dir), question)
        if as_json:
            answer(found.records(), as_json, lambda _: ())
        else:
            answer(found, as_json, lambda facts: _table(facts, rows, terminal_width()))


def path(ref: Ref, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Print the folder of a version."""
    from hir_core.store.references import find_version

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
    from hir_core.inspect import export as exports
    from hir_core.store.references import find_version

    with messages():
        rows = exports.export(*find_version(ref, runs_dir), to, out)
        answer({"rows": rows, "path": str(out)}, as_json, lambda _: [f"{number(rows)} rows in {printable(str(out))}"])


def verify(run: AnyRun = None, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Check every file, count, key and parent of a run, or of all; the exit code is 1 where something is damaged."""
    from hir_core.inspect.verify import check_run
    from hir_core.store.references import some_runs
    from hir_core.store.store import Store

    with messages():
        found = [check_run(Store(path)) for path in some_runs(run, runs_dir)]
        answer(found, as_json, lambda facts: [line for one in facts for line in _soundness(one)])
        if any(one["problems"] for one in found):
            raise typer.Exit(FOUND)


def report(
    run: OneRun = None,
    model: Annotated[
        str | None, typer.Option(help="Of this model's course: models@3 or models/<id>; else of the newest's.")
    ] = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Draw a run as one page that needs no network, and print its path; with --json the figures behind it."""
    from flows.report.write import draw
    from hir_core.store.references import one_run

    with messages():
        store = one_run(run, runs_dir)
        last = None if model is None else _model(store, model)
        if as_json:
            from dataclasses import asdict

            from hir_core.inspect.report import build_report

            print_json(asdict(build_report(store, last)))
            return
        path = draw(store, last)
        print(printable(str(path)))
        if is_opened and not webbrowser.open(path.resolve().as_uri()):
            print("no browser could be opened: open this file in one", file=sys.stderr)


def _model(store: Store, text: str) -> VersionRef:
    if not text.startswith(("models@", "models/")):
        raise VersionNotFound(f"--model: expected models@3, models@latest or models/<id>, found `{text}`")
    ref = store.resolve(text)
    store.manifest(ref)
    return ref


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
    from flows.terminal.version import rows_text

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


COMMANDS = (ls, show, head, sample, row, trace, stats, diff, sql, path, export, verify, report)
