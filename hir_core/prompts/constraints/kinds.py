"""The kinds of constraints, in five families: amounts, keywords, letters, numerals and formats.

A text without words satisfies no kind, except that `{}` and `[]` are JSON: an empty completion meets no constraint.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from hir_core.prompts.constraints.constraint import LETTER, NUMBER, ONE_WORD, Kind
from hir_core.prompts.constraints.markdown import BULLETS, plain, without_json_fence
from hir_core.prompts.constraints.sentences import CLOSING, FINAL_MARKS
from hir_core.prompts.constraints.units import folded, folded_words, has_words, lines, paragraphs, sentences, words
from hir_core.prompts.numbers import SPELLED_BELOW, number_word

# --- amounts: words, sentences, lines and paragraphs, each exactly, at least or at most ------------------------------

_UNITS: dict[str, Callable[[str], Sequence[str]]] = {
    "word": words,
    "sentence": sentences,
    "line": lines,
    "paragraph": paragraphs,
}
_BOUNDS: dict[str, Callable[[int, int], bool]] = {
    "exactly": operator.eq,
    "at least": operator.ge,
    "at most": lambda count, number: 0 < count <= number,  # an empty text does not count as short
}


def _amount(unit: str, bound: str) -> Kind:
    split, compare = _UNITS[unit], _BOUNDS[bound]
    return Kind(
        name=f"{unit}s_{bound.replace(' ', '_')}",
        sentence=f"Write {bound} {{}} {unit}(s).",
        holds=lambda text, number: compare(len(split(text)), number),
        parameter=NUMBER,
        theme=f"{unit}s",
    )


AMOUNTS = tuple(_amount(unit, bound) for unit in _UNITS for bound in _BOUNDS)


# --- keywords: words that the text must have or must not have, whatever their case -----------------------------------

KEYWORDS = (
    Kind("contains", "Use the word {}.", lambda text, word: folded(word) in folded_words(text), ONE_WORD),
    Kind(
        "excludes",
        "Do not use the word {}.",
        lambda text, word: has_words(text) and folded(word) not in folded_words(text),
        ONE_WORD,
    ),
    Kind(
        "starts_with",
        "Begin with the word {}.",
        lambda text, word: folded_words(text)[:1] == (folded(word),),
        ONE_WORD,
    ),
    Kind(
        "ends_with",
        "End with the word {}.",
        lambda text, word: folded_words(text)[-1:] == (folded(word),),
        ONE_WORD,
    ),
)


# --- letters: their case, and the first letter of every word ---------------------------------------------------------


# After a letter and an apostrophe a new part begins, as in `O'Neill`, but not with the `s` of `it's`.
_PARTS = re.compile(r"[^\W_]+(?:['’][^\W_]{1,2}(?![^\W_]))?")


def _is_title(text: str) -> bool:
    """Words without case, such as numbers, are ignored, but a text of such words only is no title.

    A part of a word, as in `Well-Known`, may begin with a capital too.
    """
    cased = [word for word in words(text) if word.lower() != word.upper()]
    return bool(cased) and all(word[0] != word[0].lower() and _has_small_ends(word) for word in cased)


def _has_small_ends(word: str) -> bool:
    return word[1:].islower() or all(part[1:] == part[1:].lower() for part in _PARTS.findall(word))


LETTERS = (
    Kind("lower_case", "Write in small letters only.", lambda text, _: text.islower(), theme="case"),
    Kind("upper_case", "Write in capital letters only.", lambda text, _: text.isupper(), theme="case"),
    Kind(
        "title_case",
        "Write the first letter of every word as a capital and all others small.",
        lambda text, _: _is_title(text),
        theme="case",
    ),
    Kind(
        "initials",
        "Begin every word with the letter {}.",
        lambda text, letter: bool(words(text)) and all(w.startswith(folded(letter)) for w in folded_words(text)),
        LETTER,
    ),
)


# --- numerals: numbers in digits or in words -------------------------------------------------------------------------

NUMBER_WORDS = frozenset(
    [
        *(part for number in range(SPELLED_BELOW) for part in number_word(number).split("-")),
        *("hundred", "thousand", "million", "billion", "trillion"),
    ]
)
_DIGIT = re.compile(r"\d")


def _has_digits(text: str) -> bool:
    return _DIGIT.search(plain(text)) is not None


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


# --- formats: JSON, lists, commas, and a final mark ------------------------------------------------------------------

_BULLET = re.compile(rf"\s*(?:[{BULLETS}]\s|[•◦▪●‣])")
_NUMBERED = re.compile(r"(?P<indent>\s*)(?:\*\*|__)?(?P<number>[1-9]\d{0,5})[.)](?:\*\*|__)?\s")
_INDENT = "  "  # or more
_COMMAS = ",，、،﹐﹑"
_COMMA = re.compile(rf"[{_COMMAS}](?!(?<=\d,)\d)")  # not that of `1,000`


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON, though Python reads it")


def _json_type(text: str) -> type | None:
    """The type of the JSON value that the text is, with or without a code fence; None where it is not JSON."""
    try:
        # Numbers stay text: Python refuses to convert very long ones, which are valid JSON.
        return type(json.loads(without_json_fence(text), parse_int=str, parse_constant=_refuse))
    except (ValueError, RecursionError):  # not JSON, or nested too deeply to be parsed
        return None


def _is_bulleted(text: str, items: int) -> bool:
    """An indented line without a bullet belongs to the item above it."""
    found = 0
    for line in filter(str.strip, text.splitlines()):
        if _BULLET.match(line) and has_words(line):
            found += 1
        elif not found or not _is_indented(line):
            return False
    return found == items


def _is_numbered(text: str, items: int) -> bool:
    """An indented line, with a number of its own or without, belongs to the item above it."""
    found, indent = 0, 0
    for line in filter(str.strip, text.splitlines()):
        mark = _NUMBERED.match(line)
        if mark and (not found or len(mark["indent"]) < indent + len(_INDENT)):
            if int(mark["number"]) != found + 1 or not has_words(line[mark.end() :]):
                return False
            found, indent = found + 1, indent if found else len(mark["indent"])
        elif not found or not _is_indented(line):
            return False
    return found == items


def _is_indented(line: str) -> bool:
    return line.startswith((_INDENT, "\t"))


def _is_comma_list(text: str, items: int) -> bool:
    if len(text.strip().splitlines()) != 1:
        return False
    parts = _COMMA.split(text)
    return len(parts) == items and all(map(has_words, parts))


FORMATS = (
    Kind(
        "json_object", "Write one JSON object and nothing else.", lambda text, _: _json_type(text) is dict, theme="form"
    ),
    Kind("json_list", "Write one JSON list and nothing else.", lambda text, _: _json_type(text) is list, theme="form"),
    Kind("bullets", "Write nothing but a bulleted list of {} item(s).", _is_bulleted, NUMBER, theme="form"),
    Kind("numbered_list", "Write nothing but a numbered list of {} item(s).", _is_numbered, NUMBER, theme="form"),
    Kind("comma_list", "Write one line of {} item(s) with commas between them.", _is_comma_list, NUMBER, theme="form"),
    Kind(
        "no_commas",
        "Do not use any commas.",
        lambda text, _: has_words(text) and not any(comma in text for comma in _COMMAS),
    ),
    Kind(
        "ends_in_mark",
        "End with a full stop, a question mark or an exclamation mark.",
        lambda text, _: has_words(text) and text.rstrip().rstrip(CLOSING).endswith(tuple(FINAL_MARKS)),
    ),
)
