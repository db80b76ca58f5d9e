"""The option that a completion names, read once for all prompts where nothing but a letter can name it.

Many outputs are alike, such as `The answer is (B).`: whichever options the letters stand for, they are read alike.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from hir_core.prompts.numbers import NUMBER_WORDS
from hir_core.rewards.reading.decision import final_answer
from hir_core.rewards.reading.options import OptionReader, spelled
from hir_core.rewards.reading.reader import Reading

# Short, since such a text is likely to be repeated, and of characters that have a form in lower case of one character.
_SIMPLE = re.compile(r"[\n -~À-ÿ–—‘’“”…]{0,100}")
_MARKUP = frozenset('\\<{[`"')
_DIGIT = re.compile(r"\d")


def named_option(reader: OptionReader, completion: str, marker: str | None = None) -> Reading:
    """The index of the option that a completion names, as `final_answer` finds it."""
    if _can_only_name_letters(reader, completion):
        return _read_letters(len(reader.letters), reader.computes, completion, marker)
    return final_answer(reader, completion, marker)


def _can_only_name_letters(reader: OptionReader, completion: str) -> bool:
    """Whether no option's text stands in a completion, however it is cut into parts and whatever marks are dropped.

    Without markup, all texts that are looked at in order to read a completion are parts of it, with fewer marks and
    blanks. So an option whose letters and digits do not follow each other in the completion is found in none of them.
    """
    if reader.depends_on_options:
        return False
    content = _content(completion)
    if content is None or (reader.computes and content.may_hold_numbers):
        return False
    return not any(spelling in content.spelling for spelling in reader.spellings)


class _Content(NamedTuple):
    """What options are looked for in."""

    spelling: str
    may_hold_numbers: bool


@lru_cache(maxsize=4096)
def _content(completion: str) -> _Content | None:
    """What a short completion says; None for one that is long, or has markup or rare characters."""
    if _SIMPLE.fullmatch(completion) is None or not _MARKUP.isdisjoint(completion):
        return None
    spelling = spelled(completion)
    has_numbers = _DIGIT.search(spelling) is not None or any(word in spelling for word in NUMBER_WORDS)
    return _Content(spelling, has_numbers)


@lru_cache(maxsize=4096)
def _read_letters(letters: int, computes: bool, completion: str, marker: str | None) -> Reading:
    return final_answer(_letter_reader(letters, computes), completion, marker)


@lru_cache(maxsize=64)
def _letter_reader(letters: int, computes: bool) -> OptionReader:
    """A reader of options that have letters and no texts."""
    reader = OptionReader([""] * letters, "(A)")
    reader.computes = computes
    return reader
