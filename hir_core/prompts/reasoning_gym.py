"""Prompts from the tasks of the library reasoning-gym, an optional dependency (type `reasoning_gym`).

Each prompt keeps the library's whole entry in its metadata, as tagged JSON under `reasoning_gym`. The reward of the
same name needs it: most tasks accept more answers than the one in `references`, and some tasks name no answer at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Set as AbstractSet
from typing import Any

from hir_core.config import ReasoningGymPrompts
from hir_core.dynamic_imports import import_extra
from hir_core.errors import ConfigError, did_you_mean
from hir_core.prompts.items import Item
from hir_core.schemas import content_key

OVERSUPPLY = (1, 2, 4, 8)  # multiples of `size` that are drawn, one after the other, until `size` items are different
UNSTEADY = {
    *("codeio", "intermediate_integration", "isomorphic_strings", "knight_swap", "list_functions"),
    *("polynomial_multiplication", "ransom_note", "word_ladder"),
}
"""Tasks that draw other items in another process for the same seed; measured with release 0.1.25."""


def draw_reasoning_gym(source: ReasoningGymPrompts, taken: AbstractSet[str]) -> list[Item]:
    """`size` different items of a task, none of which an earlier source holds.

    Args:
        source: the task, its dials, and how many items.
        taken: the groups of earlier sources.

    Raises:
        ConfigError: the extra is missing, the task or a dial is wrong, or the task has too few different items.
    """
    library = import_extra("reasoning_gym", "reasoning-gym", "prompts: a source of type reasoning_gym")
    _check(library, source)
    items: dict[str, Item] = {}
    for times in OVERSUPPLY:
        drawn = _draw(library, source, source.size * times)
        items = {item.query: item for item in drawn if item.group not in taken}
        if len(items) >= source.size:
            return list(items.values())[: source.size]
    raise ConfigError(
        f"prompts: {source.task} (seed {source.seed}): expected {source.size} different prompts, found {len(items)} "
        f"among {source.size * OVERSUPPLY[-1]}: lower size, or choose dials that allow more"
    )


def _check(library: Any, source: ReasoningGymPrompts) -> None:
    tasks = library.factory.DATASETS
    if source.task not in tasks:
        hint = did_you_mean(source.task, tasks) or f"; it has {', '.join(sorted(tasks))}"
        raise ConfigError(f"prompts: reasoning-gym has no task `{source.task}`{hint}")
    if source.task in UNSTEADY:
        raise ConfigError(
            f"prompts: {source.task} of reasoning-gym draws other items in each process, whatever the seed, so a run "
            f"could not be resumed: choose another task, or draw it once into a file"
        )
    dials = [field.name for field in dataclasses.fields(tasks[source.task][1]) if field.name not in ("seed", "size")]
    for name in source.dials:
        if name not in dials:
            hint = did_you_mean(name, dials) or f"; there are {', '.join(dials)}"
            raise ConfigError(f"prompts: {source.task}: no dial `{name}`{hint}")


def _draw(library: Any, source: ReasoningGymPrompts, size: int) -> list[Item]:
    try:
        dataset = library.create_dataset(source.task, **source.dials, seed=source.seed, size=size)
        entries = [dataset[index] for index in range(size)]
    except Exception as error:  # each task checks its own dials, mostly with assertions
        raise ConfigError(
            f"prompts: {source.task} cannot be drawn with dials {source.dials}: {type(error).__name__}: {error}"
        ) from error
    items = []
    for number, entry in enumerate(entries, start=1):
        origin, question, answer = (
            f"{source.task} item {number} (seed {source.seed})",
            entry["question"],
            entry["answer"],
        )
        try:
            tagged = to_tagged(entry)
        except TypeError as error:
            raise ConfigError(f"prompts: {origin} cannot be kept as JSON: {error}: choose another task") from None
        item = Item(
            task=source.task,
            query=question,
            references=(answer,) if isinstance(answer, str) and answer.strip() else (),
            origin=origin,
            group=content_key("reasoning_gym", source.task, question),
            metadata={"reasoning_gym": {"task": source.task, "dials": source.dials, "entry": tagged}},
        )
        items.append(item)
    return items


# --- entries as JSON -------------------------------------------------------------------------------------------------

TUPLE, ITEMS = "__tuple__", "__items__"  # tags of a tuple, and of a dict with keys that JSON cannot hold


def to_tagged(value: Any) -> Any:
    """A value that JSON can hold and that `from_tagged` turns back into the given one.

    Raises:
        TypeError: the value holds something other than dicts, lists, tuples, texts, numbers, booleans and None.
    """
    if isinstance(value, tuple):
        return {TUPLE: [to_tagged(item) for item in value]}
    if isinstance(value, list):
        return [to_tagged(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value) and not {TUPLE, ITEMS} & value.keys():
            return {key: to_tagged(item) for key, item in value.items()}
        return {ITEMS: [[to_tagged(key), to_tagged(item)] for key, item in value.items()]}
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__}")


def from_tagged(value: Any) -> Any:
    """The value from which `to_tagged` made this one."""
    if isinstance(value, list):
        return [from_tagged(item) for item in value]
    if not isinstance(value, dict):
        return value
    if TUPLE in value:
        return tuple(from_tagged(item) for item in value[TUPLE])
    if ITEMS in value:
        return {from_tagged(key): from_tagged(item) for key, item in value[ITEMS]}
    return {key: from_tagged(item) for key, item in value.items()}
