"""Percent signs, degrees and units of measure behind a number, which an answer may have and its reference may lack."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

# Each unit with its dimension and its size. What is not listed only names what is counted, as in `120 ways`.
_UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, Fraction(size))
    for dimension, sizes in {
        "length": {
            "mm millimeter millimetre": "1/1000", "cm centimeter centimetre": "1/100", "dm decimeter decimetre": "1/10",
            "m meter metre": "1", "km kilometer kilometre": "1000", "in inch inches": "127/5000",
            "ft foot feet": "381/1250", "yd yard": "1143/1250", "mi mile": "1609344/1000",
        },
        "mass": {"mg milligram": "1/1000", "g gram": "1", "kg kilogram": "1000", "lb pound": "45359237/100000"},
        "time": {
            "ms millisecond": "1/1000", "s sec second": "1", "min minute": "60", "h hr hour": "3600", "day": "86400",
            "week": "604800",
        },
        "volume": {"ml milliliter millilitre": "1/1000", "l liter litre": "1"},
        "money": {"dollar usd": "1", "cent": "1/100"},
        "angle": {"degree deg": "1", "radian rad": "0"},
        "temperature": {"c celsius": "1"},
        "temperature in Fahrenheit": {"f fahrenheit": "1"},
        "speed": {"m/s": "1", "km/h kmh kph": "5/18", "mph": "1397/3125"},
    }.items()
    for names, size in sizes.items()
    for name in names.split()
}  # fmt: skip
_ALSO_WORDS = {"in", "h", "s", "c", "f", "min", "deg", "degree"}
"""Names of units that are also words, variables or signs of an angle, so that they are none behind just any formula."""
UNIT_NAMES = "|".join(
    [*(rf"{re.escape(name)}(?:e?s)?" for name in sorted({*_UNITS} - _ALSO_WORDS, key=len, reverse=True)), "L"]
)
"""A pattern for a unit of measure behind a formula."""
_PERCENT = re.compile(
    r"\s*(?:\\?%|\\text\{\s*-?(?:percent|per cent|pct|\\?%)[^{}]*\}|(?:percent|per cent|"
    r"pct)\b.*)\s*\Z"
)
_CIRCLE = re.compile(r"\s*(?:\^\s*\{?\s*\\circ\s*\}?|\\circ(?![a-z]))")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![a-z])")
_TEXT_UNIT = re.compile(
    r"(?P<number>.*[\d)}\]!a-z])\s*(?P<unit>(?:\\text\{[^{}]*\}\s*(?:\^\{?-?\d\}?)?\s*(?:/|\\cdot)?\s*)+)\Z", re.DOTALL
)
_WORD_UNIT = re.compile(
    r"(?P<number>.*(?:[\d)}\]!]|\\pi(?=\s)))(?P<gap>\s*)(?P<unit>[A-Za-zµ][A-Za-zµ']*(?:[\s/.\-]+[A-Za-z]+){0,5}\.?\s*(?:\^\{?[23]\}?)?)\Z",
    re.DOTALL,
)
_LEADING = re.compile(
    r"(?:(?:about|approximately|exactly|roughly|around|nearly|a total of|the|only|"
    r"just|simply)\s+|\\text\{[^{}]*\}\s*)(?=.*\d)"
)
_LETTER = re.compile(r"\\[a-zA-Z]+|(?P<letter>[a-zA-Z])")
_POWER = re.compile(r"\^\{?([23])\}?")


@dataclass(frozen=True)
class Quantity:
    """An expression without what stands behind it."""

    text: str
    is_percent: bool = False
    is_in_degrees: bool = False
    unit: tuple[str, int, Fraction] | None = None
    """Dimension, power and size of a unit that is known."""


def quantity(text: str, *, has_no_variables: bool) -> Quantity:
    """An expression taken apart.

    Args:
        has_no_variables: whether no letter can be a variable, because what it is compared with has none.
    """
    text = _LEADING.sub("", text.strip(), count=1) if _LEADING.match(text.strip()) else text.strip()
    if percent := _PERCENT.search(text):
        return Quantity(text[: percent.start()], is_percent=True)
    is_in_degrees = False
    if _CIRCLE.search(text):
        if _TRIGONOMETRIC.search(text):
            return Quantity(_CIRCLE.sub(r" \\cdot \\frac{\\pi}{180}", text))
        temperature = re.search(r"\\circ\s*\}?\s*(?:\\text\{\s*)?([CF])\b\s*\}?", text)
        text = text[: temperature.start()].rstrip("^{ ") if temperature else _CIRCLE.sub("", text)
        if temperature:
            return Quantity(text, unit=known_unit(temperature[1]))
        is_in_degrees = True
    match = _TEXT_UNIT.fullmatch(text)
    if match is None:
        match = _WORD_UNIT.fullmatch(text)
        if match is None or not _may_be_unit(match, has_no_variables):
            return Quantity(text, is_in_degrees=is_in_degrees)
    if match["unit"] in ("k", "K"):
        return Quantity(rf"{match['number'].strip()} \cdot 10^{{3}}")
    unit = known_unit(re.sub(r"\\text\{([^{}]*)\}", r" \1 ", match["unit"]))
    if unit and unit[0] == "angle":
        return Quantity(match["number"], is_in_degrees=unit[2] > 0)
    return Quantity(match["number"].strip(), is_in_degrees=is_in_degrees, unit=unit)


def _may_be_unit(match: re.Match[str], has_no_variables: bool) -> bool:
    """Whether letters behind a number are a unit, and no variables."""
    if any(letter["letter"] for letter in _LETTER.finditer(match["number"])):
        return False
    unit = match["unit"].strip()
    is_known = known_unit(unit) is not None
    if has_no_variables:
        return len(unit) > 1 or is_known or unit in ("k", "K")
    first_word = unit.split()[0]
    return (is_known and len(first_word) > 1) or (bool(match["gap"]) and (is_known or len(first_word) > 2))


def has_variables(text: str) -> bool:
    """Whether a letter outside of text and commands stands in an expression; `e` and `i` are numbers."""
    plain = re.sub(r"\\text\{[^{}]*\}", " ", text)
    return any(letter["letter"] and letter["letter"] not in "ei" for letter in _LETTER.finditer(plain))


def known_unit(words: str) -> tuple[str, int, Fraction] | None:
    """Dimension, power and size of a unit; None for any other words."""
    power = 1
    if raised := _POWER.search(words):
        power, words = int(raised[1]), _POWER.sub("", words)
    name = " ".join(words.replace(".", " ").split())
    name = re.sub(r"\s*/\s*", "/", name) if "/" in name else name
    for prefix, value in (("square ", 2), ("sq ", 2), ("cubic ", 3), ("cu ", 3)):
        if name.lower().startswith(prefix):
            power, name = value, name[len(prefix) :]
    lower = name.lower()
    found = _UNITS.get(lower) or _UNITS.get(lower.removesuffix("s")) if len(lower) > 2 else _UNITS.get(lower)
    return None if found is None else (found[0], power, found[1] ** power)
