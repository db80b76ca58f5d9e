"""The thinking of a model within its output, told apart from the answer by the marks around it.

The rule is the same for every pair of marks: `rewards.reading` takes those that models are known to write, the setting
`model.thinking` names the run's own. Reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Mark(NamedTuple):
    """A mark in a text at which thinking starts or ends."""

    first: int
    """Of its first character."""
    after: int
    """Of the character after its last one."""
    is_end: bool


class Outside(NamedTuple):
    """What of a text stands outside its thinking."""

    parts: list[str]
    unfinished_from: int | None
    """Where the text's thinking begins that has no end; None where all has one."""


def outside_thinking(text: str, marks: Iterable[Mark]) -> Outside:
    """What of a text stands outside its thinking, given its marks in their order.

    A part without a start began before the text, as where the chat template ends with the start mark; one without an
    end is not finished, and goes on to the end of the text.
    """
    parts: list[str] = []
    start, is_inside = 0, False
    for mark in marks:
        if mark.is_end and not is_inside:
            parts.clear()
        elif not mark.is_end and not is_inside:
            parts.append(text[start : mark.first])
        start, is_inside = mark.after, not mark.is_end
    if is_inside:
        return Outside(parts, start)
    return Outside([*parts, text[start:]], None)
