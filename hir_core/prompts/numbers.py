"""Numbers as people write them: spelled out in words, and read from a text as exact fractions.

A number that can be read in several ways (`1,2`, `12:30`, `10-12`, `5k`, `five hundred and six`) is reported as unclear
and never guessed. The reward `numeric` reads numbers with this module; synthetic tasks write them with it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

_BELOW_TWENTY = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_SMALL: tuple[str, ...] = tuple(re.findall(r"\w+", _BELOW_TWENTY))
_TENS = ("", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SPELLED_BELOW = 100


def number_word(number: int) -> str:
    """The number in words, from 0 to 99."""
    if number < len(_SMALL):
        return _SMALL[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens]}-{_SMALL[ones]}" if ones else _TENS[tens]


def number_references(number: int) -> tuple[str, ...]:
    """The accepted ways to write a number as a free answer: in digits and, below 100, in words."""
    return (str(number), number_word(number)) if number < SPELLED_BELOW else (str(number),)


NO_NUMBER, UNCLEAR, OUT_OF_RANGE = "no number", "unclear number", "number out of range"


class Reading(NamedTuple):
    """A number that was read from a text, or None and the reason."""

    number: Fraction | None
    problem: str


# A number with more characters or a larger exponent is not computed: a short text could ask for gigabytes of digits.
LONGEST, LARGEST_EXPONENT = 400, 400
_SPELLED = {number_word(number).replace("-", " "): number for number in range(SPELLED_BELOW)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NEGATIVE = ("minus", "negative")
_NUMBER_WORDS = {word for spelled in _SPELLED for word in spelled.split()} | {*_SCALES, "and"}
_NEVER_LAST = {*_NEGATIVE, "and"}

_GAPS = ",'’\u00a0\u202f\u2009"  # thousands separators: a comma, an apostrophe, or a no-break or thin space
_MARKS = rf".:/^*·+\-%$€£¥⁰¹²³⁴⁵⁶⁷⁸⁹{_GAPS}"
# Matches do not overlap, and the possessive quantifier does not backtrack, so the time is linear in the text's length.
_RUN = re.compile(
    rf"(?<![\d{_MARKS}])(?:[$€£¥+-]{{0,2}}\d{{1,9}} (?=\d{{1,9}}/\d))?"  # the 2 of `2 1/2`
    rf"(?:[\d{_MARKS}]|(?<=\d)[eE](?=[+-]?\d))++"
)
_NUMBER = re.compile(
    r"(?:(?P<units>\d+) (?=\d+/))?"
    rf"(?P<whole>\d{{1,3}}(?P<gap>[{_GAPS}])\d{{3}}(?:(?P=gap)\d{{3}})*|\d*)(?P<decimals>\.\d+)?"
    r"(?:[eE](?P<exponent>[+-]?\d+))?(?:/(?P<denominator>\d+))?(?P<percent>%)?"
)
_SIGNED = re.compile(r"[$€£¥]?(?P<sign>[+-]?)[$€£¥]?(?P<rest>.*)", re.DOTALL)
_DASHES = str.maketrans("−–", "--")
_POWER_OF_TEN = re.compile(r"(?<=\d)\s?(?:[x×*]|\\times|\\cdot)\s?10\s?\^\s?\{?([+-]?\d{1,9})\}?")
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})\b", re.IGNORECASE)
_CODE = re.compile(r"[kKMB](?!\w)|[^\W\d_]\d")  # `5k`, `0x10`


def read_number(text: str, *, last: bool = True, percent_is_hundredth: bool = True) -> Reading:
    """The last number of a text, or the first: written in digits or, where the text has no digits, in words.

    Digits may have a sign, a currency, thousands separators, a decimal point, an exponent, a denominator (`1/2`,
    `2 1/2`), a percent sign and a scale word (`3 million`). Words go up to 99, times a scale.

    Returns:
        The number, or None with `no number`, `unclear number` or `number out of range`.
    """
    plain = _POWER_OF_TEN.sub(r"e\1", text.replace("\\%", "%").replace("\\$", "$").translate(_DASHES))
    runs = [match for match in _RUN.finditer(plain) if _is_number_like(match)]
    if not runs:
        return _read_words(plain, last)
    run = runs[-1 if last else 0]
    number, problem = _read_digits(run, percent_is_hundredth)
    if number is None or _CODE.match(plain, run.end()):
        return Reading(None, problem or UNCLEAR)
    scale = _SCALE.match(plain, run.end())
    return Reading(number * (_SCALES[scale[1].lower()] if scale else 1), "")


def _is_number_like(run: re.Match[str]) -> bool:
    """Whether the run holds a digit and is not the end of a word, as in `H2O` or `x-1`."""
    preceding = run.string[run.start() - 1 : run.start()]
    ends_a_word = (preceding.isalpha() or preceding == "_") and (run[0][0].isdecimal() or run[0][0] == "-")
    return not ends_a_word and any(character.isdecimal() for character in run[0])


def _read_digits(run: re.Match[str], percent_is_hundredth: bool) -> Reading:
    # Marks at both ends belong to the sentence; a single leading point stays (`.5`) unless a letter stands before it.
    text = run[0].rstrip(f".:/^*·+-$€£¥{_GAPS}").lstrip(f":/^*·%{_GAPS}")
    if run.string[run.start() - 1 : run.start()].isalpha() or text.startswith(".."):
        text = text.lstrip(".")
    if len(text) > LONGEST:
        return Reading(None, OUT_OF_RANGE)
    signed = _SIGNED.fullmatch(text)
    match = _NUMBER.fullmatch(signed["rest"]) if signed else None
    if signed is None or match is None or not (match["whole"] or match["decimals"]):
        return Reading(None, UNCLEAR)
    denominator, exponent = int(match["denominator"] or 1), int(match["exponent"] or 0)
    if denominator == 0:
        return Reading(None, UNCLEAR)
    if abs(exponent) > LARGEST_EXPONENT:
        return Reading(None, OUT_OF_RANGE)
    whole = re.sub(f"[{_GAPS}]", "", match["whole"]) or "0"
    number = Fraction(whole + (match["decimals"] or "")) * Fraction(10) ** exponent / denominator
    number += int(match["units"] or 0)
    if match["percent"] and percent_is_hundredth:
        number /= 100
    return Reading(-number if signed["sign"] == "-" else number, "")


def _read_words(text: str, last: bool) -> Reading:
    # Runs of consecutive number words, each with the sign before it; other words and punctuation end a run.
    runs: list[list[str]] = []
    run: list[str] = []
    for word in [*re.findall(r"[^\W\d_]+|[^\w\s-]|\n", text.lower()), "\n"]:
        if (word in _NUMBER_WORDS and (run or word != "and")) or word in _NEGATIVE:
            run.append(word)
            continue
        while run and run[-1] in _NEVER_LAST:
            run.pop()
        runs += [run] if run else []
        run = []
    if not runs:
        return Reading(None, NO_NUMBER)
    words = runs[-1 if last else 0]
    sign = -1 if words[0] in _NEGATIVE else 1
    words = words[1:] if sign < 0 else words
    *front, end = words
    scale = _SCALES.get(end)
    spelled = " ".join(front if scale else words)
    number = 1 if scale and not front else _SPELLED.get(spelled)
    return Reading(None, UNCLEAR) if number is None else Reading(Fraction(sign * number * (scale or 1)), "")
