"""The synthetic task `reasoning_about_colored_objects`: questions about coloured things in a heap, a row or piles.

A scene is a list of (number, colour, thing). Answers that are numbers are drawn first and the scene until it fits, so
that each number is right equally often and the most frequent one says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Part
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_word
from hir_core.prompts.options import accepted, with_options
from hir_core.prompts.rng import Dice
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


def _color(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001 - the questions' signature
    asked = dice.pick(scene)
    return Question(f"What color is the {asked.thing}?", asked.color)


def _yes_no(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:
    """Half of the wrong colours are another thing's, so that a colour's being there says nothing."""
    asked, is_so = dice.pick(scene), dice.chance(0.5)
    others = [color for color in colors if color != asked.color]
    seen = [pile.color for pile in scene if pile.color != asked.color]
    wrong = dice.pick(seen) if seen and dice.chance(0.5) else dice.pick(others)
    return Question(f"Is the {asked.thing} {asked.color if is_so else wrong}?", YES_NO[0 if is_so else 1])


def _neither(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:
    one, other = dice.sample(colors, 2)
    count = sum(pile.number for pile in scene if pile.color not in (one, other))
    return Question(f"How many things are neither {one} nor {other}?", count)


def _at_the_end(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    where, pile = dice.pick([("leftmost", scene[0]), ("rightmost", scene[-1])])
    return Question(f"What is the color of the {where} thing?", pile.color)


def _next_to(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    left = dice.below(len(scene) - 1)
    side, asked, known = dice.pick([("left", left, left + 1), ("right", left + 1, left)])
    text = f"What is the color of the thing directly to the {side} of {_named(dice, scene, known)}?"
    return Question(text, scene[asked].color)


def _furthest(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    last = len(scene) - 1
    known = dice.pick([place for place in range(len(scene)) if 2 * place != last])  # from the middle both ends are
    text = f"What is the color of the thing furthest from {_named(dice, scene, known)}?"
    return Question(text, scene[last if 2 * known < last else 0].color)


def _beside(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:
    known, unwanted = dice.below(len(scene)), dice.pick(colors)
    side, piles = dice.pick([("left", scene[:known]), ("right", scene[known + 1 :])])
    text = f"How many things to the {side} of {_named(dice, scene, known)} are not {unwanted}?"
    return Question(text, sum(pile.color != unwanted for pile in piles))


def _remaining(dice: Dice, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    """Takes away all of one kind or all of one colour, and counts one colour, one kind or all that is left."""
    gone, asked = dice.pick(scene), dice.pick(scene)
    taken = dice.pick([f"{gone.thing}s", f"{gone.color} things"])
    name = dice.pick([f"{asked.color} things", f"{asked.thing}s", "things"])
    count = sum(pile.number for pile in scene if taken not in _names(pile) and name in _names(pile))
    return Question(f"If all the {taken} are taken away, how many {name} are left?", count)


def _names(pile: Pile) -> set[str]:
    """What the things of a pile can be called."""
    return {"things", f"{pile.color} things", f"{pile.thing}s"}


def _named(dice: Dice, scene: Scene, place: int) -> str:
    """A thing of a row by its kind or, where no other has it, by its colour."""
    pile = scene[place]
    by_color = dice.chance(0.5) and sum(other.color == pile.color for other in scene) == 1
    return f"the {pile.color} thing" if by_color else f"the {pile.thing}"


class Kind(NamedTuple):
    """A kind of question: how it is asked, about which scenes, and whether its answer is a number."""

    ask: Callable[[Dice, Scene, tuple[str, ...]], Question]
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


class ColoredObjectsDials(Part):
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

    dials_model: ClassVar[type[Part]] = ColoredObjectsDials

    def __init__(self, dials: ColoredObjectsDials) -> None:
        self.dials = dials
        self.colors, self.objects = COLORS[: dials.colors], OBJECTS[: dials.objects]

    def draw(self, dice: Dice, place: str) -> Item:
        """One scene with its question and options."""
        name = dice.pick(self.dials.questions)
        kind = QUESTIONS[name]
        scene, question = self._asked(dice, kind)
        offered = self._offered(dice, kind, scene, question)
        answer = number_word(question.answer) if isinstance(question.answer, int) else question.answer
        opening = OPENINGS[kind.scene].format(dice.pick(SURFACES), _listing([_phrase(pile) for pile in scene]))
        return Item(
            task="reasoning_about_colored_objects",
            query=with_options(f"{opening} {question.text}", offered),
            references=accepted([offered.index(answer)], offered),
            place=place,
            options=tuple(offered),
            group=content_key("reasoning_about_colored_objects", sorted(scene)),
            metadata={"question": name, "things": len(scene)},
        )

    def _asked(self, dice: Dice, kind: Kind) -> tuple[Scene, Question]:
        wanted = dice.below(self.dials.numbers) if kind.counts else None
        while True:
            scene = self._scene(dice, kind)
            question = kind.ask(dice, scene, self._palette(dice, scene))
            if wanted in (None, question.answer):
                return scene, question

    def _scene(self, dice: Dice, kind: Kind) -> Scene:
        """Few colours, so that some are there twice; in a heap or row every thing is of a kind of its own."""
        size = dice.between(self.dials.min_things, self.dials.max_things)
        colors = dice.sample(self.colors, dice.between(2, max(2, min(size, len(self.colors)) - 1)))
        if kind.scene != "piles":
            return [Pile(1, dice.pick(colors), thing) for thing in dice.sample(self.objects, size)]
        things = dice.sample(self.objects, max(2, size // 2))
        pairs = [(color, thing) for color in colors for thing in things]
        chosen = dice.sample(pairs, min(size, len(pairs)))
        return [Pile(dice.between(1, self.dials.max_count), color, thing) for color, thing in chosen]

    def _palette(self, dice: Dice, scene: Scene) -> tuple[str, ...]:
        """Colours to ask about: those of the scene, and one that is not there, if any."""
        seen = {pile.color for pile in scene}
        unseen = [color for color in self.colors if color not in seen]
        return (*sorted(seen), *dice.sample(unseen, min(len(unseen), 3 - min(len(seen), 2))))

    def _offered(self, dice: Dice, kind: Kind, scene: Scene, question: Question) -> list[str]:
        """The answers to choose from, shuffled: colours of the scene come before others."""
        if kind.counts:
            return dice.shuffled([number_word(number) for number in range(self.dials.numbers)])
        if question.answer in YES_NO:
            return dice.shuffled(YES_NO)
        seen = dict.fromkeys(pile.color for pile in dice.shuffled(scene))
        ordered = dict.fromkeys([str(question.answer), *seen, *dice.shuffled(self.colors)])
        return dice.shuffled(list(ordered)[: self.dials.options])


def _phrase(pile: Pile) -> str:
    if pile.number > 1:
        return f"{number_word(pile.number)} {pile.color} {pile.thing}s"
    return f"{'an' if pile.color[0] in 'aeiou' else 'a'} {pile.color} {pile.thing}"


def _listing(phrases: list[str]) -> str:
    *first, last = phrases
    return f"{', '.join(first)} and {last}" if first else last
