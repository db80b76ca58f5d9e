"""Penguins in a table: the text's table is changed and evaluated by hand; options do not betray the answer."""

import json
import re
from collections import Counter

import pytest
from generator_cases import SIZE, before_options, evenly, right_text, rows_of

from hir_core.schemas import content_key

NTH = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh"),
    *("eighth", "ninth", "tenth", "eleventh", "twelfth", "thirteenth", "fourteenth"),
)
WORDS_FOR = {  # more and less, most and least of each column
    "age": "older younger oldest youngest",
    "height": "taller shorter tallest shortest",
    "length": "longer shorter longest shortest",
    "weight": "heavier lighter heaviest lightest",
    "speed": "faster slower fastest slowest",
    "price": "more_expensive cheaper most_expensive cheapest",
}


def table_at_the_end(text):
    """The rows that stand once all sentences are followed, and the question."""
    _, head, *lines, question = text.split("\n")
    columns = [name.split(" (")[0] for name in head.split(", ")[1:]]
    rows = {}
    for line in lines:
        if match := re.search(r"(\w+)((?:, \d+){3})\.?$", line):
            rows[match[1]] = dict(zip(columns, map(int, re.findall(r"\d+", match[2])), strict=True))
        else:
            (gone,) = [name for name in rows if re.search(rf"\b{name}\b", line)]
            del rows[gone]
    return rows, question


def score_by(word, rows):
    """How much each has of what a comparative or superlative says: little is much of `younger`."""
    word = word.replace(" ", "_")
    (column,) = [column for column in next(iter(rows.values())) if word in WORDS_FOR[column].split()]
    sign = -1 if WORDS_FOR[column].split().index(word) % 2 else 1
    return {name: sign * row[column] for name, row in rows.items()}


def answered(rows, question):
    if match := re.fullmatch(r"What is the (\w+) of (\w+) in \S+\?", question):
        return str(rows[match[2]][match[1]])
    if match := re.fullmatch(r"Which \w+ has the (\w+) (\d+)\?", question):
        (name,) = [name for name, row in rows.items() if row[match[1]] == int(match[2])]
        return name
    if match := re.fullmatch(r"Which \w+ is the (.*)\?", question):
        scores = score_by(match[1], rows)
        assert list(scores.values()).count(max(scores.values())) == 1
        return max(scores, key=scores.get)
    if match := re.fullmatch(r"What do the (\w+)s of all \w+ add up to\?", question):
        return str(sum(row[match[1]] for row in rows.values()))
    if match := re.fullmatch(r"How many \w+ are (.*) than (\w+)\?", question):
        scores = score_by(match[1], rows)
        return str(sum(score > scores[match[2]] for score in scores.values()))
    if match := re.fullmatch(r"Which of the two is (.*), (\w+) or (\w+)\?", question):
        scores = score_by(match[1], rows)
        return max(match[2], match[3], key=scores.get)
    by, nth = re.fullmatch(r"If the \w+ are sorted by (\w+), .*, which comes (\w+)\?", question).groups()
    ranked = sorted(rows, key=lambda name: name if by == "name" else rows[name][by])
    return ranked[NTH.index(nth)]


@pytest.mark.parametrize(
    "dials", [{}, {"options": 0}, {"rows": 10, "max_changes": 4}, {"rows": 2, "max_changes": 0, "options": 2}]
)
def test_following_the_table_finds_the_same_answer(dials):
    kinds = Counter()
    for row in rows_of("penguins_in_a_table", dials):
        table, question = table_at_the_end(before_options(row))
        assert answered(table, question) == right_text(row), row["query"]
        facts = json.loads(row["metadata"])
        kinds[facts["question"]] += 1
        assert facts["rows"] == len(table)
        assert facts["changes"] <= dials.get("max_changes", 2)
    assert len(kinds) == 6
    assert min(kinds.values()) > 100


def test_no_value_comes_twice_in_a_column():
    for row in rows_of("penguins_in_a_table", {"rows": 10, "max_changes": 4}):
        table, _ = table_at_the_end(before_options(row))
        for column in next(iter(table.values())):
            assert len({values[column] for values in table.values()}) == len(table)


def test_the_right_sum_has_any_rank_among_the_options():
    rows = rows_of("penguins_in_a_table", {"questions": ["sum"]}, size=2000)
    ranks = Counter(sorted(map(int, row["options"])).index(int(right_text(row))) for row in rows)
    assert evenly(ranks, 5)
    assert all(int(option) > 0 for row in rows for option in row["options"])


def test_counts_are_even_and_their_options_do_not_betray_them():
    rows = rows_of("penguins_in_a_table", {"questions": ["count"], "max_changes": 0}, size=2000)
    assert evenly(Counter(int(right_text(row)) for row in rows), 5)
    assert all(sorted(row["options"]) == list("01234") for row in rows)


def test_compared_two_are_both_offered_and_win_equally_often():
    rows = rows_of("penguins_in_a_table", {"questions": ["compare"], "options": 2}, size=SIZE)
    last = {"more": Counter(), "less": Counter()}
    for row in rows:
        word, first, second = re.search(r"two is (.*), (\w+) or (\w+)\?", row["query"]).groups()
        assert {first, second} == set(row["options"])
        more = any(words.startswith(word.replace(" ", "_")) for words in WORDS_FOR.values())
        last["more" if more else "less"][right_text(row) == second] += 1
    assert all(evenly(counts, 2) for counts in last.values()), "neither word may favour the one named first"


def test_the_group_is_decided_by_the_table_and_its_changes_alone():
    for row in rows_of("penguins_in_a_table"):
        story = before_options(row).rsplit("\n", 1)[0]
        assert row["group"] == content_key("penguins_in_a_table", story)


def test_changes_come_as_often_as_their_dial_says():
    def changed(most):
        rows = rows_of("penguins_in_a_table", {"max_changes": most}, size=900)
        return Counter(json.loads(row["metadata"])["changes"] for row in rows)

    assert changed(0) == {0: 900}
    assert evenly(changed(2), 3)


def test_free_numbers_are_accepted_as_words():
    rows = rows_of("penguins_in_a_table", {"options": 0, "questions": ["count"]}, size=100)
    words = {"0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six"}
    assert all(row["references"][1] == words[row["references"][0]] for row in rows)
