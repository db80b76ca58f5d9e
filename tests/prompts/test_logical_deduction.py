"""Logical deduction: exactly one order satisfies the clues, and nothing else in the text points to the answer."""

import json
import re
from collections import Counter
from itertools import permutations

import pytest
from generator_cases import SIZE, before_options, evenly, right_text, rows_of

from hir_core.prompts.options import read_options
from hir_core.prompts.synthetic.logical_deduction import THEMES

NTH = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
EARLIER = r"ahead of|above|before|older|heavier|more than|left of"
LATER = r"behind|below|after|younger|lighter|less than|right of"
NEIGHBOURS = r"directly|right before|right after|with no other"


def parsed(query):
    """The things, the clues and the position asked for, parsed from the text."""
    opening, *sentences = re.split(r"(?<=[.?])\s", read_options(query).question)
    things = re.split(r", | and ", opening.split(": ")[1].rstrip("."))
    *clues, question = sentences
    return things, [clue_of(clue, things) for clue in clues], position_of(question, len(things))


def clue_of(sentence, things):
    text = sentence[0].lower() + sentence[1:] if sentence.startswith("The ") else sentence
    mentioned = sorted((thing for thing in things if thing in text), key=text.index)
    if len(mentioned) == 1:
        return ("at", mentioned[0], position_of(text.replace(mentioned[0], ""), len(things)))
    assert bool(re.search(EARLIER, text)) != bool(re.search(LATER, text)), text
    first, second = mentioned if re.search(EARLIER, text) else reversed(mentioned)
    return ("next" if re.search(NEIGHBOURS, text) else "before", first, second)


def position_of(text, things):
    nth = next((n for n, word in enumerate(NTH) if n and re.search(rf"\b{word}\b", text)), 0)
    from_the_end = re.search(r"\b(end|bottom|last|youngest|lightest|cheapest|right)\b", text)
    assert nth or from_the_end or re.search(r"\b(front|top|first|oldest|heaviest|most expensive|left)\b", text), text
    return things - 1 - nth if from_the_end else nth


def is_true(clue, order):
    kind, subject, other = clue
    if kind == "at":
        return order.index(subject) == other
    gap = order.index(other) - order.index(subject)
    return gap == 1 if kind == "next" else gap > 0


def orders_left(things, clues):
    return [order for order in permutations(things) if all(is_true(clue, order) for clue in clues)]


@pytest.mark.parametrize(("objects", "size"), [(2, 300), (3, SIZE), (5, SIZE), (7, 20)])
def test_trying_every_order_leaves_one_and_finds_who_stands_there(objects, size):
    for row in rows_of("logical_deduction", {"objects": objects}, size=size):
        things, clues, position = parsed(row["query"])
        (order,) = orders_left(things, clues)
        assert right_text(row) == order[position], row["query"]
        assert sorted(row["options"]) == sorted(things)
        assert len(things) == objects


def test_every_clue_is_needed():
    for row in rows_of("logical_deduction", {"objects": 5})[:200]:
        things, clues, _ = parsed(row["query"])
        for clue in clues:
            assert len(orders_left(things, [other for other in clues if other != clue])) > 1, row["query"]


def test_a_deduction_story_asked_about_several_places_is_one_group_however_worded():
    groups = {}
    for row in rows_of("logical_deduction", {"objects": 2, "themes": ["wall", "prices"]}, size=600):
        things, clues, _ = parsed(row["query"])
        story = (orders_left(things, clues)[0], tuple(sorted(clues)))
        groups.setdefault(story, []).append(row)
    assert len(groups) < 500, "many stories should stand here with both places"
    assert all(
        len({row["group"] for row in rows}) == len({row["split"] for row in rows}) == 1 for rows in groups.values()
    )
    assert len({row["group"] for rows in groups.values() for row in rows}) == len(groups)


def test_neither_first_name_nor_mentions_point_to_the_one_asked_for():
    rows = rows_of("logical_deduction", {"objects": 5}, size=2000)
    first = rare = often = 0
    for row in rows:
        things, _, _ = parsed(row["query"])
        mentions = {thing: before_options(row).lower().count(thing.lower()) for thing in things}
        first += right_text(row) == things[0]
        rare += right_text(row) == min(things, key=mentions.get)
        often += right_text(row) == max(things, key=mentions.get)
    for hits in (first, rare, often):
        assert abs(hits / len(rows) - 1 / 5) < 4 * (0.2 * 0.8 / len(rows)) ** 0.5


def test_neither_the_listing_nor_the_options_follow_the_order():
    asked, listed, offered = Counter(), Counter(), Counter()
    for row in rows_of("logical_deduction", {"objects": 5}, size=2000):
        things, _, position = parsed(row["query"])
        asked[position] += 1
        listed[(things.index(right_text(row)) - position) % 5] += 1
        offered[(row["options"].index(right_text(row)) - position) % 5] += 1
    assert all(evenly(counts, 5) for counts in (asked, listed, offered))


def test_absolute_share_decides_what_clues_say():
    def kinds(share):
        rows = rows_of("logical_deduction", {"objects": 5, "absolute_share": share}, size=200)
        return Counter(clue[0] for row in rows for clue in parsed(row["query"])[1])

    assert set(kinds(0)) == {"before", "next"}
    assert kinds(1) == {"at": 800}  # four places are enough, and the fifth follows
    assert kinds(0.2)["at"] < kinds(0.8)["at"]


def test_harder_dials_make_longer_stories():
    clues = [
        sum(json.loads(row["metadata"])["clues"] for row in rows_of("logical_deduction", {"objects": n}, size=100))
        for n in (3, 5, 7)
    ]
    assert clues[0] < clues[1] < clues[2]


def test_every_theme_is_drawn():
    rows = rows_of("logical_deduction", {"objects": 5})
    openings = Counter(re.sub(r"^\w+ ", "", before_options(row).split(":")[0]) for row in rows)
    assert set(openings) == {theme.opening.removeprefix("{} ") for theme in THEMES.values()}
    assert min(openings.values()) > SIZE / len(THEMES) / 2
    assert all(len(set(theme.things)) == len(theme.things) >= 8 for theme in THEMES.values())
    assert not any(re.search(r"[{}]|  |\. [a-z]", row["query"]) for row in rows)
