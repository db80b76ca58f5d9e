"""The synthetic task `tracking_shuffled_objects`: follow things through pairwise swaps and say who ends with what.

People start with one thing each, swap in pairs, and one of them is asked about. The options are all the things, in
random order, so neither a letter nor the starting place gives the answer away.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from pydantic import Field

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.options import accepted, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.vocabulary import PEOPLE
from hir_core.schemas import content_key


class Theme(NamedTuple):
    """One kind of story: how it opens, what a person does with a thing, and the things."""

    opening: str
    starts: str
    swap: str
    question: str
    things: tuple[str, ...]


def _things(adjectives: str, noun: str) -> tuple[str, ...]:
    return tuple(f"the {adjective} {noun}" for adjective in adjectives.split())


_COLOURS = "red blue green yellow black white grey purple brown pink"
THEMES = (
    Theme("are wrapping up a card game", "holds", "trade cards", "Which card does {} hold",
          _things("moon sun star crown anchor tower bridge feather lantern compass", "card")),
    Theme("are trying on hats in a shop", "wears", "exchange hats", "Which hat does {} wear",
          _things("straw felt wool silk leather velvet paper cotton linen denim", "hat")),
    Theme("share a studio and paint with borrowed brushes", "uses", "swap brushes", "Which brush does {} use",
          _things(_COLOURS, "brush")),
    Theme("are packing parcels at a market", "carries", "swap parcels", "Which parcel does {} carry",
          _things(_COLOURS, "parcel")),
    Theme("take part in a bicycle tour", "rides", "change bicycles", "Which bicycle does {} ride",
          _things(_COLOURS, "bicycle")),
)  # fmt: skip


class TrackingDials(Section):
    """How long the stories are."""

    people: int = Field(3, ge=2, le=10)
    """People in a story, and so things and options."""
    swaps: int | None = Field(None, ge=1, le=50)
    """Swaps in a story; left out: as many as there are people."""


class TrackingShuffledObjects:
    """Draws stories of swaps and asks what one person has at the end."""

    dials_model: ClassVar[type[Section]] = TrackingDials

    def __init__(self, dials: TrackingDials) -> None:
        self.dials = dials
        self.swaps = dials.people if dials.swaps is None else dials.swaps

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One story with its question and options."""
        theme = rng.pick(THEMES)
        people = rng.sample(PEOPLE, self.dials.people)
        start = dict(zip(people, rng.sample(theme.things, len(people)), strict=True))
        swaps = [rng.sample(people, 2) for _ in range(self.swaps)]
        asked, options = rng.pick(people), rng.shuffled(list(start.values()))
        story = _story(theme, start, swaps)
        answer = _after(start, swaps)[asked]
        return Item(
            task="tracking_shuffled_objects",
            query=with_options(f"{story} {theme.question.format(asked)} at the end?", options),
            references=accepted([options.index(answer)], options),
            place=place,
            options=tuple(options),
            group=content_key("tracking_shuffled_objects", story),
            metadata={"people": len(people), "swaps": len(swaps)},
        )


def _after(start: dict[str, str], swaps: list[list[str]]) -> dict[str, str]:
    """What everyone has once all swaps are done."""
    has = dict(start)
    for one, other in swaps:
        has[one], has[other] = has[other], has[one]
    return has


def _story(theme: Theme, start: dict[str, str], swaps: list[list[str]]) -> str:
    *first, last = start
    *begins, end = (f"{person} {theme.starts} {thing}" for person, thing in start.items())
    steps = [f"{_when(step, len(swaps))} {one} and {other} {theme.swap}." for step, (one, other) in enumerate(swaps)]
    opening = f"{', '.join(first)} and {last} {theme.opening}. At first {', '.join(begins)}, and {end}."
    return " ".join([opening, *steps])


def _when(step: int, steps: int) -> str:
    if step == 0:
        return "Then" if steps == 1 else "To begin with,"
    return "Finally," if step == steps - 1 else "Next,"
