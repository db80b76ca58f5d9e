"""Every kind of constraint by name, and the operations on constraints: check, describe and parse them.

The synthetic task `constrained_writing`, the reward and the relabeler `constraints` and the verification of written
instructions use these.
"""

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
    """The constraints of a vocabulary that a text satisfies, in the vocabulary's order."""
    return [constraint for constraint in vocabulary if check(constraint, text)]


def describe(constraint: Constraint) -> str:
    """The constraint as an instruction: one English sentence."""
    return KINDS[constraint.kind].say(constraint.value)


def describe_all(constraints: Iterable[Constraint]) -> str:
    """Several constraints as an instruction, one sentence each, in the given order."""
    return " ".join(describe(constraint) for constraint in constraints)


def parse(sentence: str) -> Constraint | None:
    """The constraint that `describe` turns into the sentence; None where there is no such constraint."""
    for kind in KINDS.values():
        if match := kind.read(sentence):
            return Constraint(kind.name, *match)
    return None


def with_constraints_replaced(query: str, asked: Sequence[Constraint], instead: Sequence[Constraint]) -> str | None:
    """The query with the sentences of other constraints in place of those that it asks for, in the given order.

    None where the query does not contain these sentences exactly once.
    """
    old = describe_all(asked)
    return query.replace(old, describe_all(instead)) if old and query.count(old) == 1 else None


def read_constraints(metadata: Any) -> tuple[Constraint, ...]:
    """The constraints in a prompt's metadata, a list of `{"kind": ..., "value": ...}`, in their order.

    Raises:
        ConfigError: it is not such a list, or it has an unknown kind or a wrong value; says which.
    """
    if not isinstance(metadata, list) or not metadata:
        raise ConfigError(f'constraints: expected a list of {{"kind", "value"}}, found {metadata!r}: give at least one')
    constraints = []
    for entry in metadata:
        if not isinstance(entry, dict) or not {"kind"} <= set(entry) <= {"kind", "value"}:
            raise ConfigError(f'constraints: expected {{"kind", "value"}}, found {entry!r}: correct it')
        name, value = entry["kind"], entry.get("value")
        if not isinstance(name, str) or name not in KINDS:
            hint = did_you_mean(str(name), KINDS) or f"; choose from {', '.join(KINDS)}"
            raise ConfigError(f"constraints: no kind {name!r}{hint}")
        parameter = KINDS[name].parameter
        if not (value is None if parameter is None else parameter.allows(value)):
            expected = "no value" if parameter is None else f"{parameter.description} as value"
            raise ConfigError(f"constraints: {name}: expected {expected}, found {value!r}")
        constraints.append(Constraint(name, value))
    return tuple(constraints)
