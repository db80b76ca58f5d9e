"""Numbers as answers: with units, in formulas and in words."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import NamedTuple

from hir_core.prompts.number_search import FoundNumber, find_numbers, standard_form
from hir_core.prompts.numbers import may_spell_numbers
from hir_core.rewards.reading.reader import DECORATION, Mention, Reader


class Quantity(NamedTuple):
    """A number as a text gives it."""

    number: Fraction
    is_percent: bool = False
    decimals: int = 0
    """How many digits follow its decimal point: an approximation of another number may have few."""
    unit: str = ""
    """The word or the currency that says what is counted; empty where there is none."""


_BEFORE = re.compile(
    r"(?:[\s*_\"'(\[$`:=≈~>#|•\ue000{-]|\b(?:it|there|this|that|they|we|i|you|he|she|is|are|it's|its|that's|"
    r"have|has|about|around|"
    r"approximately|roughly|exactly|only|just|total|a total of|the|answer|final|in total|altogether|so|"
    r"therefore|thus|hence)\b"
    r"|\b[a-z](?: ?\(x\))?(?= ?=))*+",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"(?:[\s*_-]*(?!(?:is|are|was|were|has|have|had|than|or|nor|not|and|but|minus|plus|times|if|because|since|"
    r"so|more|less|would|could|should|might|can|may|be|too|"
    r"fewer|each|to|by|for|with|from|with|then|which|that|he|she|they|we|i|it|x|bought|ate|gave|needs?|gets?|makes?)\b)"
    r"(?P<unit>[^\W\d_][\w°'/²³^]{0,20}|°[CF]?))?(?:[\s*_-]*(?:of\s|per\s|the\s|(?:in total|altogether|in all|total)\b|"
    r"(?!(?:is|are|was|were|has|have|had|than|or|nor|not|and|but|minus|plus|times|if|because|since|so|more|less|"
    r"would|could|should|might|can|may|be|too|each|"
    r"to|by|for|from|then|which|that|he|she|they|we|i|it)\b)[^\W\d_][\w']{0,20})){0,4}[\s*_.!`\"'$)\]}\ue001:;,|✓✅]*",
    re.IGNORECASE,
)
_DECIMALS = re.compile(r"\.(\d+)")
_DIGITS = re.compile(r"\s*(-?\d{1,15})\.?\s*")


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether a text says nothing but a number, which stands at a position, with a lead-in and what is counted."""
    return _only_leads_in(text[:start]) and _only_says_what_is_counted(text[end:])


@lru_cache(maxsize=1024)  # many completions say the same before their numbers, and count the same
def _only_leads_in(before: str) -> bool:
    return _BEFORE.fullmatch(before) is not None


@lru_cache(maxsize=1024)
def _only_says_what_is_counted(after: str) -> bool:
    return _UNIT.fullmatch(after) is not None


class NumberReader(Reader):
    """Reads numbers.

    Args:
        percent_is_hundredth: how `50%` is read: as 0.5, or as 50.
        query: the question; the numbers that it holds are rarely the answer.
        decimal_comma: whether `2,5` is a number with decimals.
    """

    what = "number"
    computes = True

    def __init__(self, *, percent_is_hundredth: bool = True, query: str = "", decimal_comma: bool = False) -> None:
        self.percent_is_hundredth = percent_is_hundredth
        self.query = query
        self.decimal_comma = decimal_comma

    @cached_property
    def given(self) -> frozenset[tuple[int, int]]:
        """The numbers that the question holds, as fractions; many completions are read without them."""
        return frozenset(number.as_integer_ratio() for number in given_numbers(self.query))

    def standard_form(self, text: str) -> str:
        return standard_form(text, decimal_comma=self.decimal_comma)

    def quick(self, completion: str) -> Quantity | None:
        digits = _DIGITS.fullmatch(completion)
        return Quantity(Fraction(digits[1])) if digits else None

    def bare(self, text: str) -> Quantity | None:
        if len(text) > 200 or text.rstrip().endswith("?"):
            return None
        plain = text.strip(DECORATION.replace("$", "").replace("=", "").replace(".", "") + "\n")
        mentions = self.mentions(plain)
        if len(mentions) != 1 or mentions[0].value is None:
            return None
        (mention,) = mentions
        quantity: Quantity = mention.value
        return quantity if stands_alone(plain, mention.start, mention.end) else None

    def mentions(self, text: str) -> Sequence[Mention]:
        found = quantities(text, self.percent_is_hundredth)
        if found and may_spell_numbers(text) and all(self.is_given(mention.value) for mention in found):
            # The answer may be among those in words.
            return quantities(text, self.percent_is_hundredth, also_in_words=True)
        return found

    def distinct(self, values: Sequence[Hashable]) -> list[Quantity | None]:
        """The different numbers; one that rounds another is the same answer, and the other one is kept."""
        by_number: dict[tuple[int, int] | None, Quantity | None] = {}  # a fraction itself takes long to hash
        for value in values:
            quantity = value if isinstance(value, Quantity) else None
            by_number.setdefault(quantity.number.as_integer_ratio() if quantity else None, quantity)
        known = list(by_number.values())
        if len(known) != 2 or None in known:
            return known
        one, other = (quantity for quantity in known if quantity)
        if is_rounded(one, other.number):
            return [other]
        return [one] if is_rounded(other, one.number) else known

    def is_given(self, value: Hashable) -> bool:
        return isinstance(value, Quantity) and value.number.as_integer_ratio() in self.given


@lru_cache(maxsize=256)  # the rules look at the same sentence of a completion several times
def quantities(text: str, percent_is_hundredth: bool, *, also_in_words: bool = False) -> tuple[Mention, ...]:
    """The quantities that a text mentions, as `find_numbers` finds their numbers."""
    found = find_numbers(text, percent_is_hundredth=percent_is_hundredth, also_in_words=also_in_words)
    return tuple([
        Mention(number.start, number.end, None if number.value is None else _quantity(text, number)) for number in found
    ])  # fmt: skip


def _quantity(text: str, number: FoundNumber) -> Quantity:
    assert number.value is not None
    written = text[number.start : number.end]
    decimals = _DECIMALS.search(written) if "." in written else None
    unit = "$" if "$" in written[:2] else ""
    if not unit and (word := _WORD.match(text, number.end)):
        unit = word[1].lower()
    return Quantity(number.value, number.is_percent, len(decimals[1]) if decimals else 0, unit)


_ONE = re.compile(r"\bone\b", re.IGNORECASE)


def given_numbers(query: str) -> list[Fraction]:
    """The numbers that a question holds."""
    found = [number.value for number in find_numbers(standard_form(query), also_in_words=True)]
    return [number for number in found if number is not None] + ([Fraction(1)] if _ONE.search(query) else [])


_WORD = re.compile(r"[\s*_-]{0,4}([^\W\d_]{1,20})\b")


def is_rounded(quantity: Quantity, number: Fraction) -> bool:
    """Whether a quantity is the given number rounded to the quantity's decimals, of which it has at least two."""
    if quantity.decimals < 2 or quantity.is_percent:
        return False
    return quantity.number != number and abs(quantity.number - number) * 10**quantity.decimals * 2 <= 1
