"""`hir report`: a run as one page, `report.html` in its folder, drawn on demand and by the flow after every iteration.

What stands in it is up to `hir_core.reporting`, how it looks to `page`; both are imported when something is drawn. The
page appears whole or not at all. Exit codes: 0 drawn; 1 a version is damaged; 2 what was typed is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal.formatting import clipped
from hir_core.inspect.report import page_path

if TYPE_CHECKING:
    from hir_core.store.store import Store
    from hir_core.store.version import VersionRef


PROBLEM = 300


def draw(store: Store, last: VersionRef | None = None) -> Path:
    """Draws the course of a model, the newest one's where none is named, and returns the page.

    Raises:
        VersionCorrupt: a version is damaged.
        StoreError: the page cannot be written.
    """
    from flows.report.page import page
    from hir_core.inspect.report import report as figures
    from hir_core.store.files import write_text

    return write_text(page_path(store), page(figures(store, last)))


def redraw(store: Store, last: VersionRef, say: Callable[[str], None]) -> None:
    """Draws the page while a run goes on; what stops the drawing becomes a warning and does not stop the run."""
    try:
        draw(store, last)
    except Exception as error:  # noqa: BLE001 - the run is worth more than its picture, whatever is wrong with that
        problem = clipped(f"{type(error).__name__}: {error}", PROBLEM)
        say(f"warning: {page_path(store)} was not drawn anew ({problem}); `hir report` tries again")
