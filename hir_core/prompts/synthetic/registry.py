"""Prompts of the synthetic tasks (type `synthetic`): different items, drawn from a task's generator by seed.

`SYNTHETIC` maps a task's name to its generator. An item that is already drawn, or whose group an earlier source holds,
is drawn again: two sources of a run never share a story, so none can be on both sides of the split.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any, ClassVar, Protocol

from pydantic import ValidationError

from hir_core.config import Section, SyntheticPrompts
from hir_core.errors import ConfigError, did_you_mean
from hir_core.prompts.items import Item
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.constrained_writing import ConstrainedWriting
from hir_core.prompts.synthetic.date_understanding import DateUnderstanding
from hir_core.prompts.synthetic.geometric_shapes import GeometricShapes
from hir_core.prompts.synthetic.logical_deduction import LogicalDeduction
from hir_core.prompts.synthetic.object_counting import ObjectCounting
from hir_core.prompts.synthetic.penguins_in_a_table import PenguinsInATable
from hir_core.prompts.synthetic.reasoning_about_colored_objects import ColoredObjects
from hir_core.prompts.synthetic.tracking_shuffled_objects import TrackingShuffledObjects
from hir_core.prompts.synthetic.word_sorting import WordSorting


class Generator(Protocol):
    """The generator of a synthetic task, which draws one item at a time."""

    dials_model: ClassVar[type[Section]]

    def __init__(self, dials: Any) -> None: ...

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One item, with its group; `origin` says in messages which one it is."""
        ...


SYNTHETIC: dict[str, type[Generator]] = {
    "constrained_writing": ConstrainedWriting,
    "geometric_shapes": GeometricShapes,
    "object_counting": ObjectCounting,
    "reasoning_about_colored_objects": ColoredObjects,
    "tracking_shuffled_objects": TrackingShuffledObjects,
    "logical_deduction": LogicalDeduction,
    "word_sorting": WordSorting,
    "date_understanding": DateUnderstanding,
    "penguins_in_a_table": PenguinsInATable,
}
MAX_REPEATS = 10_000  # after so many draws in a row that bring nothing new, the task has no more items


def draw_synthetic(source: SyntheticPrompts, taken: AbstractSet[str]) -> list[Item]:
    """`size` different items of a task, none of which shares its group with an earlier source.

    Args:
        source: the task, its dials, and how many items.
        taken: the groups of earlier sources.

    Raises:
        ConfigError: the task or a dial is unknown, or the dials allow too few different items.
    """
    generator = _build(source)
    rng = SeededRng(source.task, source.seed)
    items: dict[str, Item] = {}
    repeats = 0
    while len(items) < source.size:
        item = generator.draw(rng, f"{source.task} item {len(items) + 1} (seed {source.seed})")
        if item.group not in taken and item.query not in items:
            if item.options and source.shown == "text":
                item = replace(item, references=item.references[::-1])
            items[item.query], repeats = item, 0
            continue
        repeats += 1
        if repeats == MAX_REPEATS:
            raise ConfigError(
                f"prompts: {source.task} (seed {source.seed}): expected {source.size} different prompts, found "
                f"{len(items)}, and then {MAX_REPEATS} draws in a row that this or an earlier source had already: "
                f"lower size, or choose dials that allow more"
            )
    return list(items.values())


def _build(source: SyntheticPrompts) -> Generator:
    if source.task not in SYNTHETIC:
        hint = did_you_mean(source.task, SYNTHETIC) or f"; choose from {', '.join(SYNTHETIC)}"
        raise ConfigError(f"prompts: no synthetic task `{source.task}`{hint}")
    generator = SYNTHETIC[source.task]
    try:
        return generator(generator.dials_model.model_validate(source.dials))
    except ValidationError as error:
        problems = [_explanation(problem, generator.dials_model) for problem in error.errors()]
        raise ConfigError(f"prompts: {source.task}: {len(problems)} wrong dial(s)", *problems) from None


def _explanation(problem: Any, dials: type[Section]) -> str:
    """One problem that pydantic found with a dial, as an indented line of a message."""
    dial = ".".join(str(step) for step in problem["loc"]) or "dials"
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(dial, dials.model_fields) or f"; there are {', '.join(dials.model_fields)}"
        return f"  {dial}: unknown dial{hint}"
    return f"  {dial}: {problem['msg'].removeprefix('Value error, ')} (found {problem['input']!r})"
