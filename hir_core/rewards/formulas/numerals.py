"""Numbers as people write them: with separators, exponents, scales and currency, and spelled in words."""

from __future__ import annotations

import re
from fractions import Fraction

from hir_core.prompts.number_search import MONEY_SUFFIXES, SUFFIXES, with_spaced_digits_joined
from hir_core.prompts.numbers import SCALES, spelled_numbers

_SUFFIXES = SUFFIXES | MONEY_SUFFIXES
CURRENCY = r"(?:\\\$|\$|€|£|¥|₹|\\pounds|\\euro|US\$|USD|EUR|GBP)"
_MONEY = re.compile(rf"{CURRENCY}\s*(?=-?[\d.])|(?<=[\d])\s*{CURRENCY}(?=\s*\Z)|\\\$")
_MONEY_SUFFIX = re.compile(rf"({CURRENCY}\s*-?\d[\d,]*(?:\.\d+)?)\s?({'|'.join(_SUFFIXES)})(?![a-zA-Z])")
_SCALE = re.compile(rf"(\d)\s*-?\s*(?:\\text\{{\s*)?({'|'.join(SCALES)})s?(?![a-zA-Z])\s*(?P<rest>[^{{}}]*\}})?")
_SEPARATOR = re.compile(r"(?<=\d)(?:\\[,;: ]|\{,\}|,\\!|~)(?=\d{3}(?!\d))")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d])(?!,\d)")
_SCIENTIFIC = re.compile(r"(\d)[eE]([+-]?\d+)(?![\w.])")
_LETTER_TIMES = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)|(?<=\d)\s+[xX]\s+(?=\d)")


def _is_list_comma(text: str, position: int) -> bool:
    """Whether a comma between digits separates the members of a list in brackets, as in `(1,200)`."""
    before = re.sub(r"\\[{}]", lambda brace: "(" if brace[0] == r"\{" else ")", text[:position])
    is_inside = sum(map(before.count, "([")) > sum(map(before.count, ")]"))
    return is_inside and ", " not in text


def with_plain_numbers(text: str) -> str:
    """The text with every number as digits, a point and a power of ten, and without currency."""
    text = _MONEY_SUFFIX.sub(lambda money: rf"{money[1]} \cdot {_factor(_SUFFIXES[money[2]])}", text)
    text = with_spaced_digits_joined(_SEPARATOR.sub("", _MONEY.sub("", text)), by="")
    text = _GROUPED.sub(
        lambda number: number[0] if _is_list_comma(text, number.start()) else number[0].replace(",", ""), text
    )
    text = _SCALE.sub(_scaled, text)
    text = _SCIENTIFIC.sub(lambda number: rf"{number[1]} \cdot 10^{{{int(number[2])}}}", text)
    return _LETTER_TIMES.sub(r" \\cdot ", text)


def _scaled(number: re.Match[str]) -> str:
    rest = (number["rest"] or "").removesuffix("}").strip()
    return rf"{number[1]} \cdot {_factor(SCALES[number[2]])}" + (rf" \text{{ {rest}}}" if rest else "")


def _factor(scale: int) -> str:
    """A scale as a power of ten, which is read faster, or as it is: `dozen`."""
    zeros = len(str(scale)) - 1
    return f"10^{{{zeros}}}" if scale == 10**zeros else str(scale)


def spelled_number(words: str) -> Fraction | None:
    """The number that is spelled, as in `two and a half` or `minus seven`, where nothing else is."""
    found = list(spelled_numbers(words))
    return found[0][2] if len(found) == 1 and found[0][:2] == (0, len(words)) else None
