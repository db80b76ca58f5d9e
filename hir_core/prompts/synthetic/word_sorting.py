"""The synthetic task `word_sorting`: put words into alphabetical order.

The words are English and in lower case, without accents, so alphabetical order is the order of code points. The answer
is the words separated by blanks. Lists that are sorted already are kept: copying the list is right once in n! lists of
n words.
"""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.rng import SeededRng
from hir_core.schemas import content_key

_PLAIN_WORDS = """
    able about above acorn actor after again agree ahead airport alarm album almond along anchor angle ankle answer
    apple apron arch arm army arrow artist ash autumn avenue awake axe
    baby back badge bag baker ball balloon bamboo banana band bank barn barrel basin basket bat bath beach bean bear
    beard bed bee beetle bell belt bench berry bird biscuit blanket blue board boat body bone book boot border bottle
    bowl box boy branch brave bread breakfast breeze brick bridge bright broad broom brother brown brush bucket
    building bundle bus bush butter button
    cabbage cabin cable cake calendar calm camel camera camp canal candle cannon canoe canvas cap captain car card
    carpet carrot carry cart castle cat cattle cave cellar chain chair chalk chapel cheap cheese cherry chess chest
    chicken child chimney church circle circus city clay clean clever cliff climb clock cloth cloud clover coach coal
    coast coat coffee coin cold collar colour comb comet common copper copy coral cork corn corner cotton cough count
    country cousin cover cow cradle crane crayon cream crowd crown cruise crumb crust crystal cup curtain cushion
    dance danger dark daughter dawn day deep deer desert desk diamond dice dictionary dinner dirt dish doctor dog
    dolphin donkey door dough dragon drawer dream dress drink drive drum duck dust
    eagle ear early earth east easy edge egg eight elbow elephant empty engine enjoy evening exit eye
    face factory fair falcon family farm farmer fast father feather feed fence fern ferry field fig film finger fire
    fish flag flame flat flock flood floor flour flower flute fly foam fog food foot forest fork fort fossil fountain
    fox frame free fresh friend frog frost fruit full funnel fur
    game garage garden garlic gate gentle ghost giant ginger giraffe girl glad glass globe glove glue goat gold goose
    grain grape grass gravel green grey grocer ground group guard guest guide guitar
    hair half hall hammer hand handle happy harbour hare harp harvest hat hawk hay hazel head heart heavy hedge helmet
    help hen herb hero hill hint hippo hobby hockey holiday hollow honey hood hook hoop horn horse hospital hotel hour
    house hungry hunt hut
    ice idea igloo ink insect iron island ivory ivy
    jacket jam jar jaw jelly jewel job join joke journey judge juice jump jungle junior
    kettle key kick kind king kitchen kite kitten knee knife knock knot
    label lace ladder lady lake lamb lamp land lantern large laugh lawn lazy leaf leap learn leather left lemon letter
    library lid light lily lime line lion lip list little lizard lobster lock log long loud lunch
    machine magnet magpie mail map maple marble march market mask mast match meadow meal measure medal melon metal
    middle milk mill mint minute mirror mist mitten model moment money monkey month moon morning moss moth
    mother motor mountain mouse mouth mud mule museum music mustard
    nail name napkin narrow neck needle nephew nest net nettle new night nine noble noise noodle noon north nose note
    number nurse nut
    oak oar oats ocean office oil old olive onion open orange orchard organ oven owl oyster
    paddle page pail paint palace palm pan paper parade parcel parent park parrot party pasta path patient pause peach
    peacock pear pearl pebble pedal pelican pen pencil penguin people pepper piano picnic picture pie pig pigeon
    pillow pilot pin pine pink pipe pirate pizza planet plank plant plate play plum pocket poem poet point polite pond
    pony pool poor porch port potato powder prince print prize puddle pump pumpkin puppet purple purse puzzle
    quarter queen question quick quiet quilt quiz
    rabbit race radio raft rail rain rake rat raven reach ready recipe red reed rice ride ring ripe river road roast
    robin robot rock roof room root rope rose round row rubber ruler run rust
    saddle safe sail salad salmon salt sand sauce saw scale scarf school science scissors score sea seal season
    seat second seed seven shade shadow shallow shark sharp shed sheep shelf shell ship shirt shoe shop short shoulder
    shovel shower silk silver simple singer sink sister six skate ski skin skirt sky sled sleep slice slow small
    smile smoke snail snake snow soap sock soft soil song sound soup south spade spark spider spoon sport spring
    square squirrel stable stage stair stamp star station steam steel stem step stick stone stool storm story stove
    straw stream street string strong student sugar summer sun swan sweet swim
    table tailor tall tape tart taste taxi tea teacher team tent test thick thin thread throne thumb thunder ticket
    tide tiger tile timber time tin tiny toast today toe tomato tongue tool tooth torch tower town toy track trade
    train travel tray treasure tree triangle trip truck trumpet trunk tulip tunnel turkey turtle twelve twig twin
    umbrella uncle under uniform upper useful
    valley van vase velvet village vine violin visit voice volcano
    wagon waiter walk wall walnut warm wash wasp watch water wave wax weather week west whale wheat wheel whisper
    whistle white wide wild willow wind window wing winter wire wise wolf wood wool word work world worm wrist
    yacht yard year yellow yesterday young
    zebra zero zigzag zipper zone
"""
WORDS = tuple(_PLAIN_WORDS.split())
REQUESTS = (
    "Sort these words alphabetically: {}. Write them separated by blanks.",
    "Put the following words into alphabetical order, separated by blanks: {}.",
    "Here is a list of words: {}. Write the list from A to Z, with a blank between words.",
    "A librarian wants these words in alphabetical order: {}. Write them so, separated by blanks.",
)


@cache
def word_families(letters: int) -> tuple[tuple[str, ...], ...]:
    """The words grouped by their first `letters` letters; one group of all words for 0."""
    families: dict[str, list[str]] = {}
    for word in WORDS:
        families.setdefault(word[:letters], []).append(word)
    return tuple(tuple(family) for family in families.values())


class SortingDials(Section):
    """How long the lists are, and how similar their words."""

    min_words: int = Field(2, ge=2, le=40)
    """Fewest words of a list."""
    max_words: int = Field(20, ge=2, le=40)
    """Most words of a list."""
    shared_letters: int = Field(0, ge=0, le=2)
    """How many first letters all words of a list share: with 1 or 2, the first letter alone does not give the order."""

    @model_validator(mode="after")
    def _enough_words(self) -> SortingDials:
        most = max(len(family) for family in word_families(self.shared_letters))
        if not self.min_words <= self.max_words <= most:
            raise ValueError(
                f"max_words {self.max_words} must be at least min_words {self.min_words} and at most {most}, the words "
                f"that there are with shared_letters = {self.shared_letters}"
            )
        return self


class WordSorting:
    """Draws a list of different words and asks to sort it."""

    dials_model: ClassVar[type[Section]] = SortingDials

    def __init__(self, dials: SortingDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One list of words with the request to sort it."""
        size = rng.between(self.dials.min_words, self.dials.max_words)
        families = [family for family in word_families(self.dials.shared_letters) if len(family) >= size]
        family = families[rng.weighted([len(family) for family in families])]
        words = rng.sample(family, size)
        return Item(
            task="word_sorting",
            query=rng.pick(REQUESTS).format(", ".join(words)),
            references=(" ".join(sorted(words)),),
            origin=origin,
            group=content_key("word_sorting", sorted(words)),
            metadata={"words": size},
        )
