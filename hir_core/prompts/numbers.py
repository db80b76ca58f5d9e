"""Numbers in words: written from 0 to 99, and found and read in a text up to trillions, with fractions and dozens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from hir_core.prompts.phrases import FirstWords, Phrases

_BELOW_TWENTY = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_SMALL: tuple[str, ...] = tuple(_BELOW_TWENTY.split())
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


# --- reading ---------------------------------------------------------------------------------------------------------

SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_UNITS = {word: number for number, word in enumerate(_SMALL)}
_TENS_WORDS = {word: 10 * number for number, word in enumerate(_TENS) if number > 1}
_ORDINALS = ["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_PARTS = {"half": 2, "halves": 2, "quarter": 4, "quarters": 4} | {
    word: number for number, name in enumerate(_ORDINALS, start=3) for word in (name, f"{name}s")
}
NUMBER_WORDS = sorted({*_UNITS, *_TENS_WORDS, *SCALES, *_PARTS, "dozens"}, key=len, reverse=True)
_ANY = "|".join(NUMBER_WORDS)
# A blank may be a line break in none of these: numbers on two lines are two numbers.
_SPELLED = Phrases(
    rf"(?<![\w-])(?P<sign>(?:minus|negative)[ ])?(?P<number>(?:an?[ ])?(?:{_ANY})"
    rf"(?:(?:[ ]?-[ ]?|[ ]|[ ]and[ ]|[ ]a[ ]|[ ]and[ ]a[ ]|"
    rf"[ ]point[ ]|(?<=thousand),[ ]|(?<=million),[ ]|(?<=billion),[ ])(?:{_ANY}))*)"
    rf"(?P<percent>[ ]per[ ]?cent)?(?![\w])",
    " ".join(NUMBER_WORDS),
    first=FirstWords("minus", "negative", "a", "an", *NUMBER_WORDS),
)
_COUNTED = re.compile(
    r"(?:\A|[^\w\s]\s*|\n\s*|\b(?:is|are|was|were|be|has|have|had|exactly|about|just|only|equals?|makes?|gives?|"
    r"gets?|leaves?|"
    r"by|and|or|with|plus|minus|answer|see|count|counted|contains?|eats?|ate|buys?|bought|takes?|needs?|left|"
    r"total of|not)\s+)\Z",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\s+(?:of|another|who|that|which|by|should|must|can|may)\b|'s\b", re.IGNORECASE)


def may_spell_numbers(text: str) -> bool:
    """Whether a text has a word that may be a part of a number in words."""
    return _SPELLED.may_be_in(text)


def spelled_numbers(text: str) -> Iterator[tuple[int, int, Fraction | None, bool]]:
    """Start, end, value and percent sign of each number that a text has in words; None where it is not understood."""
    for match in _SPELLED.finditer(text):
        words = re.findall(r"[a-z]+", match["number"].lower())
        if _is_not_a_number(words, match):
            continue
        value = read_words(words)
        signed = -value if value is not None and match["sign"] else value
        yield match.start(), match.end(), signed, bool(match["percent"])


def _is_not_a_number(words: list[str], match: re.Match[str]) -> bool:
    """Whether the words are a pronoun (`this one`), a place in an order (`the third`) or an idle `a half`."""
    if match["percent"] or match["sign"]:
        return False
    if words == ["one"]:
        before = match.string[max(0, match.start() - 12) : match.start()]
        return bool(not _COUNTED.search(before) or _PRONOUN.match(match.string, match.end()))
    return all(word in _ORDINALS or word == "a" for word in words) or words[0] in ("dozens", "halves", "quarters")


_BEFORE_DOZEN = {"a": Fraction(1), "half a": Fraction(1, 2)}


def read_words(words: list[str]) -> Fraction | None:
    """The number that words spell; None where they spell none, or could spell several."""
    if "point" in words:
        at = words.index("point")
        whole, digits = _read_whole(words[:at]), [_UNITS.get(word, 10) for word in words[at + 1 :]]
        if whole is None or not digits or max(digits) > 9:
            return None
        return Fraction(f"{whole}.{''.join(map(str, digits))}")
    if words[-1] == "dozen" and len(words) > 1:
        number = _BEFORE_DOZEN.get(" ".join(words[:-1])) or read_words(words[:-1])
        return None if number is None else 12 * number
    if words[-1] in SCALES and not _PARTS.keys().isdisjoint(words):
        share = _read_parts([word for word in words[:-1] if word != "a" or words[0] == "a"])
        return None if share is None else share * SCALES[words[-1]]
    if words[-1] in _PARTS:
        return _read_parts(words)
    whole = _read_whole(words)
    return None if whole is None else Fraction(whole)


def _read_parts(words: list[str]) -> Fraction | None:
    """`half`, `three quarters`, `two and a half`."""
    size = _PARTS[words[-1]]
    if "and" in words:
        at = len(words) - 1 - words[::-1].index("and")
        whole, part = _read_whole(words[:at]), _read_parts(words[at + 1 :]) if at + 1 < len(words) else None
        return None if whole is None or part is None or part >= 1 else whole + part
    count = 1 if words[:-1] in ([], ["a"], ["an"]) else _read_whole(words[:-1])
    return None if not count or (len(words) > 3) else Fraction(count, size)


def _read_whole(words: list[str]) -> int | None:
    if words[:1] in (["a"], ["an"]):
        words = ["one", *words[1:]] if words[1:2] and words[1] in SCALES else []
    if words and words[0] in SCALES and len(words) == 1:
        return SCALES[words[0]]
    total, group, last_scale, previous = 0, 0, 10**15, ""
    for word in words:
        if word in _UNITS:
            may_follow = previous in ("", "hundred", "and", *SCALES) or (
                previous in _TENS_WORDS and 0 < _UNITS[word] < 10
            )
            value = group + _UNITS[word]
        elif word in _TENS_WORDS:
            may_follow, value = previous in ("", "hundred", "and", *SCALES), group + _TENS_WORDS[word]
        elif word == "hundred":
            may_follow, value = 0 < group < 100, group * 100
        elif word in SCALES and word != "dozen":
            may_follow = group > 0 and SCALES[word] < last_scale
            total, last_scale, value = total + group * SCALES[word], SCALES[word], 0
        else:
            may_follow, value = word == "and" and previous in SCALES, group
        if not may_follow:
            return None
        group, previous = value, word
    return total + group if previous not in ("", "and") else None
