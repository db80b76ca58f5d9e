"""Lettered options inside a query: how they are written, how they are read back, and which references name them.

An options block ends the query, one option a line, either lettered or as a list:

    Options:          Options:
    (A) a red hat     - Yes
    (B) a blue hat    - No
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from hir_core.prompts.rng import SeededRng

MAX_OPTIONS = len(string.ascii_uppercase)
_HEAD = "Options:"
_LETTERED = re.compile(r"(?P<letter>\([A-Z]\)) ?(?P<text>.*)")
_LISTED = re.compile(r"- ?(?P<text>.*)")


class Written(NamedTuple):
    """A query taken apart: what stands before its options block, and the options."""

    before: str
    options: tuple[str, ...]
    lettered: bool


def letter(index: int) -> str:
    """The name of the option at an index: 0 is `(A)`."""
    return f"({string.ascii_uppercase[index]})"


def with_options(question: str, options: Sequence[str]) -> str:
    """The question followed by its options, one a line, lettered."""
    lines = [f"{letter(index)} {text}" for index, text in enumerate(options)]
    return "\n".join([question, "Options:", *lines])


def shuffled_options(question: str, options: Sequence[str], seed: int) -> list[str]:
    """The options in an order decided by question and seed alone, whatever order they are given in."""
    return SeededRng("options", seed, question, sorted(options)).shuffled(sorted(options))


def read_options(query: str) -> Written:
    """Takes a query apart; it has no options where it does not end with a block of them."""
    start = query.rfind(_HEAD)
    if start >= 0 and query[:start][-1:] in ("", "\n"):
        lines = [line.strip() for line in query[start + len(_HEAD) :].split("\n") if line.strip()]
        for pattern, lettered in ((_LETTERED, True), (_LISTED, False)):
            if options := _texts(lines, pattern):
                return Written(query[:start].rstrip(), options, lettered)
    return Written(query, (), False)


def accepted(right: Sequence[int], options: Sequence[str], *, lettered: bool = True) -> tuple[str, ...]:
    """References for the right options: each by letter, then by text where no other option reads the same."""
    names = [letter(index) for index in right] if lettered else []
    texts = [options[index] for index in right if list(options).count(options[index]) == 1]
    return (*names, *texts)


def _texts(lines: Sequence[str], pattern: re.Pattern[str]) -> tuple[str, ...]:
    """The options' texts, or none where a line is not an option or its letter is not the next one."""
    matches = [match for match in map(pattern.fullmatch, lines) if match]
    in_order = all(
        match.groupdict().get("letter", letter(i)) == letter(i) for i, match in enumerate(matches[:MAX_OPTIONS])
    )
    if len(matches) < len(lines) or len(lines) > MAX_OPTIONS or not in_order:
        return ()
    return tuple(match["text"].strip() for match in matches)
