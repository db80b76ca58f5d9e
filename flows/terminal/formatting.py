"""How numbers, times and texts are written for a person at a terminal. Reads and writes nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

NOTHING = "–"


def number(value: float | None, form: str = ",") -> str:
    """A number in the given format, or a dash where there is none."""
    return NOTHING if value is None else format(value, form)


def accuracy(facts: Mapping[str, Any]) -> str:
    """An accuracy with its interval, from an evaluation's summary."""
    if facts.get("accuracy") is None:
        return NOTHING
    return f"{facts['accuracy']:.3f} [{facts['low']:.3f}, {facts['high']:.3f}]"


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def duration(seconds: float) -> str:
    """Seconds in at most six characters."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 100 else f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} d"


def age(created: str) -> str:
    """How long ago a manifest's time is."""
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()))


def printable(text: str) -> str:
    """The text with every control character, direction mark and the like escaped, so that none acts on the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def folded(text: str, width: int, lines: int = 4) -> list[str]:
    """A long text on a few lines; says how much is left out."""
    shown = printable(text)
    wrapped = textwrap.wrap(shown, width, drop_whitespace=False, replace_whitespace=False) or [""]
    if len(wrapped) <= lines:
        return wrapped
    rest = sum(map(len, wrapped[lines:]))
    return [*wrapped[:lines], f"… ({rest:,} more characters)"]


def clipped(text: str, room: int) -> str:
    """A text on one line of at most so many characters, escaped."""
    shown = printable(text)
    return shown if len(shown) <= room else f"{shown[: max(0, room - 1)]}…"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines of an aligned table; `right` are the columns whose ends stand below each other."""
    widths = [max(len(row[place]) for row in [header, *rows]) for place in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            f"{cell:>{w}}" if i in right else f"{cell:<{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(row) for row in [header, *rows]]
