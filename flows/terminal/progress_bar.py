"""The line at the foot of a terminal that says what is being done, how far it is and how long it will take.

A terminal gets a live bar, below lines that scroll on; where there is none, or none that can redraw a line, a plain
line comes whenever nothing was said for a while. Everything that is shown while hir works goes through here. Writes to
standard output only; leaves what is being done to whoever says it.
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
"""Where there is no live bar, a line of progress comes when nothing was said for so long."""
FRAMES_PER_S = 8
LEAST, MOST = 8, 32
"""Columns of the bar itself."""
WIDE = 60
"""Terminals of fewer columns keep them for words: they have a bar only where the words leave room."""


class StatusLine:
    """Says what is being done; use it as a context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, markup=False, soft_wrap=True)
        self.doing = ""
        self.progress: Progress | None = None
        self.spoke = self.began = time.monotonic()
        shown = Live(self, console=self.console, refresh_per_second=FRAMES_PER_S, transient=True)
        self._live = shown if can_redraw(self.console) else None

    def __enter__(self) -> StatusLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(printable(line))  # tasks are named in files of others
        self.spoke = time.monotonic()

    def tell(self, doing: str, progress: Progress | None = None) -> None:
        """Shows what is being done from now on, and how far it is where somebody knows."""
        if doing != self.doing:
            self.began = time.monotonic()
        self.doing, self.progress = doing, progress
        if self._live is None and time.monotonic() - self.spoke > SILENCE_S:
            facts = self._facts()
            self.say(f"  {doing}: {facts}" if facts else f"  {doing}")

    def _facts(self, room: int | None = None) -> str:
        """What is known, in so many characters at most; how long it takes already while nothing is done."""
        if self.progress is not None and self.progress.done and self.progress.total:
            return told(self.progress, room)
        passed = time.monotonic() - self.began
        facts = [_asked(self.progress), duration(passed) if passed >= 1 else ""]
        return _first_that_fits([facts, facts[1:]], room)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """One line, which leaves room for the `^C` that a terminal shows: on a second line it would stay."""
        width = options.max_width - 3
        doing = self.doing[:width]
        kept = LEAST + 1 if options.max_width >= WIDE else 0
        facts = self._facts(width - len(doing) - 1 - kept)
        free = width - len(doing) - 1 - (len(facts) + 1 if facts else 0)
        cells: list[Text | ProgressBar] = [Text(doing)]
        if doing and free >= LEAST:
            cells.append(self._line(min(MOST, free)))
        if facts:
            cells.append(Text(facts))
        line = Table.grid(padding=(0, 1), pad_edge=False)
        line.add_row(*cells)
        yield line

    def _line(self, width: int) -> ProgressBar:
        progress = self.progress
        if progress is None or not progress.done or not progress.total:
            return ProgressBar(total=None, width=width)
        return ProgressBar(total=progress.total, completed=progress.done, width=width)


def can_redraw(console: Console) -> bool:
    """Whether a person sits at a terminal that can draw a line anew, and has not asked for plain text."""
    asked_for_plain = console.no_color or os.environ.get("CI", "").lower() not in ("", "0", "false")
    return console.file.isatty() and console.is_interactive and not console.is_dumb_terminal and not asked_for_plain


def told(progress: Progress, room: int | None = None) -> str:
    """How far a step that has something done is, how fast, and how long the rest takes at that speed.

    Args:
        room: characters at most; what matters least is left out first.
    """
    done = f"{progress.done:,} of {progress.total:,} {progress.unit}"
    share = f"{progress.done / progress.total:.0%}".replace("%", " %")
    speed = f"{progress.tokens / progress.seconds:,.0f} tok/s" if progress.tokens and progress.seconds else ""
    loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
    left = f"{duration(progress.seconds / progress.done * max(0, progress.total - progress.done))} left"
    whole = [(done, speed, loss, left), (share, speed, loss, left), (share, speed, left)]
    return _first_that_fits([*whole, (share, left), (left,), (share,)], room)


def _asked(progress: Progress | None) -> str:
    return "" if progress is None or not progress.total else f"{progress.total:,} {progress.unit}"


def _first_that_fits(choices: Sequence[Sequence[str]], room: int | None) -> str:
    texts = [" · ".join(filter(None, facts)) for facts in choices]
    return next((text for text in texts if room is None or len(text) <= room), "")
