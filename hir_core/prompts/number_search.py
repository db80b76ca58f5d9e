"""Numbers as people write them, found in a text and read as exact fractions.

A number that can be read in several ways (`1,2`, `12:30`, `10-12`, `100 200`) is reported as unclear and never guessed.
The rewards read numbers with this module.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from hir_core.prompts.numbers import SCALES, spelled_numbers
from hir_core.prompts.phrases import Phrases

UNCLEAR, OUT_OF_RANGE = "unclear number", "number out of range"


class FoundNumber(NamedTuple):
    """A number in a text, and where it stands there."""

    start: int
    end: int
    value: Fraction | None
    """None where it is not understood."""
    problem: str = ""
    is_percent: bool = False
    """Whether the value is a hundredth of what is written."""


# A number with more characters or a larger exponent is not computed: a short text could ask for gigabytes of digits.
LONGEST, LARGEST_EXPONENT = 400, 400

_GAPS = ",'\u00a0\u202f\u2009"  # thousands separators: a comma, an apostrophe, or a no-break or thin space
_MARKS = rf".:/^*·+\-%$€£¥⁰¹²³⁴⁵⁶⁷⁸⁹{_GAPS}"
# Matches do not overlap, and the possessive quantifier does not backtrack, so the time is linear in the text's length.
_RUN = re.compile(
    rf"(?<![\d{_MARKS}])(?=[{_MARKS}]*+\d)(?:[$€£¥+-]{{0,2}}\d{{1,9}} (?=\d{{1,9}}/\d))?"  # the 2 of `2 1/2`
    rf"(?:[\d{_MARKS}]|(?<=\d)[eE](?=[+-]?\d))++"
)
_NUMBER = re.compile(
    r"(?:(?P<units>\d+) (?=\d+/))?"
    rf"(?P<whole>\d{{1,2}}(?:,\d\d)+,\d{{3}}|\d{{1,3}}(?:\.\d{{3}}){{2,}}|"
    rf"\d{{1,3}}(?P<gap>[{_GAPS}])\d{{3}}(?:(?P=gap)\d{{3}})*|\d*)(?P<decimals>\.\d+)?"
    r"(?:[eE](?P<exponent>[+-]?\d+))?(?:/(?P<denominator>\d{1,3}(?:,\d{3})+|\d+))?(?P<percent>%)?"
)
_SIGNED = re.compile(r"[$€£¥]?(?P<sign>[+-]?)[$€£¥]?(?P<rest>.*)", re.DOTALL)
_CURRENCY = re.compile(r"[-+]?[$€£¥]")
SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "mn": 10**6, "bn": 10**9, "tn": 10**12}
MONEY_SUFFIXES = {"m": 10**6, "mm": 10**6, "b": 10**9, "B": 10**9, "T": 10**12}
"""Suffixes of amounts of money; without a currency, they are units or names: `5m`, `3B`."""
_SUFFIX = re.compile(rf"({'|'.join(sorted({*SUFFIXES, *MONEY_SUFFIXES}, key=len, reverse=True))})(?!\w)")
_SCALE = re.compile(rf"[ ]?-?({'|'.join(SCALES)})\b", re.IGNORECASE)
_PERCENT = re.compile(r"[ ]?(?:%|per ?cent\b|pct\b)", re.IGNORECASE)
_PART_OF_MORE = re.compile(r"[^\W\d_]\d| ?[√π^±]|\(\d")  # `0x10`, `2π`
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)
_BOUND = re.compile(
    r"(?:(?:more|less|fewer|greater|larger|smaller|higher|lower) than |at (?:least|most) |up to |[<>≤≥±√≠] ?\(?)\Z",
    re.IGNORECASE,
)
_MINUS = re.compile(r"(?:\A|[^\d\s)]\s{0,2})\b(?:minus|negative) \Z", re.IGNORECASE)
_LABELS = (
    "step|part|case|question|problem|equation|figure|option|line|item|example|page|chapter|section|method|rule|premise|"
    "statement|fact|clue|round|puzzle"
)
_LABEL = re.compile(rf"(?:\b(?:{_LABELS})s?(?: (?:no\.?|number))? |#)\(?\Z", re.IGNORECASE)
_CUES = (
    *_LABELS.split("|"), *(f"{label}s" for label in _LABELS.split("|")), "no", "no.", "number", "minus", "negative",
    "than", "least", "most", "to", *"#<>≤≥±√≠",
)  # fmt: skip
"""Endings of a text, but for blanks and a parenthesis, behind which a number may be a label, a bound or negative."""
_MAY_MATTER = re.compile(r" ?[hmtbdp%√π^±-]|[^\W\d_]|\(\d", re.IGNORECASE)
"""What follows a number that is an ordinal or a part of more, or that has a scale or a percent sign."""
_DIGIT = re.compile(r"\d")


def find_numbers(
    text: str, *, percent_is_hundredth: bool = True, also_in_words: bool = False
) -> tuple[FoundNumber, ...]:
    """The numbers of a text in its standard form, in order: those in digits or, where it has no digits, in words.

    With `also_in_words` both, whether it has digits or not.

    Digits may have a sign, a currency, thousands separators, a decimal point, an exponent, a denominator (`1/2`,
    `2 1/2`), a percent sign, and a scale (`3 million`, `2 dozen`, `5k`). Numbers that only order or name something are
    left out: `1st`, `Step 2`, `H2O`.
    """
    has_digits = _DIGIT.search(text) is not None
    runs = _RUN.finditer(text) if has_digits else ()
    found = tuple([number for run in runs if (number := _found(run, percent_is_hundredth))])
    if has_digits and not also_in_words:
        return found
    in_words = [
        FoundNumber(start, end, value / 100 if value is not None and percent and percent_is_hundredth else value,
                    "" if value is not None else UNCLEAR, percent)
        for start, end, value, percent in spelled_numbers(text)
    ]  # fmt: skip
    return tuple(sorted([*found, *in_words], key=lambda number: number.start))


def _found(run: re.Match[str], percent_is_hundredth: bool) -> FoundNumber | None:
    text, (start, end) = run.string, run.span()
    what_follows_may_matter = _MAY_MATTER.match(text, end) is not None
    if _ends_a_word(run) or (what_follows_may_matter and _ORDINAL.match(text, end)):
        return None
    before = text[max(0, start - 24) : start]
    has_cue = before.rstrip(" (").lower().endswith(_CUES) or not before.isascii()
    if has_cue and _LABEL.search(before):
        return None
    written = run[0].rstrip(f".:/^*·+-$€£¥{_GAPS}")
    value, problem = _read_digits(run, written)
    is_part = what_follows_may_matter and _PART_OF_MORE.match(text, end)
    if value is None or is_part or (has_cue and _BOUND.search(before)):
        return FoundNumber(start, end, None, problem or UNCLEAR)
    if has_cue and run[0][0].isdecimal() and _MINUS.search(before):
        value = -value
    end = start + len(written)
    is_percent = written.endswith("%")
    if end == run.end() and what_follows_may_matter:
        factor, end = _factor(text, end, _CURRENCY.match(written) is not None)
        if factor is None:
            return FoundNumber(start, end, None, UNCLEAR)
        value = value * factor if factor != 1 else value
        if not is_percent and (percent := _PERCENT.match(text, end)):
            is_percent, end = True, percent.end()
    return FoundNumber(start, end, value / 100 if is_percent and percent_is_hundredth else value, "", is_percent)


def _factor(text: str, end: int, is_money: bool) -> tuple[int | None, int]:
    """What the scale behind a number multiplies it by, and where that ends; None where a letter is not understood."""
    suffix = _SUFFIX.match(text, end)
    if suffix:
        letter = suffix[1]
        factor = SUFFIXES.get(letter) or (MONEY_SUFFIXES.get(letter) if is_money else None)
        return (factor, suffix.end()) if factor or letter == "B" else (1, end)
    if scale := _SCALE.match(text, end):
        return SCALES[scale[1].lower()], scale.end()
    return 1, end


_FIRST_WITHOUT_BLANKS = "\u2e80"
"""From here on stand the scripts that put no blank between a word and a number, such as Chinese and Japanese."""


def _ends_a_word(run: re.Match[str]) -> bool:
    """Whether the run is the end of a word, as in `H2O` or `x-1`, or a power, as in `cm^2`."""
    first, preceding = run[0][0], run.string[run.start() - 1 : run.start()]
    if first == "^":
        return True
    follows_a_letter = (preceding.isalpha() and preceding < _FIRST_WITHOUT_BLANKS) or preceding == "_"
    return follows_a_letter and (first.isdecimal() or first == "-")


def _read_digits(run: re.Match[str], written: str) -> tuple[Fraction | None, str]:
    # Marks at both ends belong to the sentence; a single leading point stays (`.5`) unless a letter stands before it.
    if written.isdecimal() and len(written) <= LONGEST:  # most numbers
        return Fraction(int(written)), ""
    text = written.lstrip(f":/^*·%{_GAPS}")
    if run.string[run.start() - 1 : run.start()].isalpha() or text.startswith(".."):
        text = text.lstrip(".")
    if len(text) > LONGEST:
        return None, OUT_OF_RANGE
    signed = _SIGNED.fullmatch(text)
    match = _NUMBER.fullmatch(signed["rest"]) if signed else None
    if signed is None or match is None or not (match["whole"] or match["decimals"]):
        return None, UNCLEAR
    denominator, exponent = int((match["denominator"] or "1").replace(",", "")), int(match["exponent"] or 0)
    if denominator == 0:
        return None, UNCLEAR
    if abs(exponent) > LARGEST_EXPONENT:
        return None, OUT_OF_RANGE
    whole = re.sub(f"[.{_GAPS}]", "", match["whole"]) or "0"
    number = Fraction(whole + match["decimals"]) if match["decimals"] else Fraction(int(whole))
    if exponent or denominator > 1 or match["units"]:
        number = number * Fraction(10) ** exponent / denominator + int(match["units"] or 0)
    return (-number if signed["sign"] == "-" else number), ""


# --- the standard form -----------------------------------------------------------------------------------------------

_DASHES = str.maketrans({"−": "-", "–": "-", "—": "; "})
_POWER_OF_TEN = re.compile(r"(?<=\d) ?[x×*·] ?10 ?(?:\^|\*\*) ?[{(]?([+-]?\d{1,9})[)}]?")
_SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_SUPERSCRIPT = re.compile(r"(?<!\d)10([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9})")
_LONE_POWER = re.compile(r"(?<![\w.,^/*-])10 ?\^ ?[{(]?(-?\d{1,3})[)}]?(?![\w^])")
_DECIMAL_COMMA = re.compile(
    r"(?<![\d.,])(\d{1,3}(?:[.,]\d{3})*),(\d{1,2})(?= ?[$€£%]| ?(?:[a-z]{1,12}|[A-Z]{3})\b)(?! ?(?:and|or|to|"
    r"then|so|which)\b)"
    r"|(?<![\d.,])(\d{1,3}(?:\.\d{3})+),(\d{1,2})(?![\d,])"
)
_AND_CENTS = re.compile(r"\$?(\d[\d,]{0,20}) dollars?(?: and|,) (\d\d) cents?\b", re.IGNORECASE)
_AND_A_HALF = Phrases(
    r"(?<![\d.,/])(\d{1,9})(?: and (a half|one half|a quarter|three quarters)\b|  (?=\d{1,3}/\d))",
    "half quarter quarters",
    signs=("  ",),
)
_MIXED = {"a half": "1/2", "one half": "1/2", "a quarter": "1/4", "three quarters": "3/4"}
_SPACED_FRACTION = re.compile(r"(?<![\d.,/] )(?<![\d.,/])(\d{1,9}) / (\d{1,9})(?! ?[\d/])")
_IN_NUMBER = re.compile(r" (?:in|out of) (?:every )?\d", re.IGNORECASE)
_ONE_IN = re.compile(r"\b(?:1|one) (?:in|out of) (?:every )?(\d[\d,]{0,15})(?![\d.])(?! (?:or|and)\b)", re.IGNORECASE)
_BELOW_ZERO = Phrases(r"(?<![\d.,-])(\d[\d.]{0,9}(?: ?°[CF]?| degrees?(?: celsius| fahrenheit)?)?) below zero", "below")
_WITHIN_DIGITS = re.compile(r"[ ,]\d(?<=\d[ ,]\d)")
_PLAIN_DECIMAL_COMMA = re.compile(r"(?<![\d.,])(\d{1,3}),(\d{1,2})(?![\d,]|\.\d)")
_SPACED = re.compile(r"(?<![\d.,/_^])(\d{1,3})((?: \d{3})+)(?![\d/]|[.,]\d{3})")
_LIST_NUMBER = re.compile(r"^([ ]*(?:\*\*)?)\(?(\d{1,3})[.)](?=(?:\*\*)?[ ]+\S)", re.MULTILINE)


def standard_form(text: str, *, decimal_comma: bool = False) -> str:
    """The text with each number in the form in which it is found, and without the numbers of a numbered list.

    Args:
        text: what a reader would see of a completion.
        decimal_comma: whether `2,5` is a number with decimals, as is likely where one is expected.
    """
    if not text.isascii():
        text = text.translate(_DASHES)
    if _DIGIT.search(text) is None:
        return text
    if not text.isascii():
        text = _SUPERSCRIPT.sub(lambda power: "10^" + power[1].translate(_SUPERSCRIPTS), text)
    has_power = "10" in text and ("^" in text or "**" in text)
    if has_power:
        text = _POWER_OF_TEN.sub(r"e\1", text)
    if _WITHIN_DIGITS.search(text):
        text = with_spaced_digits_joined(text, by=",")
    if has_power:
        text = _LONE_POWER.sub(r"1e\1", text)
    if "," in text and _WITHIN_DIGITS.search(text):
        text = _DECIMAL_COMMA.sub(_with_point, text)
        if decimal_comma:
            text = _PLAIN_DECIMAL_COMMA.sub(r"\1.\2", text)
    if "cent" in text:
        text = _AND_CENTS.sub(r"$\1.\2", text)
    text = with_mixed_numbers(text)
    if " / " in text:
        text = _SPACED_FRACTION.sub(r"\1/\2", text)
    if _IN_NUMBER.search(text):
        text = _ONE_IN.sub(r"1/\1", text)
    text = _BELOW_ZERO.sub(r"-\1", text)
    return _without_list_numbers(text) if "\n" in text else text


def _without_list_numbers(text: str) -> str:
    numbers = [int(line[2]) for line in _LIST_NUMBER.finditer(text)]
    are_in_order = any(following == number + 1 for number, following in pairwise(numbers))
    return _LIST_NUMBER.sub(r"\1•", text) if are_in_order else text


def with_spaced_digits_joined(text: str, *, by: str) -> str:
    """The text with `1 000 000` as one number, whose parts are joined by a separator.

    Three digits before others may be numbers of their own, as in `100 200`, and stay apart.
    """

    def joined(spaced: re.Match[str]) -> str:
        first, rest = spaced[1], spaced[2]
        are_several = first.startswith("0") or (len(first) == 3 and not rest.endswith("000"))
        return spaced[0] if are_several else first + rest.replace(" ", by)

    return _SPACED.sub(joined, text)


def _with_point(number: re.Match[str]) -> str:
    """A number whose thousands are set apart by points and whose decimals follow a comma, the other way round."""
    whole, decimals = (number[1], number[2]) if number[1] else (number[3], number[4])
    return f"{whole.replace('.', ',')}.{decimals}"


def with_mixed_numbers(text: str) -> str:
    """The text with `2 1/2` for `2 and a half`."""
    return _AND_A_HALF.sub(lambda number: f"{number[1]} {_MIXED[number[2].lower()] if number[2] else ''}", text)
