"""Answers that are parts of the real line: intervals, inequalities in one variable, their unions and differences."""

from __future__ import annotations

from typing import Any

from hir_core.rewards.formulas.expressions import parsed
from hir_core.rewards.formulas.kinds import (
    SET,
    Answer,
    Combined,
    Doubt,
    Either,
    Equation,
    Expression,
    Inequality,
    Members,
)
from hir_core.rewards.formulas.structure import structure_of

_LESS, _MORE = ("<", r"\le"), (">", r"\ge")
_STRICT = ("<", ">")


def region(answer: Answer) -> Any:
    """The set of real numbers that an answer describes, as sympy has it; None where it describes none.

    Raises:
        Doubt: a part of it is not understood.
    """
    import sympy

    if isinstance(answer, Expression):
        known = {r"\emptyset": sympy.S.EmptySet, r"\mathbb{R}": sympy.S.Reals, r"\mathbb{Z}": sympy.S.Integers}
        if answer.text in known:
            return known[answer.text]
        value = _number(answer.text)
        return None if value is None else sympy.FiniteSet(value)
    if isinstance(answer, Equation):
        return region(structure_of(answer.sides[-1]))
    if isinstance(answer, Inequality):
        return _of_inequality(answer)
    if isinstance(answer, Members):
        return _of_members(answer)
    if isinstance(answer, (Combined, Either)):
        return _of_combined(answer)
    return None


def same_regions(expected: Any, given: Any) -> bool:
    """Whether two sets are the same."""
    import math_verify

    return expected == given or bool(math_verify.verify(expected, given, timeout_seconds=0, raise_on_error=True))


def _number(text: str) -> Any:
    value = parsed(text)
    return None if getattr(value, "free_symbols", True) else value


def _of_members(answer: Members) -> Any:
    import sympy

    if answer.brackets == SET:
        parts = [region(item) for item in answer.items]
        return None if any(part is None for part in parts) else sympy.Union(*parts)
    if not answer.brackets:
        if not any(isinstance(item, Inequality) for item in answer.items):
            return None
        parts = [region(item) for item in answer.items]
        return None if any(part is None for part in parts) else sympy.Intersection(*parts)
    if len(answer.items) != 2 or not all(isinstance(item, Expression) for item in answer.items):
        return None
    low, high = (_number(item.text) for item in answer.items if isinstance(item, Expression))
    if low is None or high is None:
        return None
    return sympy.Interval(low, high, left_open=answer.brackets[0] == "(", right_open=answer.brackets[1] == ")")


def _of_combined(answer: Combined | Either) -> Any:
    import sympy

    parts = [region(item) for item in answer.items]
    if any(part is None for part in parts):
        return None
    if isinstance(answer, Either) or answer.sign == r"\cup":
        return sympy.Union(*parts)
    if answer.sign == r"\cap":
        return sympy.Intersection(*parts)
    result = parts[0]
    for part in parts[1:]:
        result = sympy.Complement(result, part)
    return result


def _of_inequality(answer: Inequality) -> Any:
    """The values of the one variable for which all relations of a chain hold."""
    import sympy

    values = [parsed(side) for side in answer.sides]
    symbols = set().union(*(getattr(value, "free_symbols", set()) for value in values))
    if len(symbols) != 1:
        return None
    pieces = []
    for low, sign, high in zip(values, answer.signs, values[1:], strict=False):
        pieces.append(_of_relation(low, sign, high, next(iter(symbols))))
    return sympy.Intersection(*pieces)


def _of_relation(left: Any, sign: str, right: Any, symbol: Any) -> Any:
    import sympy

    if sign in _MORE:
        left, right = right, left
    is_open = sign in _STRICT
    if sign not in (*_LESS, *_MORE, r"\ne"):
        raise Doubt("a relation that is not understood")
    if right == symbol and not left.free_symbols and sign != r"\ne":
        return sympy.Interval(left, sympy.oo, left_open=is_open)
    if left == symbol and not right.free_symbols and sign != r"\ne":
        return sympy.Interval(-sympy.oo, right, right_open=is_open)
    relation = sympy.Ne if sign == r"\ne" else sympy.Lt if is_open else sympy.Le
    return relation(left, right).as_set()
