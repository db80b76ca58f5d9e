"""Writing the report of a run into its folder, for `hir report` and for the flow after every iteration; or of several.

`hir_core.inspect.report` reads what the report says, `flows.report.page` draws it; both are imported only when a report
is written, as commands must start fast. The file is written as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.terminal.formatting import clipped
from hir_core.inspect.report import page_path

if TYPE_CHECKING:
    from hir_core.store.store import Store
    from hir_core.store.version import VersionRef


PROBLEM_CHARACTERS = 300
HEAD_CHARACTERS = 2_000
"""In so many characters at its start a page names its model."""


def write_report(store: Store, last: VersionRef | None = None) -> Path:
    """Writes the report up to a model, by default the one committed last, and returns its path.

    Raises:
        VersionCorrupt: a version is damaged.
        StoreError: the file cannot be written.
    """
    from flows.report.page import page
    from hir_core.inspect.report import build_report
    from hir_core.store.files import write_text

    return write_text(page_path(store), page(build_report(store, last)))


def write_runs_report(stores: Sequence[Store], path: Path) -> Path:
    """Writes a page that compares several runs, each up to its newest model, and returns its path.

    Raises:
        ConfigError: there are more runs than can be told apart.
        VersionCorrupt: a version is damaged.
        StoreError: the file cannot be written.
    """
    from flows.report.runs_page import runs_page
    from hir_core.inspect.report import build_report
    from hir_core.store.files import write_text

    return write_text(path, runs_page([build_report(store) for store in stores]))


def is_drawn(store: Store, last: VersionRef) -> bool:
    """Whether the page in the run's folder is the report up to this model."""
    try:
        with page_path(store).open(encoding="utf-8") as file:
            return f'<meta name="model" content="{last}">' in file.read(HEAD_CHARACTERS)
    except (OSError, UnicodeDecodeError):
        return False


def update_report(store: Store, last: VersionRef, say: Callable[[str], None]) -> None:
    """Writes the report of a run that is still going on; an error becomes a warning and does not stop the run."""
    try:
        write_report(store, last)
    except Exception as error:  # noqa: BLE001 - a run must not fail because its report does
        problem = clipped(f"{type(error).__name__}: {error}", PROBLEM_CHARACTERS)
        say(f"warning: {page_path(store)} was not updated ({problem}); `hir report` tries again")
