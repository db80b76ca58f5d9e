"""The synthetic task `object_counting`: add up the things of one kind in a list of possessions.

For example: "I have three apples, two pears, and a chair. How many fruits do I have?" The answer is accepted as digits
and as a word. Difficulty runs from two kinds with small counts to lists of ten with things that do not count.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import SPELLED_BELOW, number_word
from hir_core.prompts.rng import SeededRng
from hir_core.schemas import content_key


class Noun(NamedTuple):
    """A countable thing."""

    singular: str
    plural: str


def _nouns(text: str) -> tuple[Noun, ...]:
    """Nouns from a list of words; `knife/knives` where the plural is more than an added s."""
    pairs = (word.split("/") for word in text.split())
    return tuple(Noun(pair[0].replace("_", " "), (pair[-1] if len(pair) > 1 else pair[0] + "s")) for pair in pairs)


# Usual words first: a small `words` dial takes them from the front.
CATEGORIES: dict[str, tuple[Noun, ...]] = {
    "fruits": _nouns(
        "apple pear plum lemon mango fig banana orange apricot kiwi peach/peaches cherry/cherries papaya lime melon "
        "quince date coconut tangerine strawberry/strawberries"
    ),
    "animals": _nouns(
        "dog cat horse hen goat owl cow rabbit pony/ponies lamb eagle parrot donkey fox/foxes turtle otter hamster "
        "wolf/wolves lizard mouse/mice"
    ),
    "vegetables": _nouns(
        "carrot onion potato/potatoes turnip leek beet cabbage/cabbages cucumber radish/radishes parsnip pumpkin "
        "artichoke shallot zucchini eggplant"
    ),
    "tools": _nouns(
        "hammer saw drill wrench/wrenches axe chisel spade ladder rake screwdriver file anvil shovel trowel crowbar"
    ),
    "musical instruments": _nouns(
        "guitar drum flute harp violin piano cello oboe trumpet tuba banjo accordion clarinet mandolin organ"
    ),
    "vehicles": _nouns("bus/buses van tractor truck bicycle scooter tram taxi ambulance motorbike sledge canoe"),
    "objects": _nouns(
        "chair lamp table clock mirror bottle book candle pillow shelf/shelves umbrella basket vase kettle carpet "
        "knife/knives towel bench/benches ashtray suitcase"
    ),
}
EVERYTHING = "objects"  # every thing is an object, so a question about objects has nothing that does not count


class CountingDials(Section):
    """How hard the lists are; the defaults are those of BIG-bench's task."""

    min_kinds: int = Field(2, ge=1, le=12)
    """Fewest kinds of things that count."""
    max_kinds: int = Field(10, ge=1, le=12)
    """Most kinds of things that count."""
    count_weights: tuple[float, ...] = Field((80.0, 10.0, 6.0, 3.0, 1.0), min_length=1, max_length=20)
    """How often a thing is there once, twice, and so on; nine equal weights give counts from 1 to 9."""
    decoy_share: float = Field(0.25, ge=0, le=1)
    """Share of the lists that also hold things that do not count."""
    max_decoys: int = Field(3, ge=1, le=10)
    """Most kinds of things that do not count in one list."""
    categories: tuple[str, ...] = Field(tuple(CATEGORIES), min_length=1)
    """What is asked for."""
    words: int = Field(20, ge=1)
    """Different things per category, usual ones first."""
    numbers: Literal["words", "digits"] = "words"
    """`two apples` and `an apple`, or `2 apples` and `1 apple`."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> CountingDials:
        if unknown := [name for name in self.categories if name not in CATEGORIES]:
            raise ValueError(f"unknown categories {unknown}: choose from {', '.join(CATEGORIES)}")
        if min(self.count_weights) < 0 or sum(self.count_weights) <= 0:
            raise ValueError("count_weights must be 0 or more, and one of them above 0")
        fewest = min(self._words(name) for name in self.categories)
        if not self.min_kinds <= self.max_kinds <= fewest:
            raise ValueError(
                f"max_kinds {self.max_kinds} must be at least min_kinds {self.min_kinds} and at most {fewest}, "
                f"the things that the smallest category has with words = {self.words}"
            )
        if self.decoy_share > 0 and self.max_decoys > min(self._words(name) for name in CATEGORIES):
            raise ValueError(f"max_decoys {self.max_decoys} exceeds the words of a category: lower it or raise words")
        return self

    def _words(self, category: str) -> int:
        return min(self.words, len(CATEGORIES[category]))

    def nouns(self, category: str) -> tuple[Noun, ...]:
        """The things of a category that lists may hold."""
        return CATEGORIES[category][: self.words]


class ObjectCounting:
    """Draws lists of possessions and asks how many of one kind they hold."""

    dials_model: ClassVar[type[Section]] = CountingDials

    def __init__(self, dials: CountingDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One list with its question."""
        category = rng.pick(self.dials.categories)
        counted = self._counts(rng, self.dials.nouns(category), rng.between(self.dials.min_kinds, self.dials.max_kinds))
        decoys = self._decoys(rng, category)
        things = rng.shuffled(counted + decoys)
        answer = sum(count for count, _ in counted)
        phrases = [_phrase(count, noun, self.dials.numbers) for count, noun in things]
        return Item(
            task="object_counting",
            query=f"I have {_listing(phrases)}. How many {category} do I have?",
            references=(str(answer), number_word(answer)) if answer < SPELLED_BELOW else (str(answer),),
            place=place,
            group=content_key("object_counting", sorted((noun.singular, count) for count, noun in things)),
            metadata={"category": category, "kinds": len(counted), "decoys": len(decoys)},
        )

    def _counts(self, rng: SeededRng, nouns: tuple[Noun, ...], kinds: int) -> list[tuple[int, Noun]]:
        return [(1 + rng.weighted(self.dials.count_weights), noun) for noun in rng.sample(nouns, kinds)]

    def _decoys(self, rng: SeededRng, category: str) -> list[tuple[int, Noun]]:
        if category == EVERYTHING or not rng.chance(self.dials.decoy_share):
            return []
        other = rng.pick([name for name in CATEGORIES if name != category])
        return self._counts(rng, self.dials.nouns(other), rng.between(1, self.dials.max_decoys))


def _phrase(count: int, noun: Noun, numbers: str) -> str:
    name = noun.singular if count == 1 else noun.plural
    if numbers == "digits":
        return f"{count} {name}"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}" if count == 1 else f"{number_word(count)} {name}"


def _listing(phrases: list[str]) -> str:
    if len(phrases) <= 2:
        return " and ".join(phrases)
    return ", ".join(phrases[:-1]) + f", and {phrases[-1]}"
