"""The synthetic task `penguins_in_a_table`: answer a question about a table that later sentences change.

The table is written line by line, the names of the columns first. Then rows are added or deleted, and one question
looks a value up, asks for the largest or smallest value, adds up a column, counts, compares two rows, or sorts. No
value occurs twice in a column, so every question has one answer. Options for a name are other names of the story,
deleted ones included; options for a value come from the same column; options for a sum are equally far apart, and the
right one can be any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.numbers import number_references
from hir_core.prompts.options import option_references, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known
from hir_core.prompts.synthetic.vocabulary import ORDINALS
from hir_core.schemas import content_key


class Column(NamedTuple):
    """A column: its name and plural, its unit, its possible values, and the words for larger and smaller values."""

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

    singular: str
    plural: str
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
FEWEST_ROWS = 2  # rows are not deleted below this number
SUM_OPTIONS = 10  # equally distant numbers around a sum, from which its options are drawn

Row = tuple[int, ...]


class Story(NamedTuple):
    """A table with its changes: its text, its rows at the beginning and at the end."""

    text: str
    theme: Theme
    first_rows: dict[str, Row]
    rows: dict[str, Row]
    """The rows at the end, which the question is about."""
    changes: int

    def all_rows(self) -> dict[str, Row]:
        """The rows at the beginning and those at the end, deleted ones included: all that options may name."""
        return self.first_rows | self.rows


class Question(NamedTuple):
    """A question with its answer, and the wrong answers that can be offered."""

    text: str
    answer: str
    others: Sequence[str]
    rival: tuple[str, ...] = ()
    """The other name in the question itself, which is always offered."""


def _story(rng: SeededRng, theme: Theme, size: int, max_changes: int) -> Story:
    names = rng.sample(NAMES, size + max_changes)
    columns = [rng.sample(column.values, len(names)) for column in theme.columns]
    drawn = dict(zip(names, zip(*columns, strict=True), strict=True))
    first_rows = {name: drawn[name] for name in names[:size]}
    rows, changes = dict(first_rows), []
    for name in names[size : size + rng.between(0, max_changes)]:
        if len(rows) > FEWEST_ROWS and rng.chance(0.5):
            deleted = rng.pick(tuple(rows))
            del rows[deleted]
            changes.append(rng.pick(DELETED).format(deleted))
        else:
            rows[name] = drawn[name]
            changes.append(rng.pick(ADDED).format(_line(name, drawn[name])))
    opening = f"Here is a table of {theme.plural}. Its first line names the columns."
    header = _line("name", [f"{column.name} ({column.unit})" for column in theme.columns])
    text = "\n".join([opening, header, *(_line(name, row) for name, row in first_rows.items()), *changes])
    return Story(text, theme, first_rows, rows, len(changes))


def _line(name: str, cells: Iterable[object]) -> str:
    return ", ".join([name, *map(str, cells)])


# --- questions -------------------------------------------------------------------------------------------------------


def _look_up(rng: SeededRng, story: Story) -> Question:
    index, name = rng.below(len(story.theme.columns)), rng.pick(tuple(story.rows))
    column, value = story.theme.columns[index], str(story.rows[name][index])
    if rng.chance(0.5):
        text = f"Which {story.theme.singular} has the {column.name} {value}?"
        return Question(text, name, tuple(story.all_rows()))
    values = [str(row[index]) for row in story.all_rows().values()]
    return Question(f"What is the {column.name} of {name} in {column.unit}?", value, values)


def _most(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    name, word = rng.pick([(ranked[-1], column.most), (ranked[0], column.least)])
    return Question(f"Which {story.theme.singular} is the {word}?", name, tuple(story.all_rows()))


def _sum(rng: SeededRng, story: Story) -> Question:
    index = rng.below(len(story.theme.columns))
    total = sum(row[index] for row in story.rows.values())
    step = rng.between(1, min(9, (total - 1) // (SUM_OPTIONS - 1)))
    lowest = total - step * rng.below(SUM_OPTIONS)
    numbers = [str(lowest + step * n) for n in range(SUM_OPTIONS)]
    text = f"What do the {story.theme.columns[index].plural} of all {story.theme.plural} add up to?"
    return Question(text, str(total), numbers)


def _count(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    rank = rng.below(len(ranked))
    word, answer = rng.pick([(column.more, len(ranked) - 1 - rank), (column.less, rank)])
    possible = [str(count) for count in range(max(len(story.rows), len(story.first_rows)))]
    return Question(f"How many {story.theme.plural} are {word} than {ranked[rank]}?", str(answer), possible)


def _compare(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    low, high = (ranked[rank] for rank in sorted(rng.sample(range(len(ranked)), 2)))
    names = " or ".join(rng.shuffled([low, high]))
    answer, rival, word = rng.pick([(high, low, column.more), (low, high, column.less)])
    return Question(f"Which of the two is {word}, {names}?", answer, tuple(story.all_rows()), (rival,))


def _sort(rng: SeededRng, story: Story) -> Question:
    column, ranked = _ranked(rng, story)
    criterion = f"{column.name}, lowest first"
    if rng.chance(0.25):
        criterion, ranked = "name, in alphabetical order", sorted(ranked)
    rank = rng.below(len(ranked))
    text = f"If the {story.theme.plural} are sorted by {criterion}, which comes {ORDINALS[rank]}?"
    return Question(text, ranked[rank], tuple(story.all_rows()))


def _ranked(rng: SeededRng, story: Story) -> tuple[Column, list[str]]:
    """A column, and the names from its lowest value to its highest."""
    index = rng.below(len(story.theme.columns))
    return story.theme.columns[index], sorted(story.rows, key=lambda name: story.rows[name][index])


QUESTIONS: dict[str, Callable[[SeededRng, Story], Question]] = {
    "look-up": _look_up,
    "most": _most,
    "sum": _sum,
    "count": _count,
    "compare": _compare,
    "sort": _sort,
}


# --- the task --------------------------------------------------------------------------------------------------------


class TableDials(Section):
    """How large the tables are, how they change and what is asked."""

    rows: int = Field(5, ge=2, le=10)
    """Rows of the table before it changes."""
    max_changes: int = Field(2, ge=0, le=4)
    """Most rows that are added or deleted later."""
    questions: tuple[str, ...] = Field(tuple(QUESTIONS), min_length=1)
    """Kinds of questions."""
    options: int = Field(5, ge=0, le=10)
    """Options offered; 0 for a free answer."""
    themes: tuple[str, ...] = Field(tuple(THEMES), min_length=1)
    """What the tables are about."""

    @model_validator(mode="after")
    def _settings_fit(self) -> TableDials:
        require_known("questions", self.questions, QUESTIONS)
        require_known("themes", self.themes, THEMES)
        if self.options == 1 or self.options > self.rows:
            raise ValueError(
                f"options {self.options} must be from 2 to rows {self.rows}, because names are offered, or 0 for a "
                f"free answer"
            )
        return self


class PenguinsInATable:
    """Draws a table that changes and asks about what it holds at the end."""

    dials_model: ClassVar[type[Section]] = TableDials

    def __init__(self, dials: TableDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One table with its changes, question and options."""
        story = _story(rng, THEMES[rng.pick(self.dials.themes)], self.dials.rows, self.dials.max_changes)
        kind = rng.pick(self.dials.questions)
        question = QUESTIONS[kind](rng, story)
        query, answer = f"{story.text}\n{question.text}", question.answer
        item = Item(
            task="penguins_in_a_table",
            query=query,
            references=number_references(int(answer)) if answer.isdigit() else (answer,),
            origin=origin,
            group=content_key("penguins_in_a_table", story.text),
            metadata={"question": kind, "rows": len(story.rows), "changes": story.changes},
        )
        if self.dials.options == 0:
            return item
        always = [answer, *question.rival]
        others = [other for other in question.others if other not in always]
        options = rng.shuffled(always + rng.sample(others, self.dials.options - len(always)))
        return replace(
            item,
            query=with_options(query, options),
            references=option_references([options.index(answer)], options),
            options=tuple(options),
        )
