"""Options of a multiple-choice query: written below the question, read back from a query, and named by references.

The options stand at the end of the query, one per line, either lettered or as a list:

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
_HEADING = "Options:"
_LETTERED = re.compile(r"(?P<letter>\([A-Z]\)) ?(?P<text>.*)")
_LISTED = re.compile(r"- ?(?P<text>.*)")


class ParsedQuery(NamedTuple):
    """A query split into its question and its options."""

    question: str
    options: tuple[str, ...]
    lettered: bool
    """Whether the options have letters; False too where there are no options."""


def letter(index: int) -> str:
    """The name of the option at an index: 0 is `(A)`."""
    return f"({string.ascii_uppercase[index]})"


def with_options(question: str, options: Sequence[str]) -> str:
    """The question followed by its options, lettered, one per line."""
    return "\n".join([question, _HEADING, *(f"{letter(index)} {option}" for index, option in enumerate(options))])


def shuffled_options(question: str, options: Sequence[str], seed: int) -> list[str]:
    """The options in an order that depends on the question and the seed, not on the order in which they are given."""
    return SeededRng("options", seed, question, sorted(options)).shuffled(sorted(options))


def read_options(query: str) -> ParsedQuery:
    """The question and the options of a query; without options where the query does not end with a block of them."""
    start = query.rfind(_HEADING)
    if start >= 0 and query[:start][-1:] in ("", "\n"):
        lines = [line.strip() for line in query[start + len(_HEADING) :].split("\n") if line.strip()]
        for pattern, lettered in ((_LETTERED, True), (_LISTED, False)):
            matches = [match for match in map(pattern.fullmatch, lines) if match]
            if not 0 < len(matches) == len(lines) <= MAX_OPTIONS:
                continue  # some line is not an option, or there are none
            if not lettered or all(match["letter"] == letter(index) for index, match in enumerate(matches)):
                return ParsedQuery(query[:start].rstrip(), tuple(m["text"].strip() for m in matches), lettered)
    return ParsedQuery(query, (), False)


def option_references(right: Sequence[int], options: Sequence[str], *, lettered: bool = True) -> tuple[str, ...]:
    """References for the right options, given by index: their letters, then their texts.

    A text that two options share does not say which one is meant, so it is left out.
    """
    names = [letter(index) for index in right] if lettered else []
    texts = [options[index] for index in right if list(options).count(options[index]) == 1]
    return (*names, *texts)
