"""Prompts in the form of IFEval (type `ifeval`): a request, and constraints on its answer that a program can check.

A row has a `prompt`, the names of its constraints in `instruction_id_list`, and their values in `kwargs`, an object for
each. They become the `constraints` in the prompt's metadata that the reward of this name checks, as its kinds count
words and sentences. A row with a constraint that has no kind here is left out and counted by the constraint's name: an
answer could not be judged. IFEval: arXiv 2311.07911.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Any

from hir_core.config import FilePrompts, IFEvalPrompts
from hir_core.errors import ConfigError
from hir_core.prompts.constraints.constraint import Constraint
from hir_core.prompts.constraints.registry import KINDS
from hir_core.prompts.file import read_rows
from hir_core.prompts.forms import Row
from hir_core.prompts.items import Item

Values = dict[str, Any]


def _amount(unit: str, key: str) -> Callable[[Values], list[Constraint]]:
    """Of a number of units that is the least (`at least`), or the first that is too many (`less than`)."""

    def read(values: Values) -> list[Constraint]:
        number = values[key]
        if values["relation"] == "less than":
            return [Constraint(f"{unit}_at_most", number - 1)]
        return [Constraint(f"{unit}_at_least", number)] if values["relation"] == "at least" else []

    return read


def _each_word(kind: str, key: str) -> Callable[[Values], list[Constraint]]:
    return lambda values: [Constraint(kind, word) for word in values[key]]


READERS: dict[str, Callable[[Values], list[Constraint]]] = {
    "length_constraints:number_words": _amount("words", "num_words"),
    "length_constraints:number_sentences": _amount("sentences", "num_sentences"),
    "keywords:existence": _each_word("contains", "keywords"),
    "keywords:forbidden_words": _each_word("excludes", "forbidden_words"),
    "change_case:english_lowercase": lambda _: [Constraint("lower_case", None)],
    "change_case:english_capital": lambda _: [Constraint("upper_case", None)],
    "punctuation:no_comma": lambda _: [Constraint("no_commas", None)],
}
"""By the name of a constraint, what makes constraints of its values; none where a value means nothing here."""


def read_ifeval(source: IFEvalPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every row of a file or folder as an item, in order; rows that cannot be checked say why.

    Raises:
        ConfigError: a file is missing or of another kind, or a row is malformed; names the line.
    """
    rows = read_rows(FilePrompts(path=source.path))
    return [_item(row, origin, source.task or source.path.stem) for origin, row in rows]


def _item(row: Row, origin: str, task: str) -> Item:
    prompt: Any = row.get("prompt")
    names, values = _list_of(str, row.get("instruction_id_list")), _list_of(dict, row.get("kwargs"))
    if not isinstance(prompt, str) or not names or len(names) != len(values):
        raise ConfigError(
            f"prompts: {origin}: expected a text as `prompt`, and lists of equal length as `instruction_id_list` and "
            f"`kwargs`, found {row!r}"
        )
    constraints: list[dict[str, Any]] = []
    for name, given in zip(names, values, strict=True):
        found = _constraints(name, given)
        if not found:
            return Item(task, prompt, (), origin, rejected=f"constraint {name} that has no kind here")
        constraints += [{"kind": one.kind} | ({} if one.value is None else {"value": one.value}) for one in found]
    metadata = {"constraints": constraints} | ({"key": row["key"]} if "key" in row else {})
    return Item(task, prompt, (), origin, metadata=metadata)


def _list_of(kind: type, value: Any) -> list[Any]:
    """The value where it is a list of this kind, else an empty list."""
    return value if isinstance(value, list) and all(isinstance(entry, kind) for entry in value) else []


def _constraints(name: str, values: Values) -> list[Constraint]:
    """The constraints that a constraint of IFEval amounts to; none where there is no kind for it, or for its values."""
    if name not in READERS:
        return []
    try:
        found = READERS[name](values)
    except (KeyError, TypeError):  # a value is missing, or is of another type
        return []
    for constraint in found:
        parameter = KINDS[constraint.kind].parameter
        if parameter is not None and not parameter.allows(constraint.value):
            return []
    return found
