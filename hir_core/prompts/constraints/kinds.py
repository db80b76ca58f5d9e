"""Kinds that count: words, sentences and lines, each exactly, at least or at most."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from hir_core.prompts.constraints.constraint import (
    FINAL_MARKS,
    LETTER,
    NUMBER,
    ONE_WORD,
    Kind,
    folded_words,
    has_words,
    lines,
    sentences,
    words,
)

_PARTS: dict[str, Callable[[str], Sequence[str]]] = {"word": words, "sentence": sentences, "line": lines}
_BOUNDS: dict[str, Callable[[int, int], bool]] = {
    "exactly": operator.eq,
    "at least": operator.ge,
    "at most": lambda count, number: 0 < count <= number,  # saying nothing keeps no promise
}


def _kind(part: str, bound: str) -> Kind:
    parts, compare = _PARTS[part], _BOUNDS[bound]
    return Kind(
        name=f"{part}s_{bound.replace(' ', '_')}",
        sentence=f"Write {bound} {{}} {part}(s).",
        holds=lambda text, number: compare(len(parts(text)), number),
        parameter=NUMBER,
        theme=f"{part}s",
    )


AMOUNTS = tuple(_kind(part, bound) for part in _PARTS for bound in _BOUNDS)

BULLETS = ("- ", "* ", "• ")


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON, though Python reads it")


def _json_type(text: str) -> type | None:
    """The type of the JSON value that a text is; None where it is none."""
    try:
        # Numbers stay text: Python refuses to read very long ones, which are JSON all the same.
        return type(json.loads(text, parse_int=str, parse_constant=_refuse))
    except (ValueError, RecursionError):  # not JSON, or nested deeper than can be told
        return None


def _is_bulleted(text: str, items: int) -> bool:
    found = lines(text)
    return len(found) == items and all(line.startswith(BULLETS) and has_words(line) for line in found)


def _is_listed(text: str, items: int) -> bool:
    return text.count(",") + 1 == items and len(lines(text)) == 1 and all(map(has_words, text.split(",")))


FORMATS = (
    Kind(
        "json_object", "Write one JSON object and nothing else.", lambda text, _: _json_type(text) is dict, theme="form"
    ),
    Kind("json_list", "Write one JSON list and nothing else.", lambda text, _: _json_type(text) is list, theme="form"),
    Kind("bullets", "Write nothing but a bulleted list of {} item(s).", _is_bulleted, NUMBER, theme="form"),
    Kind("comma_list", "Write one line of {} item(s) with commas between them.", _is_listed, NUMBER, theme="form"),
    Kind(
        "ends_in_mark",
        "End with a full stop, a question mark or an exclamation mark.",
        lambda text, _: has_words(text) and text.rstrip().endswith(tuple(FINAL_MARKS)),
    ),
)


def _contains(text: str, word: str) -> bool:
    return word.casefold() in folded_words(text)


def _excludes(text: str, word: str) -> bool:
    return bool(folded_words(text)) and not _contains(text, word)


def _starts_with(text: str, word: str) -> bool:
    return folded_words(text)[:1] == (word.casefold(),)


def _ends_with(text: str, word: str) -> bool:
    return folded_words(text)[-1:] == (word.casefold(),)


KEYWORDS = (
    Kind("contains", "Use the word {}.", _contains, ONE_WORD),
    Kind("excludes", "Do not use the word {}.", _excludes, ONE_WORD),
    Kind("starts_with", "Begin with the word {}.", _starts_with, ONE_WORD),
    Kind("ends_with", "End with the word {}.", _ends_with, ONE_WORD),
)


def _is_title(text: str) -> bool:
    """Words without case, such as numbers, do not count, but all of them is not enough."""
    cased = [word for word in words(text) if word.lower() != word.upper()]
    return bool(cased) and all(word[0] != word[0].lower() and not _has_capitals(word[1:]) for word in cased)


def _has_capitals(text: str) -> bool:
    return any(char.isupper() for char in text)


def _all_begin_with(text: str, letter: str) -> bool:
    found = folded_words(text)
    return bool(found) and all(word.startswith(letter.casefold()) for word in found)


LETTERS = (
    Kind("lower_case", "Write in small letters only.", lambda text, _: text.islower(), theme="case"),
    Kind("upper_case", "Write in capital letters only.", lambda text, _: text.isupper(), theme="case"),
    Kind(
        "title_case",
        "Write the first letter of every word as a capital and all others small.",
        lambda text, _: _is_title(text),
        theme="case",
    ),
    Kind("initials", "Begin every word with the letter {}.", _all_begin_with, LETTER),
)

_NAMES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million billion"""
NUMBER_WORDS = frozenset(re.findall(r"\w+", _NAMES))
_DIGIT = re.compile(r"\d")


def _has_digits(text: str) -> bool:
    return _DIGIT.search(text) is not None


def _has_number_words(text: str) -> bool:
    return any(NUMBER_WORDS.issuperset(word.split("-")) for word in folded_words(text))


NUMERALS = (
    Kind(
        "numbers_in_digits",
        "Give a number, and write every number in digits.",
        lambda text, _: _has_digits(text) and not _has_number_words(text),
        theme="numbers",
    ),
    Kind(
        "numbers_in_words",
        "Give a number, and write every number in words.",
        lambda text, _: _has_number_words(text) and not _has_digits(text),
        theme="numbers",
    ),
)
