"""The reward `numeric`: what is read from an answer, and what counts as equal."""

import pytest
from pydantic import ValidationError
from reward_tables import prompts, verdict

from hir_core.config import NumericReward
from hir_core.errors import ConfigError
from hir_core.rewards.registry import build_reward


def numeric(**settings):
    return NumericReward(type="numeric", **settings)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "none of them, and more",
        "H2O",
        "3,14",
        "12:30",
        "10-12",
        "2^10",
        "7 or 8",
        "more than 3",
        "Add 3 to both sides.",
        "You can divide by 3 first.",
    ],
)
def test_what_is_no_number_or_could_be_several_is_not_guessed(text):
    assert verdict(numeric(), text, {"references": ["3"]})[0] is None


@pytest.mark.parametrize(
    ("reference", "texts"),
    [
        ("0.75", [r"\frac{3}{4}", r"$\dfrac34$", "three quarters", "75 percent", r"75\%", "¾"]),
        ("1234", ["1,234", "1 234", "1{,}234", r"1\,234", "$1,234.00", "one thousand two hundred and thirty-four"]),
        ("5000000000000", ["$5T", "5 trillion"]),
        ("1500000", ["$1.5M", "1.5 million", "1 500 000"]),
        (
            "42",
            [
                r"\boxed{42}",
                "The answer is 42, not 43.",
                "42 apples",
                "**42**",
                "40 + 2 = 42",
                "43. Wait, actually 42.",
            ],
        ),
    ],
)
def test_a_number_is_read_however_it_is_written(reference, texts):
    assert [verdict(numeric(), text, {"references": [reference]})[0] for text in texts] == [1.0] * len(texts)


@pytest.mark.parametrize(
    ("settings", "completion", "reference", "score"),
    [
        ({}, "0.3333333333", "1/3", 1.0),
        ({}, "0.333", "1/3", 0.0),
        ({"absolute_tolerance": 0.001}, "0.333", "1/3", 1.0),
        ({"relative_tolerance": 0.01}, "99", "100", 1.0),
        ({"relative_tolerance": 0.01}, "98.9", "100", 0.0),
        ({"relative_tolerance": 0.01}, "-99", "-100", 1.0),
        ({"relative_tolerance": 0.0}, "100000000000000000001", "100000000000000000000", 0.0),
        ({}, "50%", "0.5", 1.0),
        ({}, "50%", "50", 0.0),
        ({"percent": "unit"}, "50%", "50", 1.0),
        ({}, "1,000", "1000", 1.0),
        ({}, "four", "4", 1.0),
        ({}, "4", "four", 1.0),
    ],
)
def test_numbers_are_equal_within_the_larger_tolerance(settings, completion, reference, score):
    assert verdict(numeric(**settings), completion, {"references": ["none", reference]})[0] == score


def test_the_reason_tells_what_was_expected():
    row = {"references": ["8", "eight", "8.5"]}
    assert verdict(numeric(), "It is 9", row) == (0.0, "expected '8 or eight or 8.5'")
    assert verdict(numeric(), "It is 8.50", row) == (1.0, "equals '8.5'")
    assert verdict(numeric(), "1,2", row) == (None, "unclear number: '1,2'")


def test_with_a_marker_the_first_number_after_its_last_place_counts():
    row = {"references": ["2 + 6 = 8\n#### 8"]}
    marked = numeric(marker="####")
    assert verdict(marked, "#### 7, no:\n#### 8 apples for 3 people", row)[0] == 1.0
    assert verdict(marked, "8", row) == (None, "no '####': '8'")
    assert verdict(marked, "#### many", row) == (None, "no number: '#### many'")
    assert verdict(numeric(marker="answer:"), "3 + 5, so ANSWER: 8. (1 step)", {"references": ["8"]})[0] == 1.0


def test_prompts_without_a_number_to_compare_with_stop_the_run():
    with pytest.raises(ConfigError, match=r"2 of 3 prompts cannot be judged; the first is p1 .* holds a number"):
        build_reward(numeric()).check_prompts(
            prompts({"references": ["8"]}, {"references": ["(A)", "nan"]}, {"query": "How many?"})
        )


@pytest.mark.parametrize("tolerance", [-1, float("nan"), float("inf")])
def test_a_tolerance_is_a_finite_number_of_at_least_0(tolerance):
    with pytest.raises(ValidationError):
        numeric(absolute_tolerance=tolerance)


def test_a_sentence_said_twice_concludes_what_was_calculated_in_between():
    row = {"query": "What is the bill?", "references": ["12"]}
    calculated = "The bill is 12. Each of 3 guests pays 4, and 3 * 4 = 12. The bill is 12."
    assert verdict(numeric(), calculated, row)[0] == 1
    assert verdict(numeric(), calculated.replace("3 * 4 = 12", "nobody pays more"), row)[0] is None
