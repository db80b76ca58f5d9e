"""The synthetic task `reasoning_about_colored_objects`: questions about coloured things in a heap, a row or piles.

A scene is a list of (number, colour, thing). Where the answer is a number, it is drawn first, and scenes are drawn
until one has this answer: each number is right equally often, so no number is a better guess than the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_word
from hir_core.prompts.options import option_references, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known
from hir_core.prompts.synthetic.vocabulary import listed, with_article
from hir_core.schemas import content_key

# Common words first: the dials `colors` and `objects` keep the first ones.
COLORS = (
    *("red", "blue", "green", "yellow", "black", "white", "brown", "orange", "purple"),
    *("pink", "grey", "silver", "gold", "teal", "beige", "maroon", "turquoise"),
)
OBJECTS = (
    *("mug", "spoon", "button", "ribbon", "candle", "bowl", "marble", "comb", "key"),
    *("bell", "whistle", "thimble", "lantern", "magnet", "coin", "vase", "stapler"),
)
SURFACES = ("bench", "shelf", "table", "desk", "counter", "windowsill", "carpet")
YES_NO = ("yes", "no")
MOST_NUMBERS = 12


class Pile(NamedTuple):
    """A number of things of one kind and colour; in heaps and rows always one."""

    number: int
    color: str
    thing: str


class Question(NamedTuple):
    """A question about a scene, and its answer: a colour, a number, or yes or no."""

    text: str
    answer: str | int


Scene = list[Pile]


# --- questions: each function takes a scene and the colours that it may name ------------------------------------------


def _color(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001 - the questions' signature
    pile = rng.pick(scene)
    return Question(f"What color is the {pile.thing}?", pile.color)


def _yes_no(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:
    """Half of the wrong colours are those of another thing: that the scene has the colour does not mean yes."""
    pile, is_right = rng.pick(scene), rng.chance(0.5)
    others = [color for color in colors if color != pile.color]
    in_scene = [other.color for other in scene if other.color != pile.color]
    wrong = rng.pick(in_scene) if in_scene and rng.chance(0.5) else rng.pick(others)
    return Question(f"Is the {pile.thing} {pile.color if is_right else wrong}?", YES_NO[0 if is_right else 1])


def _neither(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:
    excluded = rng.sample(colors, 2)
    count = sum(pile.number for pile in scene if pile.color not in excluded)
    return Question(f"How many things are neither {' nor '.join(excluded)}?", count)


def _at_the_end(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    end, pile = rng.pick([("leftmost", scene[0]), ("rightmost", scene[-1])])
    return Question(f"What is the color of the {end} thing?", pile.color)


def _next_to(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    left = rng.below(len(scene) - 1)
    side, target, reference = rng.pick([("left", left, left + 1), ("right", left + 1, left)])
    text = f"What is the color of the thing directly to the {side} of {_name(rng, scene, reference)}?"
    return Question(text, scene[target].color)


def _furthest(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    last = len(scene) - 1
    # Both ends are equally far from the middle of a row.
    reference = rng.pick([index for index in range(len(scene)) if 2 * index != last])
    text = f"What is the color of the thing furthest from {_name(rng, scene, reference)}?"
    return Question(text, scene[last if 2 * reference < last else 0].color)


def _beside(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:
    reference, excluded = rng.below(len(scene)), rng.pick(colors)
    side, piles = rng.pick([("left", scene[:reference]), ("right", scene[reference + 1 :])])
    text = f"How many things to the {side} of {_name(rng, scene, reference)} are not {excluded}?"
    return Question(text, sum(pile.color != excluded for pile in piles))


def _remaining(rng: SeededRng, scene: Scene, colors: tuple[str, ...]) -> Question:  # noqa: ARG001
    """Takes away all things of one kind or colour, and counts those of one colour, of one kind, or all the others."""
    first, second = rng.pick(scene), rng.pick(scene)
    removed = rng.pick([f"{first.thing}s", f"{first.color} things"])
    counted = rng.pick([f"{second.color} things", f"{second.thing}s", "things"])
    count = 0
    for pile in scene:
        names = {"things", f"{pile.color} things", f"{pile.thing}s"}
        count += pile.number if removed not in names and counted in names else 0
    return Question(f"If all the {removed} are taken away, how many {counted} are left?", count)


def _name(rng: SeededRng, scene: Scene, index: int) -> str:
    """The name of a thing in a row: by its kind or, where no other thing has its colour, by its colour."""
    pile = scene[index]
    by_color = rng.chance(0.5) and sum(other.color == pile.color for other in scene) == 1
    return f"the {pile.color} thing" if by_color else f"the {pile.thing}"


class Kind(NamedTuple):
    """A kind of question: the function that asks it, the kind of scene, and whether its answer is a number."""

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
    """What is asked, and how large the scenes are."""

    questions: tuple[str, ...] = Field(tuple(QUESTIONS), min_length=1)
    """Kinds of questions, each equally often."""
    min_things: int = Field(3, ge=2, le=8)
    """Fewest entries of a scene."""
    max_things: int = Field(6, ge=2, le=8)
    """Most entries of a scene."""
    max_count: int = Field(3, ge=1, le=9)
    """Most things of one kind and colour, in scenes with piles."""
    colors: int = Field(len(COLORS), ge=3, le=len(COLORS))
    """Different colours, common ones first."""
    objects: int = Field(len(OBJECTS), ge=2, le=len(OBJECTS))
    """Different kinds of things, common ones first."""
    options: int = Field(6, ge=2, le=MOST_NUMBERS)
    """Answers to choose from; fewer where fewer can be right: yes and no, or the numbers below `max_things`."""

    @model_validator(mode="after")
    def _scenes_can_be_drawn(self) -> ColoredObjectsDials:
        require_known("questions", self.questions, QUESTIONS)
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
        """How many numbers are offered, from 0 on; in a row of `max_things` the largest count is one less."""
        return min(self.options, self.max_things)


class ColoredObjects:
    """Draws a scene and asks one question about it."""

    dials_model: ClassVar[type[Section]] = ColoredObjectsDials

    def __init__(self, dials: ColoredObjectsDials) -> None:
        self.dials = dials
        self.colors, self.objects = COLORS[: dials.colors], OBJECTS[: dials.objects]

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One scene with its question and options."""
        name = rng.pick(self.dials.questions)
        kind = QUESTIONS[name]
        wanted = rng.below(self.dials.numbers) if kind.counts else None
        while True:
            scene = self._scene(rng, kind)
            question = kind.ask(rng, scene, self._colors_to_name(rng, scene))
            if wanted in (None, question.answer):
                break
        options = self._options(rng, kind, scene, question)
        answer = number_word(question.answer) if isinstance(question.answer, int) else question.answer
        phrases = [
            f"{number_word(pile.number)} {pile.color} {pile.thing}s"
            if pile.number > 1
            else f"{with_article(pile.color)} {pile.thing}"
            for pile in scene
        ]
        opening = OPENINGS[kind.scene].format(rng.pick(SURFACES), listed(phrases))
        return Item(
            task="reasoning_about_colored_objects",
            query=with_options(f"{opening} {question.text}", options),
            references=option_references([options.index(answer)], options),
            origin=origin,
            options=tuple(options),
            group=content_key("reasoning_about_colored_objects", sorted(scene)),
            metadata={"question": name, "things": len(scene)},
        )

    def _scene(self, rng: SeededRng, kind: Kind) -> Scene:
        """Piles of things, fewer colours than things; in a heap or row no two things are of one kind."""
        size = rng.between(self.dials.min_things, self.dials.max_things)
        colors = rng.sample(self.colors, rng.between(2, max(2, min(size, len(self.colors)) - 1)))
        if kind.scene != "piles":
            return [Pile(1, rng.pick(colors), thing) for thing in rng.sample(self.objects, size)]
        things = rng.sample(self.objects, max(2, size // 2))
        pairs = [(color, thing) for color in colors for thing in things]
        chosen = rng.sample(pairs, min(size, len(pairs)))
        return [Pile(rng.between(1, self.dials.max_count), color, thing) for color, thing in chosen]

    def _colors_to_name(self, rng: SeededRng, scene: Scene) -> tuple[str, ...]:
        """The colours that a question may name: those of the scene and others, if there are any; at least three."""
        in_scene = {pile.color for pile in scene}
        others = [color for color in self.colors if color not in in_scene]
        return (*sorted(in_scene), *rng.sample(others, min(len(others), 3 - min(len(in_scene), 2))))

    def _options(self, rng: SeededRng, kind: Kind, scene: Scene, question: Question) -> list[str]:
        """The answers to choose from, in random order; other colours are offered only after those of the scene."""
        if kind.counts:
            return rng.shuffled([number_word(number) for number in range(self.dials.numbers)])
        if question.answer in YES_NO:
            return rng.shuffled(YES_NO)
        in_scene = [pile.color for pile in rng.shuffled(scene)]
        ordered = dict.fromkeys([str(question.answer), *in_scene, *rng.shuffled(self.colors)])
        return rng.shuffled(list(ordered)[: self.dials.options])
