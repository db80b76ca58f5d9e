"""Every kind of constraint by name, and what can be done with a constraint: check it, say it, read it back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hir_core.errors import ConfigError, did_you_mean
from hir_core.prompts.constraints.constraint import Constraint, Kind
from hir_core.prompts.constraints.kinds import AMOUNTS, FORMATS, KEYWORDS, LETTERS, NUMERALS

KINDS: dict[str, Kind] = {
    kind.name: kind for family in (AMOUNTS, KEYWORDS, LETTERS, NUMERALS, FORMATS) for kind in family
}


def check(constraint: Constraint, text: str) -> bool:
    """Whether a text satisfies a constraint."""
    return KINDS[constraint.kind].holds(text, constraint.value)


def satisfied(text: str, vocabulary: Iterable[Constraint]) -> list[Constraint]:
    """Those constraints of a vocabulary that a text satisfies, in the vocabulary's order."""
    return [constraint for constraint in vocabulary if check(constraint, text)]


def describe(constraint: Constraint) -> str:
    """The constraint as an instruction: one English sentence."""
    return KINDS[constraint.kind].say(constraint.value)


def described(constraints: Iterable[Constraint]) -> str:
    """Several constraints as an instruction, one sentence each, in the given order."""
    return " ".join(describe(constraint) for constraint in constraints)


def parse(sentence: str) -> Constraint | None:
    """The constraint that `describe` says with a sentence; None where there is none."""
    for kind in KINDS.values():
        if found := kind.read(sentence):
            return Constraint(kind.name, *found)
    return None


def restated(query: str, asked: Sequence[Constraint], instead: Sequence[Constraint]) -> str | None:
    """A query that asks for other constraints instead: the asked sentences, in their order, are replaced once.

    None where the query does not hold those sentences exactly once.
    """
    before = described(asked)
    return query.replace(before, described(instead)) if before and query.count(before) == 1 else None


def read_constraints(given: Any) -> tuple[Constraint, ...]:
    """The constraints that a prompt's metadata holds, a list of `{"kind": ..., "value": ...}`, in their order.

    Raises:
        ConfigError: it is no such list, or it names an unknown kind or a wrong value; says which.
    """
    if not isinstance(given, list) or not given:
        raise ConfigError(f'constraints: expected a list of {{"kind", "value"}}, found {given!r}: give at least one')
    return tuple(map(_read, given))


def _read(given: Any) -> Constraint:
    if not isinstance(given, dict) or not {"kind"} <= set(given) <= {"kind", "value"}:
        raise ConfigError(f'constraints: expected {{"kind", "value"}}, found {given!r}: correct it')
    name, value = given["kind"], given.get("value")
    if not isinstance(name, str) or name not in KINDS:
        hint = did_you_mean(str(name), KINDS) or f"; choose from {', '.join(KINDS)}"
        raise ConfigError(f"constraints: no kind {name!r}{hint}")
    parameter = KINDS[name].parameter
    if not (value is None if parameter is None else parameter.allows(value)):
        expected = "no value" if parameter is None else f"{parameter.what} as value"
        raise ConfigError(f"constraints: {name}: expected {expected}, found {value!r}")
    return Constraint(name, value)
