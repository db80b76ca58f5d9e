"""The synthetic task `logical_deduction`: derive an order from clues and say who or what has one position in it.

Clues are drawn until exactly one order satisfies them all, and clues that the others imply are dropped. The position
that is asked for is drawn uniformly, so within a story every option is right equally often. For example: "Three people
are waiting in line at a bakery: Olga, Hugo and Ines. Hugo is ahead of Olga. Ines is at the front of the line. Who is
second from the front?"
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import permutations
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_word
from hir_core.prompts.options import option_references, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known
from hir_core.prompts.synthetic.vocabulary import ORDINALS, PEOPLE, listed, things
from hir_core.schemas import content_key


class Positions(NamedTuple):
    """The names of positions: of both ends, and of those between them, counted from either end."""

    first: str
    last: str
    from_first: str
    from_last: str

    def name(self, position: int, objects: int, backwards: bool) -> str:
        """The name of a position, from 0; between the ends, `backwards` counts from the last one."""
        if position == 0:
            return self.first
        if position == objects - 1:
            return self.last
        if backwards:
            return self.from_last.format(ORDINALS[objects - 1 - position])
        return self.from_first.format(ORDINALS[position])


class Theme(NamedTuple):
    """The words of one kind of story: its opening, its clues, its question, its positions and its things."""

    opening: str
    before: tuple[str, str]
    """Two ways to say that `{0}` comes before `{1}`: by `before`, and by `after`."""
    just_before: tuple[str, str]
    """The same for neighbours."""
    at: str
    question: str
    positions: Positions
    things: tuple[str, ...]


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
        Positions("at the front of the line", "at the end of the line", "{} from the front", "{} from the end"), PEOPLE,
    ),
    "house": Theme(
        "{} people share a house, one on each floor", ("{0} lives above {1}", "{1} lives below {0}"),
        ("{0} lives directly above {1}", "{1} lives directly below {0}"), "{} lives {}", "Who lives {}",
        Positions("on the top floor", "on the bottom floor", "on the {} floor from the top",
               "on the {} floor from the bottom"), PEOPLE,
    ),
    "race": Theme(
        "{} people rowed in a race and reached the shore one by one",
        ("{0} arrived before {1}", "{1} arrived after {0}"),
        ("{0} arrived right before {1}", "{1} arrived right after {0}"), "{} arrived {}", "Who arrived {}",
        Positions("first", "last", "{}", "{} to last"), PEOPLE,
    ),
    "ages": Theme(
        "{} cousins are of different ages", _OLDER, _with_nothing_between("cousin", *_OLDER), "{} is {}",
        "Which cousin is {}", Positions("the oldest", "the youngest", "the {} oldest", "the {} youngest"), PEOPLE,
    ),
    "parcels": Theme(
        "{} parcels are of different weights", _HEAVIER, _with_nothing_between("parcel", *_HEAVIER), "{} is {}",
        "Which parcel is {}", Positions("the heaviest", "the lightest", "the {} heaviest", "the {} lightest"),
        things("red blue green yellow black white grey purple brown pink", "parcel"),
    ),
    "prices": Theme(
        "{} tools are on sale at different prices", _DEARER, _with_nothing_between("tool", *_DEARER), "{} is {}",
        "Which tool is {}", Positions("the most expensive", "the cheapest", "the {} most expensive", "the {} cheapest"),
        things("hammer saw drill chisel spade ladder rake axe wrench shovel"),
    ),
    "wall": Theme(
        "{} things hang side by side on a wall", ("{0} hangs left of {1}", "{1} hangs right of {0}"),
        ("{0} hangs directly left of {1}", "{1} hangs directly right of {0}"), "{} hangs {}", "What hangs {}",
        Positions("at the far left", "at the far right", "{} from the left", "{} from the right"),
        things("portrait map photograph mirror poster calendar sketch clock coat banner"),
    ),
    "buses": Theme(
        "{} buses leave a square one by one", ("{0} leaves before {1}", "{1} leaves after {0}"),
        ("{0} leaves right before {1}", "{1} leaves right after {0}"), "{} leaves {}", "Which bus leaves {}",
        Positions("first", "last", "{}", "{} to last"),
        things("airport harbour school museum market station stadium hospital library castle", "bus"),
    ),
}  # fmt: skip


class DeductionDials(Section):
    """How long the stories are, and what their clues say."""

    objects: int = Field(3, ge=2, le=8)
    """People or things in a story, and so options; BIG-bench's task has 3, 5 and 7."""
    absolute_share: float = Field(0.3, ge=0, le=1)
    """Share of the drawn clues that name a position; the others compare two of the people or things."""
    themes: tuple[str, ...] = Field(tuple(THEMES), min_length=1)
    """What the stories are about."""

    @model_validator(mode="after")
    def _themes_are_known(self) -> DeductionDials:
        require_known("themes", self.themes, THEMES)
        return self


class Clue(NamedTuple):
    """What a story says about its order; an object is identified by its true position, from 0."""

    kind: str
    """`before`, `just before` or `at`."""
    subject: int
    other: int
    """The second object; for `at` the position."""

    def holds(self, positions: tuple[int, ...]) -> bool:
        """Whether the clue is true of an order, given as the position of each object."""
        if self.kind == "at":
            return positions[self.subject] == self.other
        distance = positions[self.other] - positions[self.subject]
        return distance == 1 if self.kind == "just before" else distance > 0


class LogicalDeduction:
    """Draws an order with clues and asks who or what has one position."""

    dials_model: ClassVar[type[Section]] = DeductionDials

    def __init__(self, dials: DeductionDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One story with its question and options."""
        theme = THEMES[rng.pick(self.dials.themes)]
        order = rng.sample(theme.things, self.dials.objects)
        clues = self._clues(rng)
        sentences = [_sentence(rng, theme, clue, order) for clue in clues]
        position, options = rng.below(len(order)), rng.shuffled(order)
        question = theme.question.format(theme.positions.name(position, len(order), rng.chance(0.5)))
        opening = theme.opening.format(number_word(len(order)).capitalize())
        story = " ".join([f"{opening}: {listed(rng.shuffled(order))}.", *sentences])
        return Item(
            task="logical_deduction",
            query=with_options(f"{story} {question}?", options),
            references=option_references([options.index(order[position])], options),
            origin=origin,
            options=tuple(options),
            group=content_key("logical_deduction", theme.opening, order, sorted(clues)),  # whatever its wording
            metadata={"objects": len(order), "clues": len(clues)},
        )

    def _clues(self, rng: SeededRng) -> list[Clue]:
        """Clues in random order that only the true order satisfies, none of which the others imply."""
        clues: list[Clue] = []
        while not _have_one_solution(clues, self.dials.objects):
            if rng.chance(self.dials.absolute_share):
                position = rng.below(self.dials.objects)
                clue = Clue("at", position, position)
            else:
                first, second = sorted(rng.sample(range(self.dials.objects), 2))
                neighbours = second - first == 1 and self.dials.objects > 2  # two objects always are neighbours
                clue = Clue("just before" if neighbours and rng.chance(0.5) else "before", first, second)
            clues += [clue] if clue not in clues else []
        for clue in rng.shuffled(clues):
            others = [other for other in clues if other != clue]
            clues = others if _have_one_solution(others, self.dials.objects) else clues
        return rng.shuffled(clues)


def _have_one_solution(clues: Sequence[Clue], objects: int) -> bool:
    """Whether exactly one order satisfies all clues."""
    solutions = (1 << len(_orders(objects))) - 1
    for clue in clues:
        solutions &= _solutions(clue, objects)
    return solutions.bit_count() == 1


@cache
def _orders(objects: int) -> tuple[tuple[int, ...], ...]:
    return tuple(permutations(range(objects)))


@cache  # eight objects have 40,320 orders
def _solutions(clue: Clue, objects: int) -> int:
    """The orders that satisfy a clue, as one bit each."""
    return int("".join("1" if clue.holds(positions) else "0" for positions in _orders(objects)), 2)


def _sentence(rng: SeededRng, theme: Theme, clue: Clue, order: list[str]) -> str:
    """One of the ways to say the clue."""
    if clue.kind == "at":
        position = theme.positions.name(clue.other, len(order), rng.chance(0.5))
        text = theme.at.format(order[clue.subject], position)
    else:
        wordings = theme.just_before if clue.kind == "just before" else theme.before
        text = rng.pick(wordings).format(order[clue.subject], order[clue.other])
    return f"{text[0].upper()}{text[1:]}."
