"""The reward `graded`: how much of a sequence is right, from its beginning or by the order of its pairs."""

from itertools import combinations, permutations

import pytest
from reward_tables import prompts, samples, verdict

from hir_core.config import GradedReward
from hir_core.errors import ConfigError
from hir_core.rewards.graded import items_of, order_share
from hir_core.rewards.registry import build_reward

PREFIX, KENDALL = GradedReward(type="graded"), GradedReward(type="graded", measure="kendall")
FRUITS = {"references": ["fig kiwi lime plum"]}


@pytest.mark.parametrize(
    ("completion", "prefix", "kendall"),
    [
        ("fig kiwi lime plum", 1.0, 1.0),
        ("Fig, KIWI; lime,\nplum.", 1.0, 1.0),
        ("1. fig\n2. kiwi\n3. lime\n4. plum", 1.0, 1.0),
        ("- fig\n- kiwi\n- lime\n- plum", 1.0, 1.0),
        ("fig kiwi plum lime", 2 / 4, 5 / 6),
        ("plum lime kiwi fig", 0.0, 0.0),
        ("kiwi lime plum", 0.0, 3 / 6),
        ("fig kiwi", 2 / 4, 1 / 6),
        ("fig kiwi lime plum quince", 4 / 5, 6 / 10),
        ("fig fig kiwi lime plum", 1 / 5, 6 / 10),
        ("sorted fig kiwi lime plum", 0.0, 6 / 10),
    ],
)
def test_hand_computed_grades(completion, prefix, kendall):
    assert verdict(PREFIX, completion, FRUITS)[0] == prefix
    assert verdict(KENDALL, completion, FRUITS)[0] == kendall


def test_only_the_whole_sequence_has_grade_1():
    for order in permutations("abcd"):
        for config in (PREFIX, KENDALL):
            assert (verdict(config, " ".join(order), {"references": ["a b c d"]})[0] == 1) == (order == (*"abcd",))


def test_the_order_share_of_a_permutation_is_kendalls_tau_moved_to_0_and_1():
    expected = items_of("a b c d e")
    for order in permutations(expected):
        signs = [1 if first < second else -1 for first, second in combinations(order, 2)]
        assert order_share(order, expected) == pytest.approx((sum(signs) / len(signs) + 1) / 2)


def test_equal_items_are_told_apart_by_their_order():
    row = {"references": ["fig fig plum"]}
    assert verdict(KENDALL, "fig fig plum", row)[0] == 1.0
    assert verdict(KENDALL, "fig plum fig", row)[0] == pytest.approx(2 / 3)
    assert verdict(PREFIX, "fig plum", row)[0] == pytest.approx(1 / 3)


def test_one_item_is_right_or_not():
    row = {"references": ["fig"]}
    for config in (PREFIX, KENDALL):
        assert [verdict(config, text, row)[0] for text in ("fig", "fig plum", "plum")] == [
            1.0,
            0.5 * (config is PREFIX),
            None,
        ]


def test_the_best_of_several_references_counts():
    row = {"references": ["a b c", "c b a"]}
    assert verdict(PREFIX, "c b a", row) == (1.0, "3 items for 3, expected 'c b a'")


def test_numbers_in_front_of_items_are_kept_where_items_are_numbers():
    row = {"references": ["1 2 3"]}
    assert [verdict(PREFIX, text, row)[0] for text in ("1 2 3", "1. 2. 3.", "1, 3, 2")] == [1.0, 1.0, 1 / 3]


def test_what_holds_none_of_the_items_cannot_be_judged():
    for text in ("", " ,;. ", "I will not sort.", "\0", "ﬁgs"):
        score, reason = verdict(PREFIX, text, FRUITS)
        assert score is None
        assert reason.startswith("names no item: ")


def test_with_a_marker_only_what_follows_is_graded():
    marked = GradedReward(type="graded", marker="sorted:")
    assert verdict(marked, "plum fig. Sorted: fig kiwi lime plum", FRUITS)[0] == 1.0
    assert verdict(marked, "fig kiwi lime plum", FRUITS) == (None, "no 'sorted:': 'fig kiwi lime plum'")


@pytest.mark.parametrize("config", [PREFIX, KENDALL], ids=lambda config: config.measure)
@pytest.mark.parametrize("piece", ["fig ", "x,", "1. ", "...", "שלום ", "fig\0"])
def test_a_hundred_kilobytes_of_anything_have_a_low_grade_or_none(config, piece):
    score, _ = verdict(config, piece * (10**5 // len(piece)), FRUITS)
    assert score is None or score < 1e-4


def test_a_completion_with_none_of_the_items_names_no_answer():
    scored = build_reward(PREFIX).score(samples("who knows?", "fig"), prompts(FRUITS))
    assert scored["outcome"].to_list() == ["no_answer", "scored"]


def test_prompts_without_a_sequence_stop_the_run():
    with pytest.raises(ConfigError, match=r"2 of 2 prompts cannot be judged; the first is p0 .* each one a sequence"):
        build_reward(PREFIX).check_prompts(prompts({}, {"references": [" . "]}))
