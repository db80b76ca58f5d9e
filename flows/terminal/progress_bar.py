"""The status line at the foot of the terminal: what hir is doing, how far it is, and how long the rest will take.

A terminal gets a live bar below the lines that scroll. Where there is no terminal, or one that cannot redraw a line, a
plain line is printed whenever nothing was printed for a while. Everything that is printed while a run works goes
through here, so that it does not break the bar. Writes to standard output only.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.terminal.formatting import duration, printable
from hir_core.progress import Progress

SILENCE_S = 15.0
"""Where there is no live bar, a line of progress is printed after so many seconds without any line."""
FRAMES_PER_S = 8
LEAST, MOST = 8, 32
"""Columns of the bar itself."""
WIDE = 60
"""In terminals of fewer columns words come first: there is a bar only where they leave room for it."""


class StatusLine:
    """Shows what is being done and how far it is; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        # In a notebook rich would show every line as an element of its own, in HTML.
        self.console = console or Console(highlight=False, markup=False, soft_wrap=True, force_jupyter=False)
        self.activity = ""
        self.progress: Progress | None = None
        self._printed_at = self._started_at = time.monotonic()
        live = Live(self, console=self.console, refresh_per_second=FRAMES_PER_S, transient=True)
        self._live = live if can_redraw(self.console) else None

    def __enter__(self) -> StatusLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def print_above(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(printable(line))  # the names of tasks come from other people's files
        self._printed_at = time.monotonic()

    def update(self, activity: str, progress: Progress | None = None) -> None:
        """Shows what is being done from now on and, where it is known, how far it is."""
        if activity != self.activity:
            self._started_at = time.monotonic()
        self.activity, self.progress = activity, progress
        if self._live is None and time.monotonic() - self._printed_at > SILENCE_S:
            text = self._text()
            self.print_above(f"  {activity}: {text}" if text else f"  {activity}")

    def _text(self, room: int | None = None) -> str:
        """How far it is, in at most `room` characters; while nothing is done, how much there is to do and the time."""
        progress = self.progress
        if progress is not None and progress.done and progress.total:
            return progress_text(progress, room)
        passed = time.monotonic() - self._started_at
        total = "" if progress is None or not progress.total else f"{progress.total:,} {progress.unit}"
        facts = [total, duration(passed) if passed >= 1 else ""]
        return _first_that_fits([facts, facts[1:]], room)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line, which leaves room for the `^C` that a terminal prints: on a second line it would stay."""
        width = options.max_width - 3
        activity, progress = self.activity[:width], self.progress
        kept = LEAST + 1 if options.max_width >= WIDE else 0
        text = self._text(width - len(activity) - 1 - kept)
        free = width - len(activity) - 1 - (len(text) + 1 if text else 0)
        cells: list[Text | ProgressBar] = [Text(activity)]
        if activity and free >= LEAST:
            known = progress if progress is not None and progress.done and progress.total else None
            total, done = (known.total, known.done) if known else (None, 0)
            cells.append(ProgressBar(total=total, completed=done, width=min(MOST, free)))
        if text:
            cells.append(Text(text))
        line = Table.grid(padding=(0, 1), pad_edge=False)
        line.add_row(*cells)
        yield line


def can_redraw(console: Console) -> bool:
    """Whether the output is a terminal that can redraw a line, and the user has not asked for plain text."""
    is_plain_wanted = console.no_color or os.environ.get("CI", "").lower() not in ("", "0", "false")
    return console.file.isatty() and console.is_interactive and not console.is_dumb_terminal and not is_plain_wanted


def progress_text(progress: Progress, room: int | None = None) -> str:
    """How much of a step is done, how fast, and how long the rest takes at that speed.

    The time that is left is told from one percent on: the first of many outputs to end says little of the others.

    Args:
        progress: of a step that has something done.
        room: characters at most; what matters least is left out first.
    """
    done = f"{progress.done:,} of {progress.total:,} {progress.unit}"
    share = f"{progress.done / progress.total:.0%}".replace("%", " %")
    speed = f"{progress.tokens / progress.seconds:,.0f} tok/s" if progress.tokens and progress.seconds else ""
    loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
    rest = progress.seconds / progress.done * max(0, progress.total - progress.done)
    left = f"{duration(rest)} left" if progress.done >= 0.01 * progress.total else ""
    whole = [(done, speed, loss, left), (share, speed, loss, left), (share, speed, left)]
    return _first_that_fits([*whole, (share, left), (left,), (share,)], room)


def _first_that_fits(choices: Sequence[Sequence[str]], room: int | None) -> str:
    texts = [" · ".join(filter(None, facts)) for facts in choices]
    return next((text for text in texts if room is None or len(text) <= room), "")
