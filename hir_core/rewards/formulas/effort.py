"""How much work an expression asks for, told from its form, so that what is too large is refused before it is begun.

A limit on time alone would refuse other expressions on a slow machine than on a fast one.
"""

from __future__ import annotations

from typing import Any

from hir_core.rewards.formulas.kinds import Doubt

MOST_NODES = 300
LARGEST_EXPONENT, LARGEST_DEGREE = 5_000, 60
"""Largest power of a number or a variable, and of anything else."""
LARGEST_FACTORIAL, MOST_TERMS = 1_000, 1_000
DEEPEST_TOWER = 2
"""Powers within the exponent of a power."""
LARGEST_VARIABLE_POWER = 4
"""Largest power of a variable in an exponent."""
TOO_LARGE, NOT_COMPUTED = "too large to compute", "not computed"


def check_effort(expression: Any) -> None:
    """Makes sure that the value of an expression can be computed in little time.

    Raises:
        Doubt: it cannot, or what it says is left to be computed, as an integral or a limit.
    """
    import sympy

    for number, node in enumerate(sympy.preorder_traversal(expression)):
        if isinstance(node, (sympy.Integral, sympy.Limit)):
            raise Doubt(NOT_COMPUTED)
        is_large = (
            number > MOST_NODES
            or (isinstance(node, (sympy.Pow, sympy.exp)) and _is_large_power(node))
            or (isinstance(node, (sympy.factorial, sympy.binomial, sympy.gamma)) and _has_large_argument(node))
            or (isinstance(node, (sympy.Sum, sympy.Product)) and _has_many_terms(node))
        )
        if is_large:
            raise Doubt(TOO_LARGE)


def _is_large_power(power: Any) -> bool:
    import sympy

    base, exponent = power.as_base_exp()
    if _tower(exponent) >= DEEPEST_TOWER:
        return True
    if not exponent.is_number:
        inner = exponent.atoms(sympy.Pow)
        return any(not _magnitude(node.exp) <= LARGEST_VARIABLE_POWER for node in inner if node.exp.is_number)
    size = _magnitude(exponent)
    while isinstance(base, sympy.Pow):
        base, exponent = base.as_base_exp()
        size *= max(1.0, _magnitude(exponent) if exponent.is_number else float(LARGEST_DEGREE))
    is_simple = base.is_number or base.is_Symbol
    return not size <= (LARGEST_EXPONENT if is_simple else LARGEST_DEGREE)


def _tower(expression: Any) -> int:
    """How many powers stand one within the exponent of the other; roots and inverses do not count."""
    import sympy

    heights = [_tower(argument) for argument in expression.args]
    if isinstance(expression, (sympy.Pow, sympy.exp)) and not expression.as_base_exp()[1].is_Rational:
        return 1 + max(heights, default=0)
    if isinstance(expression, sympy.Pow) and _magnitude(expression.exp) > 1:
        return 1 + max(heights, default=0)
    return max(heights, default=0)


def _has_large_argument(function: Any) -> bool:
    return any(argument.is_number and not _magnitude(argument) <= LARGEST_FACTORIAL for argument in function.args)


def _has_many_terms(series: Any) -> bool:
    for _, low, high in series.limits:
        if not (low.is_number and high.is_number):
            return True
        if not _magnitude(high - low) <= MOST_TERMS or not _magnitude(high) <= MOST_TERMS:
            return True
    return False


def _magnitude(number: Any) -> float:
    """The absolute value of a number; infinite where that would take powers or functions to compute."""
    import sympy

    if number.is_Rational:
        return abs(float(number)) if abs(number.p) < 10**300 else float("inf")
    if any(
        isinstance(node, (sympy.Pow, sympy.Function)) and not _is_plain(node)
        for node in sympy.preorder_traversal(number)
    ):
        return float("inf")
    try:
        return abs(complex(number))
    except (OverflowError, TypeError, ValueError):
        return float("inf")


def _is_plain(node: Any) -> bool:
    """Whether a power is that of a rational number to a small one."""
    base, exponent = node.as_base_exp()
    return bool(base.is_Rational and exponent.is_Rational and abs(exponent) <= LARGEST_VARIABLE_POWER)
