"""The synthetic task `tracking_shuffled_objects`: follow things through swaps and say what one person has at the end.

Each person starts with one thing, people swap in pairs, and the question asks about one of them. The options are all
the things in random order, so neither a letter nor the thing that the person starts with gives the answer away.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from pydantic import Field

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.options import option_references, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.vocabulary import PEOPLE, listed, things
from hir_core.schemas import content_key


class Theme(NamedTuple):
    """The words of one kind of story."""

    opening: str
    has: str
    """What a person does with a thing at the start."""
    swap: str
    question: str
    things: tuple[str, ...]


_COLOURS = "red blue green yellow black white grey purple brown pink"
THEMES = (
    Theme("are wrapping up a card game", "holds", "trade cards", "Which card does {} hold",
          things("moon sun star crown anchor tower bridge feather lantern compass", "card")),
    Theme("are trying on hats in a shop", "wears", "exchange hats", "Which hat does {} wear",
          things("straw felt wool silk leather velvet paper cotton linen denim", "hat")),
    Theme("share a studio and paint with borrowed brushes", "uses", "swap brushes", "Which brush does {} use",
          things(_COLOURS, "brush")),
    Theme("are packing parcels at a market", "carries", "swap parcels", "Which parcel does {} carry",
          things(_COLOURS, "parcel")),
    Theme("take part in a bicycle tour", "rides", "change bicycles", "Which bicycle does {} ride",
          things(_COLOURS, "bicycle")),
)  # fmt: skip


class TrackingDials(Section):
    """How long the stories are."""

    people: int = Field(3, ge=2, le=10)
    """People in a story, and so things and options."""
    swaps: int | None = Field(None, ge=1, le=50)
    """Swaps in a story; left out: as many as there are people."""


class TrackingShuffledObjects:
    """Draws a story of swaps and asks what one person has at the end."""

    dials_model: ClassVar[type[Section]] = TrackingDials

    def __init__(self, dials: TrackingDials) -> None:
        self.dials = dials
        self.swaps = dials.people if dials.swaps is None else dials.swaps

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One story with its question and options."""
        theme = rng.pick(THEMES)
        people = rng.sample(PEOPLE, self.dials.people)
        thing_of = dict(zip(people, rng.sample(theme.things, len(people)), strict=True))
        swaps = [rng.sample(people, 2) for _ in range(self.swaps)]
        person, options = rng.pick(people), rng.shuffled(list(thing_of.values()))
        story = _story(theme, thing_of, swaps)
        for person_a, person_b in swaps:
            thing_of[person_a], thing_of[person_b] = thing_of[person_b], thing_of[person_a]
        return Item(
            task="tracking_shuffled_objects",
            query=with_options(f"{story} {theme.question.format(person)} at the end?", options),
            references=option_references([options.index(thing_of[person])], options),
            origin=origin,
            options=tuple(options),
            group=content_key("tracking_shuffled_objects", story),
            metadata={"people": len(people), "swaps": len(swaps)},
        )


def _story(theme: Theme, start: dict[str, str], swaps: list[list[str]]) -> str:
    """What everyone has at first, then one sentence per swap."""
    *first, last = (f"{person} {theme.has} {thing}" for person, thing in start.items())
    sentences = [f"{listed(list(start))} {theme.opening}.", f"At first {', '.join(first)}, and {last}."]
    for number, (person, other) in enumerate(swaps, start=1):
        if number == 1:
            when = "To begin with," if len(swaps) > 1 else "Then"
        else:
            when = "Next," if number < len(swaps) else "Finally,"
        sentences.append(f"{when} {person} and {other} {theme.swap}.")
    return " ".join(sentences)
