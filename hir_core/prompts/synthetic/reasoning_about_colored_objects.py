"""The synthetic task `reasoning_about_colored_objects`: questions about coloured things in a heap, a row or piles.

A scene is a list of (number, colour, thing). Answers that are numbers are drawn first and the scene until it fits, so
that each number is right equally often and the most frequent one says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_word
from hir_core.prompts.options import accepted, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.schemas import content_key


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Usual words first: small `colors` and `objects` dials take them from the front.
COLORS = _words(
    "red blue green yellow black white brown orange purple pink grey silver gold teal beige maroon turquoise"
)
OBJECTS = _words(
    "mug spoon button ribbon candle bowl marble comb key bell whistle thimble lantern magnet coin vase stapler"
)
SURFACES = _words("bench shelf table desk counter windowsill carpet")
YES_NO = ("yes", "no")
MOST_NUMBERS = 12


class Pile(NamedTuple):
    """Some things of one kind and colour."""

    number: int
    color: str
    thing: str


class Question(NamedTuple):
    """What is asked about a scene, and the answer: a colour, a number, or yes or no."""

    text: str
    answer: str | int


Scene = list[Pile]


# --- questions: each takes dice, a scene and the colours that there are ----------------------------------------------


def _color(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001 - the questions' signature
    asked = rng.pick(scene)
    return Question(f"What color is the {asked.thing}?", asked.color)


def _yes_no(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:
    """Half of the wrong colours are another thing's, so that a colour's being there says nothing."""
    asked, is_so = rng.pick(scene), rng.chance(0.5)
    others = [color for color in colors if color != asked.color]
    seen = [pile.color for pile in scene if pile.color != asked.color]
    wrong = rng.pick(seen) if seen and rng.chance(0.5) else rng.pick(others)
    return Question(f"Is the {asked.thing} {asked.color if is_so else wrong}?", YES_NO[0 if is_so else 1])


def _neither(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:
    one, other = rng.sample(colors, 2)
    count = sum(pile.number for pile in scene if pile.color not in (one, other))
    return Question(f"How many things are neither {one} nor {other}?", count)


def _at_the_end(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    where, pile = rng.pick([("leftmost", scene[0]), ("rightmost", scene[-1])])
    return Question(f"What is the color of the {where} thing?", pile.color)


def _next_to(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    left = rng.below(len(scene) - 1)
    side, asked, known = rng.pick([("left", left, left + 1), ("right", left + 1, left)])
    text = f"What is the color of the thing directly to the {side} of {_named(rng, scene, known)}?"
    return Question(text, scene[asked].color)


def _furthest(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    last = len(scene) - 1
    known = rng.pick([place for place in range(len(scene)) if 2 * place != last])  # from the middle both ends are
    text = f"What is the color of the thing furthest from {_named(rng, scene, known)}?"
    return Question(text, scene[last if 2 * known < last else 0].color)


def _beside(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:
    known, unwanted = rng.below(len(scene)), rng.pick(colors)
    side, piles = rng.pick([("left", scene[:known]), ("right", scene[known + 1 :])])
    text = f"How many things to the {side} of {_named(rng, scene, known)} are not {unwanted}?"
    return Question(text, sum(pile.color != unwanted for pile in piles))


def _remaining(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    """Takes away all of one kind or all of one colour, and counts one colour, one kind or all that is left."""
    gone, asked = rng.pick(scene), rng.pick(scene)
    taken = rng.pick([f"{gone.thing}s", f"{gone.color} things"])
    name = rng.pick([f"{asked.color} things", f"{asked.thing}s", "things"])
    count = sum(pile.number for pile in scene if taken not in _names(pile) and name in _names(pile))
    return Question(f"If all the {taken} are taken away, how many {name} are left?", count)


def _names(pile: Pile) -> set[str]:
    """What the things of a pile can be called."""
    return {"things", f"{pile.color} things", f"{pile.thing}s"}


def _named(rng: SeededRng, scene: Scene, place: int) -> str:
    """A thing of a row by its kind or, where no other has it, by its colour."""
    pile = scene[place]
    by_color = rng.chance(0.5) and sum(other.color == pile.color for other in scene) == 1
    return f"the {pile.color} thing" if by_color else f"the {pile.thing}"


class Kind(NamedTuple):
    """A kind of question: how it is asked, about which scenes, and whether its answer is a number."""

    ask: Callable[[SeededRng, Scene, tuple[str, ...]], Question]
    scene: str
    counts: bool = False


QUESTIONS: dict[str, Kind] = {
    "color": Kind(_color, "heap"),
    "yes_no": Kind(_yes_no, "heap"),
    "neither": Kind(_neither, "heap", counts=True),
    "at_the_end": Kind(_at_the_end, "row"),
    "next_to": Kind(_next_to, "row"),
    "furthest": Kind(_furthest, "row"),
    "beside": Kind(_beside, "row", counts=True),
    "remaining": Kind(_remaining, "piles", counts=True),
}
OPENINGS = {
    "heap": "On the {} there are {}.",
    "row": "On the {} there are, from left to right, {}.",
    "piles": "On the {} there are {}.",
}


class ColoredObjectsDials(Section):
    """What is asked, and how much there is to see."""

    questions: tuple[str, ...] = Field(tuple(QUESTIONS), min_length=1)
    """Kinds of questions, each as often."""
    min_things: int = Field(3, ge=2, le=8)
    """Fewest entries of a scene."""
    max_things: int = Field(6, ge=2, le=8)
    """Most entries of a scene."""
    max_count: int = Field(3, ge=1, le=9)
    """Most things of one kind and colour, where things come in piles."""
    colors: int = Field(len(COLORS), ge=3, le=len(COLORS))
    """Different colours, usual ones first."""
    objects: int = Field(len(OBJECTS), ge=2, le=len(OBJECTS))
    """Different kinds of things, usual ones first."""
    options: int = Field(6, ge=2, le=MOST_NUMBERS)
    """Answers to choose from; fewer where fewer can be right: two for yes or no, the numbers below `max_things`."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> ColoredObjectsDials:
        if unknown := [name for name in self.questions if name not in QUESTIONS]:
            raise ValueError(f"unknown questions {unknown}: choose from {', '.join(QUESTIONS)}")
        if not self.min_things <= self.max_things <= self.objects:
            raise ValueError(
                f"max_things {self.max_things} must be at least min_things {self.min_things} and at most objects "
                f"{self.objects}: no two things of a row are of one kind"
            )
        if self.options > self.colors:
            raise ValueError(f"options {self.options} must be at most colors {self.colors}: they name colours")
        return self

    @property
    def numbers(self) -> int:
        """How many numbers are offered, from 0 on; a row of `max_things` has answers up to one less."""
        return min(self.options, self.max_things)


class ColoredObjects:
    """Draws a scene and asks one question about it."""

    dials_model: ClassVar[type[Section]] = ColoredObjectsDials

    def __init__(self, dials: ColoredObjectsDials) -> None:
        self.dials = dials
        self.colors, self.objects = COLORS[: dials.colors], OBJECTS[: dials.objects]

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One scene with its question and options."""
        name = rng.pick(self.dials.questions)
        kind = QUESTIONS[name]
        scene, question = self._asked(rng, kind)
        offered = self._offered(rng, kind, scene, question)
        answer = number_word(question.answer) if isinstance(question.answer, int) else question.answer
        opening = OPENINGS[kind.scene].format(rng.pick(SURFACES), _listing([_phrase(pile) for pile in scene]))
        return Item(
            task="reasoning_about_colored_objects",
            query=with_options(f"{opening} {question.text}", offered),
            references=accepted([offered.index(answer)], offered),
            place=place,
            options=tuple(offered),
            group=content_key("reasoning_about_colored_objects", sorted(scene)),
            metadata={"question": name, "things": len(scene)},
        )

    def _asked(self, rng: SeededRng, kind: Kind) -> tuple[Scene, Question]:
        wanted = rng.below(self.dials.numbers) if kind.counts else None
        while True:
            scene = self._scene(rng, kind)
            question = kind.ask(rng, scene, self._palette(rng, scene))
            if wanted in (None, question.answer):
                return scene, question

    def _scene(self, rng: SeededRng, kind: Kind) -> Scene:
        """Few colours, so that some are there twice; in a heap or row every thing is of a kind of its own."""
        size = rng.between(self.dials.min_things, self.dials.max_things)
        colors = rng.sample(self.colors, rng.between(2, max(2, min(size, len(self.colors)) - 1)))
        if kind.scene != "piles":
            return [Pile(1, rng.pick(colors), thing) for thing in rng.sample(self.objects, size)]
        things = rng.sample(self.objects, max(2, size // 2))
        pairs = [(color, thing) for color in colors for thing in things]
        chosen = rng.sample(pairs, min(size, len(pairs)))
        return [Pile(rng.between(1, self.dials.max_count), color, thing) for color, thing in chosen]

    def _palette(self, rng: SeededRng, scene: Scene) -> tuple[str, ...]:
        """Colours to ask about: those of the scene, and one that is not there, if any."""
        seen = {pile.color for pile in scene}
        unseen = [color for color in self.colors if color not in seen]
        return (*sorted(seen), *rng.sample(unseen, min(len(unseen), 3 - min(len(seen), 2))))

    def _offered(self, rng: SeededRng, kind: Kind, scene: Scene, question: Question) -> list[str]:
        """The answers to choose from, shuffled: colours of the scene come before others."""
        if kind.counts:
            return rng.shuffled([number_word(number) for number in range(self.dials.numbers)])
        if question.answer in YES_NO:
            return rng.shuffled(YES_NO)
        seen = dict.fromkeys(pile.color for pile in rng.shuffled(scene))
        ordered = dict.fromkeys([str(question.answer), *seen, *rng.shuffled(self.colors)])
        return rng.shuffled(list(ordered)[: self.dials.options])


def _phrase(pile: Pile) -> str:
    if pile.number > 1:
        return f"{number_word(pile.number)} {pile.color} {pile.thing}s"
    return f"{'an' if pile.color[0] in 'aeiou' else 'a'} {pile.color} {pile.thing}"


def _listing(phrases: list[str]) -> str:
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last
