"""Whether two expressions are equal: read by math-verify's parser, and compared by their values.

Numbers are compared exactly or to 25 digits, expressions with variables by their values at fixed points: that takes
little time and always the same way, where to prove that two expressions are equal may take any time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

from hir_core.rewards.formulas.effort import TOO_LARGE, check_effort
from hir_core.rewards.formulas.kinds import Doubt
from hir_core.rewards.formulas.quantities import Quantity, has_variables, quantity

LONGEST = 600
"""Characters of an expression beyond which it is not read."""
NOT_UNDERSTOOD, ROUNDED = "not understood", "rounded"
HIGHEST_DEGREE = 4
"""Degree of polynomial equations up to which they are solved where they are no multiples of each other."""
_DIGITS = 30
_CLOSE = 25
"""Decimal places to which values of equal expressions agree, of the 30 that are computed."""


# --- numbers ---------------------------------------------------------------------------------------------------------

_DECIMAL = r"-?\s?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})"
_NUMBER = re.compile(
    rf"\+?(?P<number>{_DECIMAL})(?:\s*\\cdot\s*10\s*\^\{{(?P<exponent>[+-]?\d{{1,3}})\}})?|"
    r"(?P<sign>-?)\s?(?:\\frac\{(?P<above>-?\d{1,400})\}\{(?P<below>\d{1,400})\}|(?P<over>\d{1,400})\s*/\s*(?P<under>\d{1,400}))|"
    r"(?P<minus>-?)\s?\((?P<units>\d{1,400})\+\\frac\{(?P<part>\d{1,400})\}\{(?P<whole>\d{1,400})\}\)"
)


def exact_number(text: str) -> Fraction | None:
    """The value of a number, of a fraction of whole numbers or of a mixed number; None for any other expression."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    if match["number"]:
        return Fraction(match["number"].replace(" ", "")) * Fraction(10) ** int(match["exponent"] or 0)
    if match["units"]:
        value = int(match["units"]) + Fraction(int(match["part"]), int(match["whole"]) or 1)
        return -value if match["minus"] else value
    above, below = int(match["above"] or match["over"]), int(match["below"] or match["under"])
    if below == 0:
        return None
    return Fraction(-above if match["sign"] else above, below)


_ROUNDED = re.compile(r"-?\s?(\d*)\.(\d+)")
_EXACT_PLACES, _TOLD_DIGITS = 6, 3


def _is_rounding(exact: Any, rounded: str) -> bool:
    """Whether a decimal is another value to as many decimal places as it has."""
    decimals = _ROUNDED.fullmatch(rounded.strip())
    if decimals is None:
        return False
    return abs(exact - _as_sympy(Fraction(rounded.replace(" ", "")))) * 2 * 10 ** len(decimals[2]) <= 1 + 1e-9  # type: ignore[no-any-return]


def _digits(rounded: str) -> int:
    return len(re.sub(r"\D", "", rounded).lstrip("0"))


def _places(rounded: str) -> int:
    decimals = _ROUNDED.fullmatch(rounded.strip())
    return len(decimals[2]) if decimals else 0


def _close(expected: str, given: str, expected_value: Any, given_value: Any) -> bool:
    """Whether of two different numbers one is the other rounded to enough digits.

    Raises:
        Doubt: it is rounded to few.
    """
    given_is_rounded = bool(_ROUNDED.fullmatch(given.strip()))
    if given_is_rounded and _is_rounding(expected_value, given):
        if _places(given) >= _EXACT_PLACES:
            return True
        if _digits(given) >= 2:
            raise Doubt(ROUNDED)
    if _is_rounding(given_value, expected):
        if _digits(expected) >= _TOLD_DIGITS and not given_is_rounded:
            return True
        if _digits(expected) >= 2:
            raise Doubt(ROUNDED)
    return False


# --- reading ---------------------------------------------------------------------------------------------------------

_POINT = re.compile(r"(?<![\d.])(\d*)\.(\d+)")
_LARGE_BINOMIAL = re.compile(r"\\binom\{[^{}]*\d{5}|\d{401}")


def _exact(decimal: re.Match[str]) -> str:
    return rf"(\frac{{{int(decimal[1] + decimal[2])}}}{{{10 ** len(decimal[2])}}})"


@lru_cache(maxsize=512)
def parsed(text: str) -> Any:
    """An expression as sympy has it, unevaluated.

    Raises:
        Doubt: it cannot be read, or is too large to compute with.
    """
    import sympy
    from latex2sympy2_extended.latex2sympy2 import latex2sympy

    if len(text) > LONGEST or _LARGE_BINOMIAL.search(text):
        raise Doubt(TOO_LARGE)
    try:
        value = latex2sympy(_POINT.sub(_exact, text), is_real=True, convert_degrees=False, normalization_config=None)
    except (Exception, RecursionError) as error:  # the parser raises whatever it meets
        raise Doubt(NOT_UNDERSTOOD) from error
    if value is None or isinstance(value, str):
        raise Doubt(NOT_UNDERSTOOD)
    check_effort(value)
    imaginary = [symbol for symbol in value.free_symbols if symbol.name == "i"]
    return value.xreplace(dict.fromkeys(imaginary, sympy.I))


def _as_sympy(value: Fraction) -> Any:
    import sympy

    return sympy.Rational(value.numerator, value.denominator)


# --- comparing -------------------------------------------------------------------------------------------------------


def same_expressions(reference: str, answer: str, *, in_percent: bool) -> bool:
    """Whether two expressions, which may have units, are equal.

    Raises:
        Doubt: that is not known.
    """
    if reference == answer:
        return True
    expected = quantity(reference, has_no_variables=False)
    given = quantity(answer, has_no_variables=not has_variables(expected.text))
    if expected.unit and given.unit and expected.unit != given.unit:
        if expected.unit[:2] != given.unit[:2]:
            return False
        factor = given.unit[2] / expected.unit[2]
        value = exact_number(given.text)
        converted = rf"({given.text}) \cdot {_latex(factor)}" if value is None else _latex(value * factor)
        return _same_values(expected.text, converted)
    if expected.is_percent != given.is_percent:
        return _same_with_percent(expected, given, in_percent)
    if expected.is_in_degrees != given.is_in_degrees:
        return _same_with_degrees(expected, given)
    return _same_values(expected.text, given.text)


def _latex(value: Fraction) -> str:
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def _same_with_percent(expected: Quantity, given: Quantity, in_percent: bool) -> bool:
    """With one percent sign: as a hundredth or, where a percentage is asked for or is above 1, as a sign left out."""
    percent, plain = (expected, given) if expected.is_percent else (given, expected)
    hundredth = rf"\frac{{{percent.text}}}{{100}}"
    if (value := exact_number(percent.text)) is not None:
        hundredth = _latex(value / 100)
    pair = (hundredth, plain.text) if expected.is_percent else (plain.text, hundredth)
    try:
        if _same_values(*pair):
            return True
    except Doubt:
        if not in_percent:
            raise
    may_be_left_out = in_percent or (value is not None and abs(value) > 1)
    return may_be_left_out and _same_values(expected.text, given.text)


def _same_with_degrees(expected: Quantity, given: Quantity) -> bool:
    """With one degree sign: as a sign left out, or as an angle in radians."""
    if _same_values(expected.text, given.text):
        return True
    in_radians = [
        rf"({side.text}) \cdot \frac{{\pi}}{{180}}" if side.is_in_degrees else side.text for side in (expected, given)
    ]
    return r"\pi" in expected.text + given.text and _same_values(*in_radians)


def _same_values(expected: str, given: str) -> bool:
    if expected == given:
        return True
    numbers = exact_number(expected), exact_number(given)
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1] or _close(expected, given, *map(_as_sympy, numbers))  # type: ignore[arg-type]
    left, right = parsed(expected), parsed(given)
    decided = _same_at_points(left, right)
    if decided is None:
        import math_verify

        return bool(math_verify.verify(left, right, timeout_seconds=0, raise_on_error=True))
    if not decided and not (left.free_symbols or right.free_symbols):
        return _close(expected, given, _value(left, {}), _value(right, {}))
    return decided


_POINTS = ("1.3718281", "0.3141592", "-0.5772156", "2.6854520", "-1.8392867", "3", "4")
_STEP = "0.2718281"


def _same_at_points(left: Any, right: Any) -> bool | None:
    """Whether two expressions have the same values; None where they have none that could be compared.

    Where only one of them is real at a point, nothing is concluded from it: the answer may be meant for other values.
    """
    import sympy

    if not all(isinstance(side, sympy.Expr) for side in (left, right)):
        return None
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    equal_where_real, equal_elsewhere = list[bool](), list[bool]()
    for values in _points(symbols):
        one, other = _value(left, values), _value(right, values)
        if one is None or other is None:
            continue
        equal = bool(abs(one - other) <= sympy.Float(10, _DIGITS) ** -_CLOSE * max(abs(one), abs(other)))
        are_real = bool(one.is_real), bool(other.is_real)
        if not symbols:
            return equal
        if are_real == (True, True):
            if not equal:
                return False
            equal_where_real.append(equal)
        elif are_real == (False, False):
            equal_elsewhere.append(equal)
    if equal_where_real:
        return len(equal_where_real) > 1 or (bool(equal_elsewhere) and all(equal_elsewhere))
    return all(equal_elsewhere) if equal_elsewhere else None


def _points(symbols: Sequence[Any]) -> Iterator[dict[Any, Any]]:
    """Values for all variables: some between whole numbers, of either sign, and some whole."""
    import sympy

    for number, point in enumerate(_POINTS if symbols else _POINTS[:1]):
        step = 1 if "." not in point else sympy.Rational(_STEP) * (1 if number % 2 else -1)
        yield {symbol: sympy.Rational(point) + step * at for at, symbol in enumerate(symbols)}


def _value(expression: Any, values: dict[Any, Any]) -> Any:
    """The value of an expression at a point; None where it has none."""
    import sympy

    try:
        value = sympy.N(expression.xreplace(values).doit(), _DIGITS)
    except (ArithmeticError, TypeError, ValueError, NotImplementedError, AttributeError):
        return None
    if (
        not isinstance(value, sympy.Expr)
        or not value.is_number
        or value.has(sympy.nan, sympy.zoo)
        or not value.is_finite
    ):
        return None
    real, imaginary = value.as_real_imag()
    if not all(isinstance(part, (sympy.Float, sympy.Integer, sympy.Rational)) for part in (real, imaginary)):
        return None
    small = sympy.Float(10, _DIGITS) ** -_CLOSE
    return real if abs(imaginary) <= small * max(1, abs(real)) else real + sympy.I * imaginary


def same_relations(
    sign: str,
    reference: Sequence[str],
    answer: Sequence[str],
    reference_signs: Sequence[str] = (),
    answer_signs: Sequence[str] = (),
) -> bool:
    """Whether two equations, or two inequalities with the smaller side first, hold for the same values.

    Raises:
        Doubt: that is not known.
    """
    import math_verify
    import sympy

    strict = [all(sign in ("<", ">") for sign in signs) for signs in (reference_signs, answer_signs)]
    if strict[0] != strict[1]:
        return False
    sides = [parsed(text) for text in (reference[0], reference[-1], answer[0], answer[-1])]
    expected, given = sides[0] - sides[1], sides[2] - sides[3]
    symbols = sorted(expected.free_symbols | given.free_symbols, key=str)
    ratios = []
    for point in _POINTS[:4]:
        values = {symbol: sympy.Rational(point) + at for at, symbol in enumerate(symbols)}
        one, other = _value(expected, values), _value(given, values)
        if one is not None and other is not None and one != 0:
            ratios.append(other / one)
    if len(ratios) > 1 and all(abs(ratio - ratios[0]) <= 1e-20 * abs(ratios[0]) for ratio in ratios[1:]):
        return ratios[0] != 0 and (sign == "=" or bool(ratios[0] > 0))
    if sign != "=":
        raise Doubt("relations that are not understood")
    if not all(side.is_polynomial() and sympy.total_degree(side) <= HIGHEST_DEGREE for side in (expected, given)):
        raise Doubt("equations of another form")
    equations = (sympy.Eq(sides[0], sides[1], evaluate=False), sympy.Eq(sides[2], sides[3], evaluate=False))
    return bool(math_verify.verify(*equations, timeout_seconds=0, raise_on_error=True))
