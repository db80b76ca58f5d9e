"""The synthetic task `penguins_in_a_table`: answer a question about a table that later sentences change.

The table is written in lines below a line with the columns' names. Then rows are added or deleted, and one question
looks a value up, finds the most or least, adds a column up, counts, compares two, or sorts. No value comes twice in a
column, so every answer is the only one. Options for names are other names of the story, deleted ones too; options for
values come from the same column; options for sums are equally far apart, the right one in any place among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import SPELLED_BELOW, number_word
from hir_core.prompts.options import accepted, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.vocabulary import ORDINALS
from hir_core.schemas import content_key


class Column(NamedTuple):
    """What a table tells of each: its name and plural, its values, and what many and few of it are called."""

    name: str
    plural: str
    unit: str
    values: range
    more: str
    less: str
    most: str
    least: str


_AGE = ("age", "ages", "years")
_OLD = ("older", "younger", "oldest", "youngest")
_LONG = ("longer", "shorter", "longest", "shortest")
_HEAVY = ("heavier", "lighter", "heaviest", "lightest")


class Theme(NamedTuple):
    """What a table is about."""

    one: str
    many: str
    columns: tuple[Column, ...]


THEMES = {
    "penguins": Theme("penguin", "penguins", (
        Column(*_AGE, range(5, 26), *_OLD),
        Column("height", "heights", "cm", range(40, 116), "taller", "shorter", "tallest", "shortest"),
        Column("weight", "weights", "kg", range(5, 39), *_HEAVY),
    )),
    "ponies": Theme("pony", "ponies", (
        Column(*_AGE, range(5, 31), *_OLD),
        Column("speed", "speeds", "km/h", range(20, 49), "faster", "slower", "fastest", "slowest"),
        Column("weight", "weights", "kg", range(150, 320), *_HEAVY),
    )),
    "boats": Theme("boat", "boats", (
        Column(*_AGE, range(5, 61), *_OLD),
        Column("length", "lengths", "m", range(5, 40), *_LONG),
        Column("price", "prices", "coins", range(20, 400), "more expensive", "cheaper", "most expensive", "cheapest"),
    )),
    "trains": Theme("train", "trains", (
        Column("length", "lengths", "m", range(60, 400), *_LONG),
        Column("speed", "speeds", "km/h", range(70, 300), "faster", "slower", "fastest", "slowest"),
        Column(*_AGE, range(5, 45), *_OLD),
    )),
}  # fmt: skip
NAMES = (
    *("Amber", "Basil", "Biscuit", "Bruno", "Clover", "Comet", "Domino", "Echo", "Flint", "Frost"),
    *("Ginger", "Hazel", "Iris", "Jasper", "Juno", "Lotus", "Maple", "Misty", "Nimbus", "Onyx"),
    *("Otto", "Pebble", "Pepper", "Pip", "Poppy", "Rocket", "Ruby", "Saffron", "Topaz", "Willow"),
)

ADDED = (
    "Then this line is added: {}.",
    "Later one more line is written below: {}.",
    "Now the table also gets this line: {}.",
)
DELETED = (
    "Then the line of {} is deleted.",
    "Later {} is struck from the table.",
    "Now the line that begins with {} is removed.",
)
FEWEST_ROWS = 2  # a table is not emptied below this
WINDOW = 10  # equally distant numbers, the right sum among them, that others are taken from

Row = tuple[int, ...]


class Story(NamedTuple):
    """A table with its changes, as told and as it stands at the end."""

    text: str
    theme: Theme
    table: dict[str, Row]
    """The rows of the table as first told."""
    rows: dict[str, Row]
    """The rows at the end."""
    changes: int

    def told(self) -> dict[str, Row]:
        """The rows at the beginning and at the end: those that may be offered."""
        return self.table | self.rows


class Question(NamedTuple):
    """A question with its answer, and what else could be offered."""

    text: str
    answer: str
    others: Sequence[str]
    rival: tuple[str, ...] = ()
    """What else the question itself names: always offered."""


def _story(rng: SeededRng, theme: Theme, size: int, max_changes: int) -> Story:
    names = rng.sample(NAMES, size + max_changes)
    columns = [rng.sample(column.values, len(names)) for column in theme.columns]
    lines = dict(zip(names, zip(*columns, strict=True), strict=True))
    table = {name: lines[name] for name in names[:size]}
    rows, sentences = dict(table), []
    for name in names[size : size + rng.between(0, max_changes)]:
        if len(rows) > FEWEST_ROWS and rng.chance(0.5):
            gone = rng.pick(tuple(rows))
            del rows[gone]
            sentences.append(rng.pick(DELETED).format(gone))
        else:
            rows[name] = lines[name]
            sentences.append(rng.pick(ADDED).format(_line(name, lines[name])))
    return Story(_told(theme, table, sentences), theme, table, rows, len(sentences))


def _told(theme: Theme, table: dict[str, Row], sentences: list[str]) -> str:
    opening = f"Here is a table of {theme.many}. Its first line names the columns."
    head = _line("name", [f"{column.name} ({column.unit})" for column in theme.columns])
    return "\n".join([opening, head, *(_line(name, row) for name, row in table.items()), *sentences])


def _line(name: str, cells: Iterable[object]) -> str:
    return ", ".join([name, *map(str, cells)])


def _look_up(rng: SeededRng, story: Story) -> Question:
    column, name = rng.below(len(story.theme.columns)), rng.pick(tuple(story.rows))
    what, value = story.theme.columns[column], str(story.rows[name][column])
    if rng.chance(0.5):
        return Question(f"Which {story.theme.one} has the {what.name} {value}?", name, tuple(story.told()))
    values = [str(row[column]) for row in story.told().values()]
    return Question(f"What is the {what.name} of {name} in {what.unit}?", value, values)


def _most(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    name, word = rng.pick([(ranked[-1], column.most), (ranked[0], column.least)])
    return Question(f"Which {story.theme.one} is the {word}?", name, tuple(story.told()))


def _sum(rng: SeededRng, story: Story) -> Question:
    column = rng.below(len(story.theme.columns))
    total = sum(row[column] for row in story.rows.values())
    step = rng.between(1, min(9, (total - 1) // (WINDOW - 1)))
    lowest = total - step * rng.below(WINDOW)
    window = [str(lowest + step * place) for place in range(WINDOW)]
    text = f"What do the {story.theme.columns[column].plural} of all {story.theme.many} add up to?"
    return Question(text, str(total), window)


def _count(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    place = rng.below(len(ranked))
    word, answer = rng.pick([(column.more, len(ranked) - 1 - place), (column.less, place)])
    possible = [str(count) for count in range(max(len(story.rows), len(story.table)))]
    return Question(f"How many {story.theme.many} are {word} than {ranked[place]}?", str(answer), possible)


def _compare(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    low, high = (ranked[place] for place in sorted(rng.sample(range(len(ranked)), 2)))
    one, other = rng.shuffled([low, high])
    answer, rival, word = rng.pick([(high, low, column.more), (low, high, column.less)])
    return Question(f"Which of the two is {word}, {one} or {other}?", answer, tuple(story.told()), (rival,))


def _sort(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    by = f"{column.name}, lowest first"
    if rng.chance(0.25):
        by, ranked = "name, in alphabetical order", sorted(ranked)
    place = rng.below(len(ranked))
    text = f"If the {story.theme.many} are sorted by {by}, which comes {ORDINALS[place]}?"
    return Question(text, ranked[place], tuple(story.told()))


def _ranked(rng: SeededRng, story: Story) -> tuple[Column, list[str]]:
    """A column, and the names from its lowest value to its highest."""
    column = rng.below(len(story.theme.columns))
    return story.theme.columns[column], sorted(story.rows, key=lambda name: story.rows[name][column])


QUESTIONS: dict[str, Callable[[SeededRng, Story], Question]] = {
    "look-up": _look_up,
    "most": _most,
    "sum": _sum,
    "count": _count,
    "compare": _compare,
    "sort": _sort,
}


class TableDials(Section):
    """How large the tables are, how they change and what is asked."""

    rows: int = Field(5, ge=2, le=10)
    """Rows of the table before it changes."""
    max_changes: int = Field(2, ge=0, le=4)
    """Most rows that are added or deleted later."""
    questions: tuple[str, ...] = Field(tuple(QUESTIONS), min_length=1)
    """What is asked."""
    options: int = Field(5, ge=0, le=10)
    """Options offered; 0 for a free answer."""
    themes: tuple[str, ...] = Field(tuple(THEMES), min_length=1)
    """What the tables are about."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> TableDials:
        for dial, known in (("questions", tuple(QUESTIONS)), ("themes", tuple(THEMES))):
            if unknown := [name for name in getattr(self, dial) if name not in known]:
                raise ValueError(f"unknown {dial} {unknown}: choose from {', '.join(known)}")
        if self.options == 1 or self.options > self.rows:
            raise ValueError(
                f"options {self.options} must be from 2 to rows {self.rows}, since names are offered, or 0 for a free "
                f"answer"
            )
        return self


class PenguinsInATable:
    """Draws tables that change and asks about what they hold at the end."""

    dials_model: ClassVar[type[Section]] = TableDials

    def __init__(self, dials: TableDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One table with its changes, question and options."""
        story = _story(rng, THEMES[rng.pick(self.dials.themes)], self.dials.rows, self.dials.max_changes)
        kind = rng.pick(self.dials.questions)
        question = QUESTIONS[kind](rng, story)
        options = _options(rng, question, self.dials.options)
        query = f"{story.text}\n{question.text}"
        return Item(
            task="penguins_in_a_table",
            query=with_options(query, options) if options else query,
            references=accepted([options.index(question.answer)], options) if options else _free(question.answer),
            place=place,
            options=tuple(options) or None,
            group=content_key("penguins_in_a_table", story.text),
            metadata={"question": kind, "rows": len(story.rows), "changes": story.changes},
        )


def _options(rng: SeededRng, question: Question, size: int) -> list[str]:
    """The answer among others, in random order; nothing for a free answer."""
    if size == 0:
        return []
    named = [question.answer, *question.rival]
    others = [other for other in question.others if other not in named]
    return rng.shuffled(named + rng.sample(others, size - len(named)))


def _free(answer: str) -> tuple[str, ...]:
    """A free answer; numbers are accepted as words too."""
    spelled = answer.isdigit() and int(answer) < SPELLED_BELOW
    return (answer, number_word(int(answer))) if spelled else (answer,)
