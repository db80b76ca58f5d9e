"""The synthetic task `object_counting`: count the things of one category in a list of possessions.

For example: "I have three apples, two pears, and a chair. How many fruits do I have?" The answer is accepted in digits
and in words. The dials make lists of two nouns with small counts, or of ten nouns and others that do not count.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.config.section import DefaultExcludedFromId
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_references, number_word
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known
from hir_core.prompts.synthetic.vocabulary import with_article
from hir_core.schemas import content_key


class Noun(NamedTuple):
    """A countable noun."""

    singular: str
    plural: str


def _nouns(text: str) -> tuple[Noun, ...]:
    """The nouns of a text: `dog` where the plural only adds an s, else both forms, as in `knife/knives`."""
    pairs = (word.split("/") for word in text.split())
    return tuple(Noun(pair[0].replace("_", " "), (pair[-1] if len(pair) > 1 else pair[0] + "s")) for pair in pairs)


# Common words first: the dial `words` keeps the first ones of each category.
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
EVERYTHING = "objects"  # every thing is an object, so a list about objects has no decoys


class CountingDials(Section):
    """How difficult the lists are; with the defaults, about as difficult as those of BIG-bench."""

    min_kinds: int = Field(2, ge=1, le=12)
    """Fewest different nouns of the category that is asked for."""
    max_kinds: int = Field(10, ge=1, le=12)
    """Most different nouns of the category that is asked for."""
    count_weights: tuple[float, ...] = Field((80.0, 10.0, 6.0, 3.0, 1.0), min_length=1, max_length=20)
    """How often a noun has the count 1, 2, and so on; nine equal weights give counts from 1 to 9."""
    decoy_share: float = Field(0.25, ge=0, le=1)
    """Share of the lists with decoys: things of another category, which do not count."""
    max_decoys: int = Field(3, ge=1, le=10)
    """Most different decoys of a list."""
    categories: tuple[str, ...] = Field(tuple(CATEGORIES), min_length=1)
    """The categories that questions ask for."""
    words: int = Field(20, ge=1)
    """Different nouns per category, common ones first."""
    numbers: Literal["words", "digits"] = "words"
    """`two apples` and `an apple`, or `2 apples` and `1 apple`."""
    reference: Annotated[Literal["number", "sum"], DefaultExcludedFromId] = "number"
    """`number`: the answer in digits, or in words. `sum`: the counts in their order and then the answer, as in
    `2 + 1 + 4 = 7`: a short chain of reasoning, for the reward `numeric` with the marker `=`."""

    @model_validator(mode="after")
    def _lists_can_be_drawn(self) -> CountingDials:
        require_known("categories", self.categories, CATEGORIES)
        if min(self.count_weights) < 0 or sum(self.count_weights) <= 0:
            raise ValueError("count_weights must be 0 or more, and one of them above 0")
        fewest = min(len(self.nouns(name)) for name in self.categories)
        if not self.min_kinds <= self.max_kinds <= fewest:
            raise ValueError(
                f"max_kinds {self.max_kinds} must be at least min_kinds {self.min_kinds} and at most {fewest}, "
                f"the nouns of the smallest category with words = {self.words}"
            )
        if self.decoy_share > 0 and self.max_decoys > min(len(self.nouns(name)) for name in CATEGORIES):
            raise ValueError(f"max_decoys {self.max_decoys} exceeds the words of a category: lower it or raise words")
        return self

    def nouns(self, category: str) -> tuple[Noun, ...]:
        """The nouns of a category that lists may hold."""
        return CATEGORIES[category][: self.words]


class ObjectCounting:
    """Draws a list of possessions and asks how many of one category it holds."""

    dials_model: ClassVar[type[Section]] = CountingDials

    def __init__(self, dials: CountingDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One list with its question."""
        category = rng.pick(self.dials.categories)
        counted = self._counts(rng, self.dials.nouns(category), rng.between(self.dials.min_kinds, self.dials.max_kinds))
        decoys: list[tuple[int, Noun]] = []
        if category != EVERYTHING and rng.chance(self.dials.decoy_share):
            other = rng.pick([name for name in CATEGORIES if name != category])
            decoys = self._counts(rng, self.dials.nouns(other), rng.between(1, self.dials.max_decoys))
        counts = rng.shuffled(counted + decoys)
        *first, last = [_phrase(count, noun, self.dials.numbers) for count, noun in counts]
        comma = "," if len(first) > 1 else ""
        listing = f"{', '.join(first)}{comma} and {last}" if first else last
        total = sum(count for count, _ in counted)
        working = " + ".join(str(count) for count, noun in counts if (count, noun) in counted)
        return Item(
            task="object_counting",
            query=f"I have {listing}. How many {category} do I have?",
            references=(f"{working} = {total}",) if self.dials.reference == "sum" else number_references(total),
            origin=origin,
            group=content_key("object_counting", sorted((noun.singular, count) for count, noun in counts)),
            metadata={"category": category, "kinds": len(counted), "decoys": len(decoys)},
        )

    def _counts(self, rng: SeededRng, nouns: tuple[Noun, ...], size: int) -> list[tuple[int, Noun]]:
        """`size` different nouns, each with a count."""
        return [(1 + rng.weighted(self.dials.count_weights), noun) for noun in rng.sample(nouns, size)]


def _phrase(count: int, noun: Noun, numbers: str) -> str:
    """The noun with its count: `two apples` and `an apple`, or `2 apples` and `1 apple`."""
    if numbers == "digits":
        return f"{count} {noun.singular if count == 1 else noun.plural}"
    return with_article(noun.singular) if count == 1 else f"{number_word(count)} {noun.plural}"
