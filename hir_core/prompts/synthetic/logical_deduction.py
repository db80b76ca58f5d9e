"""The synthetic task `logical_deduction`: work out an order from clues and say who or what stands at one place.

Clues are drawn until they leave exactly one order, and those that the others already imply are dropped. The place
asked about is drawn evenly, so within a story every option is right equally often. For example: "Three people are
waiting in line at a bakery: Olga, Hugo and Ines. Hugo is ahead of Olga. Ines is at the front of the line. Who is
second from the front?"
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import permutations
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_word
from hir_core.prompts.options import accepted, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.vocabulary import ORDINALS, PEOPLE
from hir_core.schemas import content_key


class Places(NamedTuple):
    """How a place is named, counted from either end."""

    first: str
    last: str
    from_first: str
    from_last: str

    def name(self, place: int, objects: int, backwards: bool) -> str:
        """The name of a place, 0 being the first; places between the ends have two names."""
        if place == 0:
            return self.first
        if place == objects - 1:
            return self.last
        if backwards:
            return self.from_last.format(ORDINALS[objects - 1 - place])
        return self.from_first.format(ORDINALS[place])


class Theme(NamedTuple):
    """One kind of story: how it opens, what its clues and its question say, its places and its things."""

    opening: str
    before: tuple[str, str]
    """`{0}` is before `{1}`, and the same with `after`."""
    just_before: tuple[str, str]
    """As `before`, for neighbours."""
    at: str
    question: str
    places: Places
    things: tuple[str, ...]


def _things(text: str, noun: str = "") -> tuple[str, ...]:
    return tuple(f"the {word} {noun}".rstrip() for word in text.split())


def _with_nothing_between(between: str, *relations: str) -> tuple[str, str]:
    before, after = (f"{relation}, with no other {between} between them" for relation in relations)
    return before, after


_DEARER = ("{0} costs more than {1}", "{1} costs less than {0}")
_HEAVIER = ("{0} is heavier than {1}", "{1} is lighter than {0}")
_OLDER = ("{0} is older than {1}", "{1} is younger than {0}")
THEMES = {
    "line": Theme(
        "{} people are waiting in line at a bakery", ("{0} is ahead of {1}", "{1} is behind {0}"),
        ("{0} is directly ahead of {1}", "{1} is directly behind {0}"), "{} is {}", "Who is {}",
        Places("at the front of the line", "at the end of the line", "{} from the front", "{} from the end"), PEOPLE,
    ),
    "house": Theme(
        "{} people share a house, one on each floor", ("{0} lives above {1}", "{1} lives below {0}"),
        ("{0} lives directly above {1}", "{1} lives directly below {0}"), "{} lives {}", "Who lives {}",
        Places("on the top floor", "on the bottom floor", "on the {} floor from the top",
               "on the {} floor from the bottom"), PEOPLE,
    ),
    "race": Theme(
        "{} people rowed in a race and reached the shore one by one",
        ("{0} arrived before {1}", "{1} arrived after {0}"),
        ("{0} arrived right before {1}", "{1} arrived right after {0}"), "{} arrived {}", "Who arrived {}",
        Places("first", "last", "{}", "{} to last"), PEOPLE,
    ),
    "ages": Theme(
        "{} cousins are of different ages", _OLDER, _with_nothing_between("cousin", *_OLDER), "{} is {}",
        "Which cousin is {}", Places("the oldest", "the youngest", "the {} oldest", "the {} youngest"), PEOPLE,
    ),
    "parcels": Theme(
        "{} parcels are of different weights", _HEAVIER, _with_nothing_between("parcel", *_HEAVIER), "{} is {}",
        "Which parcel is {}", Places("the heaviest", "the lightest", "the {} heaviest", "the {} lightest"),
        _things("red blue green yellow black white grey purple brown pink", "parcel"),
    ),
    "prices": Theme(
        "{} tools are on sale at different prices", _DEARER, _with_nothing_between("tool", *_DEARER), "{} is {}",
        "Which tool is {}", Places("the most expensive", "the cheapest", "the {} most expensive", "the {} cheapest"),
        _things("hammer saw drill chisel spade ladder rake axe wrench shovel"),
    ),
    "wall": Theme(
        "{} things hang side by side on a wall", ("{0} hangs left of {1}", "{1} hangs right of {0}"),
        ("{0} hangs directly left of {1}", "{1} hangs directly right of {0}"), "{} hangs {}", "What hangs {}",
        Places("at the far left", "at the far right", "{} from the left", "{} from the right"),
        _things("portrait map photograph mirror poster calendar sketch clock coat banner"),
    ),
    "buses": Theme(
        "{} buses leave a square one by one", ("{0} leaves before {1}", "{1} leaves after {0}"),
        ("{0} leaves right before {1}", "{1} leaves right after {0}"), "{} leaves {}", "Which bus leaves {}",
        Places("first", "last", "{}", "{} to last"),
        _things("airport harbour school museum market station stadium hospital library castle", "bus"),
    ),
}  # fmt: skip


class DeductionDials(Section):
    """How long the stories are and what their clues say."""

    objects: int = Field(3, ge=2, le=8)
    """People or things in a story, and so options; BIG-bench's task has 3, 5 and 7."""
    absolute_share: float = Field(0.3, ge=0, le=1)
    """Share of the drawn clues that name a place; the others relate two of the people or things."""
    themes: tuple[str, ...] = Field(tuple(THEMES), min_length=1)
    """What the stories are about."""

    @model_validator(mode="after")
    def _are_known(self) -> DeductionDials:
        if unknown := [name for name in self.themes if name not in THEMES]:
            raise ValueError(f"unknown themes {unknown}: choose from {', '.join(THEMES)}")
        return self


class Clue(NamedTuple):
    """What a story says of its order; objects are known by their true place, 0 being the first."""

    kind: str
    """`before`, `just before` or `at`."""
    one: int
    other: int
    """The second object, or for `at` the place."""

    def holds(self, places: tuple[int, ...]) -> bool:
        """Whether it is true of an order, given as the place of each object."""
        if self.kind == "at":
            return places[self.one] == self.other
        distance = places[self.other] - places[self.one]
        return distance == 1 if self.kind == "just before" else distance > 0


class LogicalDeduction:
    """Draws orders with clues and asks who or what stands at one place."""

    dials_model: ClassVar[type[Section]] = DeductionDials

    def __init__(self, dials: DeductionDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One story with its question and options."""
        theme = THEMES[rng.pick(self.dials.themes)]
        order = rng.sample(theme.things, self.dials.objects)
        clues = self._clues(rng)
        sentences = [_sentence(rng, theme, clue, order) for clue in clues]
        asked, options = rng.below(len(order)), rng.shuffled(order)
        question = theme.question.format(theme.places.name(asked, len(order), rng.chance(0.5)))
        story = " ".join([_opening(theme, rng.shuffled(order)), *sentences])
        return Item(
            task="logical_deduction",
            query=with_options(f"{story} {question}?", options),
            references=accepted([options.index(order[asked])], options),
            place=place,
            options=tuple(options),
            group=content_key("logical_deduction", theme.opening, order, sorted(clues)),  # whatever its wording
            metadata={"objects": len(order), "clues": len(clues)},
        )

    def _clues(self, rng: SeededRng) -> list[Clue]:
        """Clues in random order, each of them needed, that only the true order fits."""
        clues: list[Clue] = []
        while not _decide(clues, self.dials.objects):
            clue = self._true_clue(rng)
            clues += [clue] if clue not in clues else []
        for clue in rng.shuffled(clues):
            rest = [other for other in clues if other != clue]
            clues = rest if _decide(rest, self.dials.objects) else clues
        return rng.shuffled(clues)

    def _true_clue(self, rng: SeededRng) -> Clue:
        if rng.chance(self.dials.absolute_share):
            place = rng.below(self.dials.objects)
            return Clue("at", place, place)
        one, other = sorted(rng.sample(range(self.dials.objects), 2))
        neighbours = other - one == 1 and self.dials.objects > 2  # of two objects, one is always next to the other
        return Clue("just before" if neighbours and rng.chance(0.5) else "before", one, other)


def _decide(clues: Iterable[Clue], objects: int) -> bool:
    """Whether only one order fits all clues."""
    fitting = (1 << len(_orders(objects))) - 1
    for clue in clues:
        fitting &= _fitting(clue, objects)
    return fitting.bit_count() == 1


@cache
def _orders(objects: int) -> tuple[tuple[int, ...], ...]:
    return tuple(permutations(range(objects)))


@cache
def _fitting(clue: Clue, objects: int) -> int:
    """The orders that a clue leaves, one bit each; remembered, because eight objects have 40,320 orders."""
    return int("".join("1" if clue.holds(places) else "0" for places in _orders(objects)), 2)


def _opening(theme: Theme, things: list[str]) -> str:
    *first, last = things
    return f"{theme.opening.format(number_word(len(things)).capitalize())}: {', '.join(first)} and {last}."


def _sentence(rng: SeededRng, theme: Theme, clue: Clue, order: list[str]) -> str:
    if clue.kind == "at":
        text = theme.at.format(order[clue.one], theme.places.name(clue.other, len(order), rng.chance(0.5)))
    else:
        wordings = theme.just_before if clue.kind == "just before" else theme.before
        text = rng.pick(wordings).format(order[clue.one], order[clue.other])
    return f"{text[0].upper()}{text[1:]}."
