"""`hir report`: a run as one page, `report.html` in its folder, drawn on demand and by the flow after every iteration.

What stands in it is up to `hir_core.reporting`, how it looks to `page`; both are imported when something is drawn. The
page appears whole or not at all. Exit codes: 0 drawn; 1 a version is damaged; 2 what was typed is wrong.
"""

from __future__ import annotations

import sys
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.terminal import RUNS, AsJson, OneRun, RunsDir, messages, print_json
from flows.wording import clipped, printable
from hir_core.errors import VersionNotFound

if TYPE_CHECKING:
    from hir_core.store import Store
    from hir_core.versions import StageRef

PROBLEM = 300


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
    from flows.runs import one_run

    with messages():
        store = one_run(run, runs_dir)
        last = None if model is None else _model(store, model)
        if as_json:
            from hir_core.reporting import report as figures

            print_json(figures(store, last))
            return
        path = draw(store, last)
        print(printable(str(path)))
        if is_opened and not webbrowser.open(path.resolve().as_uri()):
            print("no browser could be opened: open this file in one", file=sys.stderr)


def page_path(store: Store) -> Path:
    """Where the page of a run lies."""
    return store.run_dir / "report.html"


def draw(store: Store, last: StageRef | None = None) -> Path:
    """Draws the course of a model, the newest one's where none is named, and returns the page.

    Raises:
        VersionCorrupt: a version is damaged.
        StoreError: the page cannot be written.
    """
    from flows.page import page
    from hir_core.parts import write_text
    from hir_core.reporting import report as figures

    return write_text(page_path(store), page(figures(store, last)))


def keep_drawn(store: Store, last: StageRef, say: Callable[[str], None]) -> None:
    """Draws the page while a run goes on; what stops the drawing becomes a warning and does not stop the run."""
    try:
        draw(store, last)
    except Exception as error:  # noqa: BLE001 - the run is worth more than its picture, whatever is wrong with that
        problem = clipped(f"{type(error).__name__}: {error}", PROBLEM)
        say(f"warning: {page_path(store)} was not drawn anew ({problem}); `hir report` tries again")


def _model(store: Store, text: str) -> StageRef:
    if not text.startswith(("models@", "models/")):
        raise VersionNotFound(f"--model: expected models@3, models@latest or models/<id>, found `{text}`")
    ref = store.resolve(text)
    store.manifest(ref)
    return ref


COMMANDS = (report,)
