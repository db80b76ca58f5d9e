"""Whether two answers say the same: structure by structure here, expression by expression by math-verify and sympy."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from hir_core.rewards.formulas import regions
from hir_core.rewards.formulas.expressions import same_expressions, same_relations
from hir_core.rewards.formulas.kinds import (
    SET,
    Answer,
    Combined,
    Doubt,
    Either,
    Equation,
    Expression,
    Inequality,
    Matrix,
    Members,
    Words,
    is_name,
    name_in,
    pair_names,
    same_words,
)
from hir_core.rewards.formulas.structure import structure_of

SEVERAL = "several answers"
_MOST_UNORDERED = 12
"""Members of sets that are compared each with each."""


def same(reference: Answer, answer: Answer, *, in_percent: bool = False) -> bool:
    """Whether an answer says what the reference says.

    Args:
        in_percent: whether the question asks for a percentage, so that the sign may be left out.

    Raises:
        Doubt: that is not known, or the answer is several.
    """
    if reference == answer:
        return True
    if isinstance(reference, Words) or isinstance(answer, Words):
        return same_words(reference, answer)
    reference, answer = _as_collection(reference), _resolved(reference, answer)
    if _has_modulus(reference) != _has_modulus(answer):
        reference, answer = _without_modulus(reference), _without_modulus(answer)
    if isinstance(reference, Equation) or isinstance(answer, Equation):
        return _same_equations(reference, answer, in_percent)
    if named := _named_values(reference, answer):
        return same(*named, in_percent=in_percent)
    if _is_region(reference) or _is_region(answer):
        return _same_regions(reference, answer)
    if isinstance(reference, Matrix) or isinstance(answer, Matrix):
        return _same_matrices(reference, answer, in_percent)
    if isinstance(reference, Members) or isinstance(answer, Members):
        return _same_members(reference, answer, in_percent)
    assert isinstance(reference, Expression)
    assert isinstance(answer, Expression)
    return same_expressions(reference.text, answer.text, in_percent=in_percent)


def _has_modulus(answer: Answer) -> bool:
    return isinstance(answer, Members) and answer.brackets == "mod"


def _without_modulus(answer: Answer) -> Answer:
    return answer.items[0] if isinstance(answer, Members) and answer.brackets == "mod" else answer


def _as_collection(reference: Answer) -> Answer:
    """A reference with `or` as what it stands for: a list of values, or a union."""
    if not isinstance(reference, Either):
        return reference
    if any(isinstance(item, Inequality) for item in reference.items):
        return Combined(r"\cup", reference.items)
    return Members("", reference.items)


def _resolved(reference: Answer, answer: Answer) -> Answer:
    """The answer with `or` as what it stands for where the reference is of several values too."""
    if not isinstance(answer, Either):
        return answer
    if all(isinstance(item, Inequality) for item in answer.items):
        return Combined(r"\cup", answer.items)
    takes_several = isinstance(reference, Either) or (isinstance(reference, Members) and len(reference.items) > 1)
    if takes_several and all(isinstance(item, (Equation, Expression)) for item in answer.items):
        return Members("", answer.items)
    if isinstance(reference, (Combined, Inequality)):
        return Combined(r"\cup", answer.items)
    if all(_is_known_same(answer.items[0], item) for item in answer.items[1:]):
        return answer.items[0]
    raise Doubt(SEVERAL)


def _is_known_same(one: Answer, other: Answer) -> bool:
    try:
        return same(one, other)
    except Doubt:
        return False


# --- equations and names ---------------------------------------------------------------------------------------------


def _value(equation: Equation) -> Answer:
    """What an equation says of a name: its last side, or in `3 = x` the first."""
    first, last = equation.sides[0], equation.sides[-1]
    is_reversed = is_name(last) and not is_name(first) and last not in ("e", "i")  # which are numbers
    return structure_of(first if is_reversed else last)


def _same_equations(reference: Answer, answer: Answer, in_percent: bool) -> bool:
    if isinstance(reference, Equation) and isinstance(answer, Equation):
        return _same_two_equations(reference, answer, in_percent)
    if isinstance(answer, Equation):
        names = pair_names(answer.sides[0])
        value = _value(answer)
        if names and list(names) != sorted(names) and isinstance(value, Members) and len(value.items) == len(names):
            items = zip(names, value.items, strict=True)
            value = Members(value.brackets, tuple(item for _, item in sorted(items, key=lambda pair: pair[0])))
        return same(reference, value, in_percent=in_percent)
    assert isinstance(reference, Equation)
    if is_name(reference.sides[0]) or pair_names(reference.sides[0]):
        return same(_value(reference), answer, in_percent=in_percent)
    if not isinstance(answer, Expression):
        return same(_value(reference), answer, in_percent=in_percent)
    raise Doubt("an expression, not an equation")


def _same_two_equations(reference: Equation, answer: Equation, in_percent: bool) -> bool:
    named, also_named = (
        is_name(equation.sides[0]) or pair_names(equation.sides[0]) for equation in (reference, answer)
    )
    if named and also_named:
        equal = same(_value(reference), _value(answer), in_percent=in_percent)
        one, other = name_in(reference.sides[0]), name_in(answer.sides[0])
        are_variables = not any("(" in equation.sides[0] for equation in (reference, answer))
        if equal and are_variables and len(one) == len(other) == 1 and one.lower() != other.lower():
            raise Doubt("another name")
        return equal
    return same_relations("=", reference.sides, answer.sides)


def _assignments(answer: Answer) -> dict[str, Answer] | None:
    """The values by name in a list of equations that name each value; None where it is something else."""
    if not isinstance(answer, Members) or answer.brackets not in ("", "()"):
        return None
    values = dict[str, Answer]()
    for item in answer.items:
        if not isinstance(item, Equation) or not is_name(item.sides[0]) or name_in(item.sides[0]) in values:
            return None
        values[name_in(item.sides[0])] = _value(item)
    return values


def _named_values(reference: Answer, answer: Answer) -> tuple[Answer, Answer] | None:
    """Both without names where a list gives its values by name: `x = 1, y = 2` and (1, 2)."""
    one, other = _assignments(reference), _assignments(answer)
    if one and other and set(one) == set(other):
        names = sorted(one)
        return Members("()", tuple(one[name] for name in names)), Members("()", tuple(other[name] for name in names))
    plain_reference, plain_answer = _nameless(reference, one, answer), _nameless(answer, other, reference)
    changed = plain_reference is not reference or plain_answer is not answer
    return (plain_reference, plain_answer) if changed else None


def _nameless(answer: Answer, values: dict[str, Answer] | None, other: Answer) -> Answer:
    if values is not None:
        is_ordered = isinstance(other, (Members, Matrix)) and not (
            isinstance(other, Members) and other.brackets in ("", SET)
        )
        return Members("()" if is_ordered else "", tuple(values[name] for name in sorted(values)))
    if isinstance(answer, Members) and any(isinstance(item, Equation) for item in answer.items):
        items = tuple(_value(item) if isinstance(item, Equation) else item for item in answer.items)
        flat = [
            member
            for item in items
            for member in (item.items if isinstance(item, Members) and item.brackets == SET else [item])
        ]
        return Members(answer.brackets, tuple(flat))
    return answer


# --- regions ---------------------------------------------------------------------------------------------------------


def _is_region(answer: Answer) -> bool:
    if isinstance(answer, Members):
        is_half_open = answer.brackets in ("(]", "[)")
        return is_half_open or any(isinstance(item, Inequality) for item in answer.items)
    if isinstance(answer, Expression):
        return answer.text in (r"\emptyset", r"\mathbb{R}")
    return isinstance(answer, (Inequality, Combined))


def _same_regions(reference: Answer, answer: Answer) -> bool:
    expected, given = regions.region(reference), regions.region(answer)
    if expected is None or given is None:
        if (
            isinstance(reference, Inequality)
            and isinstance(answer, Inequality)
            and len(reference.signs) == len(answer.signs) == 1
        ):
            return same_relations("<", _oriented(reference), _oriented(answer), reference.signs, answer.signs)
        if (expected is None) != (given is None) and not (_is_region(reference) and _is_region(answer)):
            return False
        raise Doubt("regions that are not understood")
    return regions.same_regions(expected, given)


def _oriented(inequality: Inequality) -> tuple[str, ...]:
    """The sides with the smaller one first."""
    return inequality.sides[::-1] if inequality.signs[0] in (">", r"\ge") else inequality.sides


# --- members ---------------------------------------------------------------------------------------------------------


def _same_matrices(reference: Answer, answer: Answer, in_percent: bool) -> bool:
    expected, given = _rows(reference), _rows(answer)
    if expected is None or given is None:
        return False
    if [*map(len, expected)] != [*map(len, given)]:
        if (
            _is_vector(expected)
            and _is_vector(given)
            and _cells(expected)
            and len(_cells(expected)) == len(_cells(given))
        ):
            equal = _in_order(_cells(expected), _cells(given), in_percent)
            if equal and isinstance(reference, Matrix) and isinstance(answer, Matrix):
                raise Doubt("a row, not a column")
            return equal
        return False
    return _in_order(_cells(expected), _cells(given), in_percent)


def _rows(answer: Answer) -> Sequence[Sequence[Answer]] | None:
    if isinstance(answer, Matrix):
        return answer.rows
    if not isinstance(answer, Members):
        return None
    rows = [item.items for item in answer.items if isinstance(item, Members) and item.brackets in ("[]", "()")]
    return rows if rows and len(rows) == len(answer.items) else [answer.items]


def _is_vector(rows: Sequence[Sequence[Answer]]) -> bool:
    return len(rows) == 1 or all(len(row) == 1 for row in rows)


def _cells(rows: Sequence[Sequence[Answer]]) -> list[Answer]:
    return [cell for row in rows for cell in row]


def _same_members(reference: Answer, answer: Answer, in_percent: bool) -> bool:
    expected, given = _members(reference), _members(answer)
    brackets = [side.brackets if isinstance(side, Members) else None for side in (reference, answer)]
    if None in brackets:
        return _same_single(expected, given, brackets, in_percent)
    if _may_be_decimal_comma(expected, given):
        raise Doubt("a comma between digits")
    if len(expected) != len(given):
        return False
    is_ordered = SET not in brackets and ({"()", "[]", "mod"} & {*brackets})
    if brackets == ["", ""] or not is_ordered:
        equal = _in_any_order(expected, given, in_percent)
    else:
        equal = _in_order(expected, given, in_percent)
    if equal and "" not in brackets and brackets[0] != brackets[1]:
        if "[]" in brackets and len(expected) == 2:
            return False  # an interval with its ends, and one without, or a set
        raise Doubt("other brackets")
    return equal


def _members(answer: Answer) -> list[Answer]:
    return list(answer.items) if isinstance(answer, Members) else [answer]


def _same_single(expected: list[Answer], given: list[Answer], brackets: list[str | None], in_percent: bool) -> bool:
    """One value against several: equal only to the set of it alone."""
    if len(expected) == len(given) == 1:
        return same(expected[0], given[0], in_percent=in_percent)
    if brackets == [None, ""] and _any_same(expected[0], given, in_percent):
        raise Doubt(SEVERAL)
    if brackets == [None, ""] and len(given) == 2 and all(_is_integer(item) for item in given):
        raise Doubt("a comma between digits")
    return False


def _any_same(expected: Answer, given: list[Answer], in_percent: bool) -> bool:
    return any(same(expected, item, in_percent=in_percent) for item in given)


def _is_integer(answer: Answer) -> bool:
    return isinstance(answer, Expression) and re.fullmatch(r"-?\d+", answer.text) is not None


def _may_be_decimal_comma(expected: list[Answer], given: list[Answer]) -> bool:
    return len(expected) == 1 and len(given) == 2 and all(map(_is_integer, given))


def _in_order(expected: Sequence[Answer], given: Sequence[Answer], in_percent: bool) -> bool:
    pairs = zip(expected, given, strict=False)
    return len(expected) == len(given) and _all_known(
        [lambda pair=pair: same(*pair, in_percent=in_percent) for pair in pairs]  # type: ignore[misc]
    )


def _all_known(checks: Sequence[Callable[[], bool]]) -> bool:
    """Whether all hold; one that does not hold decides even where another is in doubt."""
    doubt: Doubt | None = None
    for check in checks:
        try:
            if not check():
                return False
        except Doubt as error:
            doubt = error
    if doubt is not None:
        raise doubt
    return True


def _in_any_order(expected: list[Answer], given: list[Answer], in_percent: bool) -> bool:
    if len(expected) > _MOST_UNORDERED:
        return _in_order(expected, given, in_percent)
    left, doubt = list(given), None
    for item in expected:
        for other in left:
            try:
                found = same(item, other, in_percent=in_percent)
            except Doubt as error:
                doubt, found = error, False
            if found:
                left.remove(other)
                break
        else:
            if doubt is not None:
                raise doubt
            return False
    return True
