"""Numbers, sizes, times, long texts and tables as text for the terminal. Reads and writes nothing."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from hir_core.errors import printable as printable  # what shows texts takes it from here

NOTHING = "–"
NO_INSTRUCTION = "(no instruction)"
"""What is shown of an instruction that is empty, so that the prompt is the query alone."""


def number(value: float | None, form: str = ",") -> str:
    """A number in the given format, or a dash where there is none."""
    return NOTHING if value is None else format(value, form)


def quantity(count: int, word: str, plural_ending: str = "s") -> str:
    """A number of things, as in `1 version` or `2 versions`."""
    return f"{count:,} {word}{'' if count == 1 else plural_ending}"


def accuracy(evaluation: Mapping[str, Any]) -> str:
    """An accuracy with its confidence interval, from the summary of an evaluation."""
    if evaluation.get("accuracy") is None:
        return NOTHING
    return f"{evaluation['accuracy']:.3f} [{evaluation['low']:.3f}, {evaluation['high']:.3f}]"


def ruled_out(instruction: str, probability: float | None, removed: float) -> str:
    """Under which instruction an output is ruled out, and by how much, in words."""
    under = f'"{instruction}"' if instruction else "no instruction"
    return f"ruled out under {under}: {share_removed(probability, removed)}"


def share_removed(probability: float | None, removed: float) -> str:
    """How likely an output was, and how much of that is taken away, in words."""
    return f"probability {number(probability, '.3g')} when sampled, {100 * removed:.3g} % of it taken away"


def size(count: int) -> str:
    """A number of bytes in the largest unit that keeps it at 1 or more."""
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
    """How long ago a time of a manifest was."""
    return duration(max(0.0, (datetime.now(UTC) - datetime.fromisoformat(created)).total_seconds()))


def folded(text: str, width: int, lines: int = 4) -> list[str]:
    """A long text on at most so many lines, escaped; another line says how many characters are left out."""
    wrapped = textwrap.wrap(printable(text), width, drop_whitespace=False, replace_whitespace=False) or [""]
    if len(wrapped) <= lines:
        return wrapped
    rest = sum(map(len, wrapped[lines:]))
    return [*wrapped[:lines], f"… ({rest:,} more characters)"]


def printable_lines(text: str) -> str:
    """The text escaped but for its line breaks and tabs."""
    return "".join(c if c in "\n\t" else printable(c) for c in text)


def clipped(text: str, room: int) -> str:
    """A text on one line of at most so many characters, escaped."""
    escaped = printable(text)
    return escaped if len(escaped) <= room else f"{escaped[: max(0, room - 1)]}…"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """The lines of a table with aligned columns; `right` are the places of the columns aligned to the right."""
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [
            f"{cell:>{w}}" if i in right else f"{cell:<{w}}"
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(row) for row in [header, *rows]]
