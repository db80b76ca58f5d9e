"""The commands that inspect runs, versions and rows: `hir ls`, `show`, `head`, `row`, `trace`, `diff` and others.

Each reads the store and changes nothing in it; `report` writes a new file. Exit code 1 where `diff` finds a
difference or `verify` damage. What a command needs is imported when it runs, so that `hir --help` stays fast.
"""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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
from hir_core.errors import ConfigError, VersionNotFound

if TYPE_CHECKING:
    from hir_core.inspect.sql import QueryResult
    from hir_core.inspect.verify import RunCheck

Key = Annotated[str, typer.Argument(help="[RUN/]KEY: a prompt_id, sample_id or triple_id, or its first characters.")]
Where = Annotated[str | None, typer.Option(help="Only rows for which this SQL condition is true, as in 'k = 0'.")]
Columns = Annotated[str | None, typer.Option(help="Only these columns, separated by commas: a,b.")]
AnyRun = Annotated[str | None, typer.Argument(help="A run, by name or folder; all runs if left out.")]
CELL = 60
"""Characters at most of a cell of `hir sql`."""


# --- versions --------------------------------------------------------------------------------------------------------


def ls(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs, by name or folder, whose versions to list.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """List all runs, or the versions of the runs that are named."""
    from flows.terminal.version_list import describe_runs, describe_versions, runs_text, versions_text
    from hir_core.store.references import find_run

    with messages():
        if runs:
            versions = [facts for name in runs for facts in describe_versions(find_run(name, runs_dir))]
            width = terminal_width() if sys.stdout.isatty() else None
            answer(versions, as_json, lambda facts: versions_text(facts, width))
        else:
            no_runs = f"no runs in {runs_dir}: start one with `hir run quickstart`"
            answer(describe_runs(runs_dir), as_json, lambda facts: runs_text(facts) if facts else [no_runs])


def show(
    ref: Ref,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="How many rows of the table to show.")] = 3,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show a version: its manifest, files and columns, and the first rows."""
    from flows.terminal.version import describe, first_rows, rows_text, version_text
    from hir_core.store.references import find_version

    with messages():
        store, version = find_version(ref, runs_dir)
        if as_json:
            print_json({**describe(store, version), "first_rows": first_rows(store, version, rows)})
            return
        print_lines(version_text(store, version, terminal_width()))
        print_lines(rows_text(first_rows(store, version, rows), terminal_width()))


def path(ref: Ref, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Print the folder of a version."""
    from hir_core.store.references import find_version

    with messages():
        _, version = find_version(ref, runs_dir)
        folder = str(version.path.resolve())
        answer({"version": str(version), "path": folder}, as_json, lambda _: [printable(folder)])


def verify(run: AnyRun = None, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Check files, row counts, keys and parents of a run, or of all runs; exit code 1 if something is damaged."""
    from hir_core.inspect.verify import check_run
    from hir_core.store.references import select_runs
    from hir_core.store.store import Store

    with messages():
        checks = [check_run(Store(folder)) for folder in select_runs(run, runs_dir)]
        answer(checks, as_json, lambda _: [line for check in checks for line in _check_lines(check)])
        if any(check["problems"] for check in checks):
            raise typer.Exit(FOUND)


def _check_lines(check: RunCheck) -> Iterator[str]:
    counts = f"{number(check['versions'])} versions · {number(check['files'])} files · {size(check['bytes'])}"
    problems = check["problems"]
    damaged = len({problem["version"] for problem in problems})
    yield f"{printable(check['run'])} · {counts} · {f'{number(damaged)} damaged' if problems else 'sound'}"
    for problem in problems:
        text = problem["problem"].removeprefix(problem["version"]).removeprefix(":").strip()
        yield f"  {problem['version']}  {printable(text)}"


# --- tables ----------------------------------------------------------------------------------------------------------


def head(
    ref: Ref,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="How many rows to show at most.")] = 10,
    seed: Annotated[int | None, typer.Option(help="Show rows drawn at random by this seed, not the first.")] = None,
    where: Where = None,
    columns: Columns = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show the first rows of a version's table or, with --seed, rows drawn at random."""
    from flows.terminal.version import rows_text
    from hir_core.inspect import rows as table_rows
    from hir_core.store.references import find_version

    with messages():
        names = [] if columns is None else [name.strip() for name in columns.split(",")]
        table = table_rows.head(*find_version(ref, runs_dir), rows, where, names, seed)
        answer(table.to_dicts(), as_json, lambda rows: rows_text(rows, terminal_width()) if rows else ["no rows"])


def stats(ref: Ref, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Show the statistics of a version's table: lengths, nulls, scores, duplicates, instructions, by task."""
    from flows.terminal.stats import stats_text
    from hir_core.inspect.stats import table_stats
    from hir_core.store.references import find_version

    with messages():
        answer(table_stats(*find_version(ref, runs_dir)), as_json, lambda facts: stats_text(facts, terminal_width()))


def diff(
    a: Ref,
    b: Ref,
    key: Annotated[
        str | None, typer.Option(help="Show only the rows about this prompt, sample or triple, as a text diff.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show how two versions of a stage differ, their rows matched by prompt and k; exit code 1 if they do."""
    from flows.terminal.stats import diff_text
    from hir_core.inspect.diff import Side, difference
    from hir_core.store.references import find_version

    with messages():
        result = difference(Side(*find_version(a, runs_dir)), Side(*find_version(b, runs_dir)), key)
        answer(result, as_json, lambda _: diff_text(result, terminal_width()))
        if result["differs"]:
            raise typer.Exit(FOUND)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; each stage is a view with iteration and version.")],
    run: OneRun = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=0, help="How many rows to show; --json prints all.")] = 40,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Query all versions of a run with SQL, read-only; needs the extra `sql`."""
    from hir_core.inspect.sql import run_query
    from hir_core.store.references import select_run

    with messages():
        result = run_query(select_run(run, runs_dir), query)
        if as_json:
            print_json(result.records())
        else:
            print_lines(_result_lines(result, rows, terminal_width()))


def _result_lines(result: QueryResult, most: int, width: int) -> Iterator[str]:
    """Rows in aligned columns, or one below another where the terminal is too narrow for that."""
    from flows.terminal.version import rows_text

    def cell(value: object) -> str:
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        return NOTHING if value is None else clipped(text, CELL)

    rows = result.rows[:most]
    numeric = [n for n in range(len(result.columns)) if all(isinstance(row[n], (int, float)) for row in rows)]
    header = [clipped(name, CELL) for name in result.columns]
    lines = columns(header, [[cell(value) for value in row] for row in rows], right=numeric)
    is_narrow = max(map(len, lines)) > width
    yield from rows_text(result.records()[:most], width) if is_narrow else lines
    if len(result.rows) > most:
        yield f"… and {number(len(result.rows) - most)} more rows"


# --- rows ------------------------------------------------------------------------------------------------------------


def row(
    key: Key,
    iteration: Annotated[
        int | None, typer.Option(min=0, help="Only samples and evaluations of this iteration.")
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show a prompt with its samples, their scores, and each instruction before and after relabeling."""
    from flows.terminal.row import row_text
    from hir_core.inspect.lineage import row_history
    from hir_core.inspect.row_lookup import run_of_row
    from hir_core.store.references import find_key

    with messages():
        stores, text = find_key(key, runs_dir)
        history = row_history(run_of_row(stores, text), text, iteration)
        answer(history, as_json, lambda _: row_text(history, terminal_width()))


def trace(key: Key, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Show which versions a row comes from, and which models were trained on it."""
    from flows.terminal.row import trace_text
    from hir_core.inspect.lineage import trace as trace_row
    from hir_core.inspect.row_lookup import run_of_row
    from hir_core.store.references import find_key

    with messages():
        stores, text = find_key(key, runs_dir)
        traced = trace_row(run_of_row(stores, text), text)
        answer(traced, as_json, lambda _: trace_text(traced, terminal_width()))


# --- the run as a page -----------------------------------------------------------------------------------------------


def report(
    runs: Annotated[
        list[str] | None, typer.Argument(help="A run, by name or folder, or several to compare on one page.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to report on, models@3 or models/<id>; the newest if left out.")
    ] = None,
    is_opened: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Write an HTML page about a run, or about several, and print its path; with --json print the numbers behind it."""
    from flows.report.write import write_report, write_runs_report
    from hir_core.store.references import select_run

    with messages():
        names: list[str | None] = [*dict.fromkeys(runs or ())] or [None]
        stores = [select_run(name, runs_dir) for name in names]
        if len(stores) > 1 and (model is not None or as_json):
            raise ConfigError("--model and --json are for one run: name one")
        store, last = stores[0], None
        if model is not None:
            if not model.startswith(("models@", "models/")):
                raise VersionNotFound(f"--model: expected models@3, models@latest or models/<id>, found `{model}`")
            last = store.resolve(model)
            store.manifest(last)  # raises where the version is damaged
        if as_json:
            from dataclasses import asdict

            from hir_core.inspect.report import build_report

            print_json(asdict(build_report(store, last)))
            return
        page = write_report(store, last) if len(stores) == 1 else write_runs_report(stores, runs_dir / "report.html")
        print(printable(str(page)))
        if is_opened and not webbrowser.open(page.resolve().as_uri()):
            print("no browser could be opened: open this file in one", file=sys.stderr)


COMMANDS = (ls, show, head, row, trace, stats, diff, sql, path, verify, report)
