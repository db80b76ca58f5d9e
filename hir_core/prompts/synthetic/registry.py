"""Synthetic sources: draws as many different items as asked from a task's generator.

`SYNTHETIC` maps a task's name to its generator, one per file. An item that is already there, or whose story an earlier
source holds, is drawn again, so that no two sources of a run can put one story on both sides of the split.
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
    """A synthetic task: draws one item at a time."""

    dials_model: ClassVar[type[Section]]

    def __init__(self, dials: Any) -> None: ...

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One item, with its group."""
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
PATIENCE = 10_000  # draws in a row that bring nothing new, before the task counts as used up


def draw_synthetic(source: SyntheticPrompts, taken: AbstractSet[str]) -> list[Item]:
    """Draws a source's items, all different, from stories that are not taken.

    Raises:
        ConfigError: the task or a dial is unknown, or the dials allow too few different items.
    """
    generator = _build(source)
    rng = SeededRng(source.task, source.seed)
    items: dict[str, Item] = {}
    in_vain = 0
    while len(items) < source.size:
        item = generator.draw(rng, f"{source.task} item {len(items) + 1} (seed {source.seed})")
        if item.group in taken or item.query in items:
            in_vain += 1
            if in_vain == PATIENCE:
                raise _used_up(source, len(items))
            continue
        items[item.query], in_vain = item if source.shown == "letter" else _shown_by_text(item), 0
    return list(items.values())


def _shown_by_text(item: Item) -> Item:
    return replace(item, references=item.references[::-1]) if item.options else item


def _build(source: SyntheticPrompts) -> Generator:
    if source.task not in SYNTHETIC:
        hint = did_you_mean(source.task, SYNTHETIC) or f"; choose from {', '.join(SYNTHETIC)}"
        raise ConfigError(f"prompts: no synthetic task `{source.task}`{hint}")
    generator = SYNTHETIC[source.task]
    try:
        return generator(generator.dials_model.model_validate(source.dials))
    except ValidationError as error:
        problems = [_explain(problem, generator.dials_model) for problem in error.errors()]
        raise ConfigError("\n".join([f"prompts: {source.task}: {len(problems)} wrong dial(s)", *problems])) from None


def _explain(problem: Any, dials: type[Section]) -> str:
    place = ".".join(str(step) for step in problem["loc"]) or "dials"
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(place, dials.model_fields) or f"; there are {', '.join(dials.model_fields)}"
        return f"  {place}: unknown dial{hint}"
    return f"  {place}: {problem['msg'].removeprefix('Value error, ')} (found {problem['input']!r})"


def _used_up(source: SyntheticPrompts, found: int) -> ConfigError:
    return ConfigError(
        f"prompts: {source.task} (seed {source.seed}): expected {source.size} different prompts, found {found}, and "
        f"then {PATIENCE} draws in a row that were there already, in this source or in an earlier one: "
        f"lower size, or choose dials that allow more"
    )
