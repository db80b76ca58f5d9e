"""Word sorting: the words of the text in the order of their code points."""

import re
from math import factorial

import pytest
from generator_cases import rows_of

from hir_core.prompts.synthetic.word_sorting import WORDS


def words_in(query):
    return re.search(r": ([a-z]+(?:, [a-z]+)+)\.", query)[1].split(", ")


def sorted_by_hand(words):
    """By comparing code points one by one."""
    done = []
    for word in words:
        codes = [ord(character) for character in word]
        place = sum([ord(character) for character in other] < codes for other in done)
        done.insert(place, word)
    return done


@pytest.mark.parametrize("dials", [{}, {"shared_letters": 2, "max_words": 10}, {"min_words": 20}])
def test_comparing_code_points_sorts_the_words_of_the_text(dials):
    for row in rows_of("word_sorting", dials):
        words = words_in(row["query"])
        assert row["references"] == [" ".join(sorted_by_hand(words))], row["query"]
        assert dials.get("min_words", 2) <= len(words) == len(set(words)) <= dials.get("max_words", 20)
        assert len({word[: dials.get("shared_letters", 0)] for word in words}) == 1


def test_the_words_are_many_plain_and_different():
    assert len(set(WORDS)) == len(WORDS) > 800
    assert all(re.fullmatch("[a-z]{2,10}", word) for word in WORDS)


def test_copying_the_list_is_right_only_by_luck():
    rows = rows_of("word_sorting", size=3000)
    copied = sum(" ".join(words_in(row["query"])) == row["references"][0] for row in rows)
    luck = sum(1 / factorial(len(words_in(row["query"]))) for row in rows)  # lists of n words: once in n!
    assert abs(copied - luck) < 4 * luck**0.5
    assert luck / len(rows) < 0.06


def test_the_same_words_in_another_order_are_one_group():
    rows = rows_of("word_sorting", {"max_words": 2, "shared_letters": 2}, size=2000)
    groups = {}
    for row in rows:
        groups.setdefault(row["references"][0], set()).add(row["group"])
    assert len(groups) < len(rows), "some words should stand here in both orders"
    assert all(len(names) == 1 for names in groups.values())
    assert len(set.union(*groups.values())) == len(groups)
