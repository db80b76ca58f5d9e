"""`hir head`, `sample`, `row`, `trace`, `stats`, `diff`: commands that look at the rows of versions and write nothing.

Exit codes: 0 fine; 1 `diff` found a difference, or a version that is read is damaged; 2 what was typed is wrong.
What is read is up to `hir_core`, how it is shown to modules beside this one; both are imported when a command runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import FOUND, RUNS, AsJson, Ref, RunsDir, answer, messages, terminal_width

if TYPE_CHECKING:
    import polars as pl

Key = Annotated[str, typer.Argument(help="A prompt_id, sample_id or triple_id, or its first digits; [RUN/] in front.")]
Where = Annotated[str | None, typer.Option(help="Only rows of which this SQL expression is true, as in 'k = 0'.")]
Columns = Annotated[str | None, typer.Option(help="Columns to show, with commas between: a,b.")]


def head(
    ref: Ref,
    rows: Annotated[int, typer.Option(min=0, help="Rows at most.")] = 10,
    where: Where = None,
    columns: Columns = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show the first rows of a version."""
    from flows.runs import find_version
    from hir_core import excerpts

    with messages():
        _answer_rows(excerpts.head(*find_version(ref, runs_dir), rows, where, _names(columns)), as_json)


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
    from flows.runs import find_version
    from hir_core import excerpts

    with messages():
        _answer_rows(excerpts.draw(*find_version(ref, runs_dir), rows, seed, where, _names(columns)), as_json)


def row(
    key: Key,
    iteration: Annotated[int | None, typer.Option(min=0, help="Only what belongs to this iteration.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show a prompt with its samples and scores, and the instruction that each was asked and became an example of."""
    from flows.runs import find_key
    from flows.stories import row_text
    from hir_core.lineage import story

    with messages():
        answer(story(*find_key(key, runs_dir), iteration), as_json, lambda facts: row_text(facts, terminal_width()))


def trace(key: Key, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Show the versions that a row comes from, up to its prompt and writer, and goes to, down to the trained models."""
    from flows.runs import find_key
    from flows.stories import trace_text
    from hir_core.lineage import trail

    with messages():
        answer(trail(*find_key(key, runs_dir)), as_json, lambda facts: trace_text(facts, terminal_width()))


def stats(ref: Ref, runs_dir: RunsDir = RUNS, as_json: AsJson = False) -> None:
    """Show a table in figures: rows, lengths, nulls, scores, duplicates, why samples ended, instructions, tasks."""
    from flows.measures import stats_text
    from flows.runs import find_version
    from hir_core.figures import figures

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
    from flows.measures import diff_text
    from flows.runs import find_version
    from hir_core.differences import Side, difference

    with messages():
        found = difference(Side(*find_version(a, runs_dir)), Side(*find_version(b, runs_dir)), key)
        answer(found, as_json, lambda facts: diff_text(facts, terminal_width()))
        if found["differs"]:
            raise typer.Exit(FOUND)


def _answer_rows(found: pl.DataFrame, as_json: bool) -> None:
    from flows.show import rows_text

    answer(found.to_dicts(), as_json, lambda rows: rows_text(rows, terminal_width()) if rows else ["no rows"])


def _names(columns: str | None) -> list[str]:
    return [] if columns is None else [name.strip() for name in columns.split(",")]


COMMANDS = (head, sample, row, trace, stats, diff)
