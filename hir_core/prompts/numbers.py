"""Numbers as people write them: spelled in words, and read back from a text as exact fractions.

What can be read in several ways (`1,2`, `12:30`, `10-12`, `5k`, `five hundred and six`) is unclear and never guessed.
Reads and writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

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


NO_NUMBER, UNCLEAR, OUT_OF_RANGE = "no number", "unclear number", "number out of range"
Reading = tuple[Fraction | None, str]
"""A number, or None and why there is none."""

LONGEST, LARGEST_EXPONENT = 400, 400
"""Beyond these a numeral is not computed: a few characters could ask for gigabytes of digits."""
_SPELLED = {number_word(number).replace("-", " "): number for number in range(SPELLED_BELOW)}
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NEGATIVE = ("minus", "negative")
_NUMBER_WORDS = {word for spelled in _SPELLED for word in spelled.split()} | {*_SCALES, "and"}
_NO_END = {*_NEGATIVE, "and"}

_GAPS = ",'’\u00a0\u202f\u2009"  # between thousands: a comma, an apostrophe, or a space that does not break
_MARKS = rf".:/^*·+\-%$€£¥⁰¹²³⁴⁵⁶⁷⁸⁹{_GAPS}"
# Runs start where no run goes on, and give nothing back: one reading of the text, however long it is.
_RUN = re.compile(
    rf"(?<![\d{_MARKS}])(?:[$€£¥+-]{{0,2}}\d{{1,9}} (?=\d{{1,9}}/\d))?"  # the 2 of `2 1/2`
    rf"(?:[\d{_MARKS}]|(?<=\d)[eE](?=[+-]?\d))++"
)
_NUMBER = re.compile(
    r"(?:(?P<units>\d+) (?=\d+/))?"
    rf"(?P<whole>\d{{1,3}}(?P<gap>[{_GAPS}])\d{{3}}(?:(?P=gap)\d{{3}})*|\d*)(?P<part>\.\d+)?"
    r"(?:[eE](?P<exponent>[+-]?\d+))?(?:/(?P<below>\d+))?(?P<percent>%)?"
)
_SIGNED = re.compile(r"[$€£¥]?(?P<sign>[+-]?)[$€£¥]?(?P<rest>.*)", re.DOTALL)
_DASHES = str.maketrans("−–", "--")
_POWER_OF_TEN = re.compile(r"(?<=\d)\s?(?:[x×*]|\\times|\\cdot)\s?10\s?\^\s?\{?([+-]?\d{1,9})\}?")
_SCALE = re.compile(rf"\s?({'|'.join(_SCALES)})\b", re.IGNORECASE)
_CODE = re.compile(r"[kKMB](?!\w)|[^\W\d_]\d")  # `5k`, `0x10`


def read_number(text: str, *, last: bool = True, percent_is_hundredth: bool = True) -> Reading:
    """The last number of a text, or its first: written in digits, or where there are no digits, in words.

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
    number, problem = _read_digits(_trimmed(run), percent_is_hundredth)
    if number is None or _CODE.match(plain, run.end()):
        return None, problem or UNCLEAR
    scale = _SCALE.match(plain, run.end())
    return number * (_SCALES[scale[1].lower()] if scale else 1), ""


def _is_number_like(run: re.Match[str]) -> bool:
    """Whether it holds a digit and is not the end of a word, as in `H2O` or `x-1`."""
    before = run.string[run.start() - 1 : run.start()]
    is_glued = (before.isalpha() or before == "_") and (run[0][0].isdecimal() or run[0][0] == "-")
    return not is_glued and any(character.isdecimal() for character in run[0])


def _trimmed(run: re.Match[str]) -> str:
    """Without the marks that belong to the sentence around it."""
    text = run[0].rstrip(f".:/^*·+-$€£¥{_GAPS}").lstrip(f":/^*·%{_GAPS}")
    follows_a_sentence = run.string[run.start() - 1 : run.start()].isalpha()
    return text.lstrip(".") if follows_a_sentence or text.startswith("..") else text


def _read_digits(text: str, percent_is_hundredth: bool) -> Reading:
    if len(text) > LONGEST:
        return None, OUT_OF_RANGE
    signed = _SIGNED.fullmatch(text)
    found = _NUMBER.fullmatch(signed["rest"]) if signed else None
    if signed is None or found is None or not (found["whole"] or found["part"]) or _is_empty(found["below"]):
        return None, UNCLEAR
    exponent = int(found["exponent"] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None, OUT_OF_RANGE
    whole = re.sub(f"[{_GAPS}]", "", found["whole"]) or "0"
    number = Fraction(whole + (found["part"] or "")) * Fraction(10) ** exponent / int(found["below"] or 1)
    number += int(found["units"] or 0)
    if found["percent"] and percent_is_hundredth:
        number /= 100
    return (-number if signed["sign"] == "-" else number), ""


def _is_empty(below: str | None) -> bool:
    return below is not None and int(below) == 0


def _read_words(text: str, last: bool) -> Reading:
    runs = list(_word_runs(text.lower()))
    if not runs:
        return None, NO_NUMBER
    words = runs[-1 if last else 0]
    sign = -1 if words[0] in _NEGATIVE else 1
    words = words[1:] if sign < 0 else words
    *front, end = words
    scale = _SCALES.get(end)
    spelled = " ".join(front if scale else words)
    number = 1 if scale and not front else _SPELLED.get(spelled)
    return (None, UNCLEAR) if number is None else (Fraction(sign * number * (scale or 1)), "")


def _word_runs(text: str) -> Iterator[list[str]]:
    """Number words that follow each other, with the sign before them; other words and punctuation divide them."""
    run: list[str] = []
    for word in [*re.findall(r"[^\W\d_]+|[^\w\s-]|\n", text), "\n"]:
        if (word in _NUMBER_WORDS and (run or word != "and")) or word in _NEGATIVE:
            run.append(word)
            continue
        while run and run[-1] in _NO_END:
            run.pop()
        if run:
            yield run
        run = []
