"""Short formulas and rows of brackets as answers: whether two are the same, where that can be told without algebra."""

from __future__ import annotations

import re
from fractions import Fraction

_BLANKS = re.compile(r"[\s`\"'$\ue000\ue001]|\*\*")
_FORMULA = re.compile(r"[=<>^*\\]|\d\s*[-+]|[-+]\s*\d")
_TERM = re.compile(r"(?P<sign>[+-])(?P<factor>\d{1,15}(?:\.\d{1,15})?)?(?P<letters>[a-z]*)")
_BRACKETS = re.compile(r"[][(){}<>]+")
_LONGEST = 200


def is_formula(text: str) -> bool:
    """Whether a text is a formula, or has no letters and digits at all, as a row of brackets."""
    return _FORMULA.search(text) is not None or not any(map(str.isalnum, text))


def symbols_of(text: str) -> str:
    """The text without blanks, quotes, bold type and a final full stop."""
    return _BLANKS.sub("", text).rstrip(".").lower()


def are_same(symbols: str, other: str) -> bool | None:
    """Whether two formulas are the same; None where that takes algebra, or one is no formula."""
    if symbols == other:
        return True
    if "=" in symbols and "=" not in other:
        return are_same(symbols.rpartition("=")[2], other)
    if _BRACKETS.fullmatch(other):
        return False if _BRACKETS.fullmatch(symbols) else None
    terms, other_terms = _terms_of(symbols), _terms_of(other)
    return None if terms is None or other_terms is None else terms == other_terms


def _terms_of(symbols: str) -> dict[str, Fraction] | None:
    """The factor of each product of letters in a sum, as 2 for x and 3 for no letters; None for another formula."""
    terms: dict[str, Fraction] = {}
    text, end = symbols if symbols.startswith(("+", "-")) else f"+{symbols}", 0
    if len(text) > _LONGEST:
        return None
    for term in _TERM.finditer(text):
        if term.start() != end or len(term[0]) == 1 or len(term["letters"]) > 2:
            return None  # more letters in a row are a word
        end = term.end()
        name = "".join(sorted(term["letters"]))
        terms[name] = terms.get(name, Fraction(0)) + Fraction(term["sign"] + (term["factor"] or "1"))
    return {name: factor for name, factor in terms.items() if factor} if end == len(text) else None
