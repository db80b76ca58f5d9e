"""The reward `numeric`: which numbers are read, which are refused as unclear, and what counts as equal."""

import time
from fractions import Fraction

import pytest
from pydantic import ValidationError
from reward_tables import prompts, verdict

from hir_core.config import NumericReward
from hir_core.errors import ConfigError
from hir_core.prompts.numbers import SPELLED_BELOW, number_word, read_number
from hir_core.rewards.registry import build_reward


def numeric(**settings):
    return NumericReward(type="numeric", **settings)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42),
        ("First 3, then 4; in all 7.", 7),
        ("-5", -5),
        ("−5", -5),
        ("–5", -5),
        ("x=-5", -5),
        ("5 + 3 = 8", 8),
        ("5-3=2", 2),
        ("-$1,234.50", Fraction(-12345, 10)),
        ("$-5$", -5),
        ("1'234'567", 1234567),
        ("1\u00a0234", 1234),
        (".5", Fraction(1, 2)),
        ("so it is.5", 5),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("1.5 × 10^3", 1500),
        (r"1.5 \times 10^{-3}", Fraction(3, 2000)),
        ("1/3", Fraction(1, 3)),
        ("2 1/2", Fraction(5, 2)),
        ("-2 1/2 cups", Fraction(-5, 2)),
        ("50%", Fraction(1, 2)),
        (r"12.5\%", Fraction(1, 8)),
        ("5 million", 5_000_000),
        ("10km", 10),
        (r"\boxed{42}", 42),
        ("**42**", 42),
        ("8 (eight)", 8),
        ("٨", 8),
        ("Eight.", 8),
        ("There are twenty one of them", 21),
        ("minus ninety-nine", -99),
        ("three hundred", 300),
        ("one, two, three", 3),
    ],
)
def test_numbers_are_read_as_people_write_them(text, number):
    assert read_number(text) == (number, "")


@pytest.mark.parametrize("number", range(SPELLED_BELOW))
def test_every_number_word_is_read_back(number):
    assert read_number(f"It is {number_word(number)}.") == read_number(str(number)) == (number, "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no number"),
        ("none of them, and more", "no number"),
        ("NaN", "no number"),
        ("-inf", "no number"),
        ("H2O", "no number"),
        ("COVID-19", "no number"),
        ("½", "no number"),
        ("3,14", "unclear number"),
        ("1,2,3", "unclear number"),
        ("1.2.3", "unclear number"),
        ("12:30", "unclear number"),
        ("10-12", "unclear number"),
        ("2024-05-01", "unclear number"),
        ("2^10", "unclear number"),
        ("10²", "unclear number"),
        ("1/0", "unclear number"),
        ("5k", "unclear number"),
        ("0x10", "unclear number"),
        ("five hundred and six", "unclear number"),
        ("two minus three", "unclear number"),
        ("1e999999999", "number out of range"),
        ("9" * 500, "number out of range"),
    ],
)
def test_what_is_no_number_or_could_be_several_is_not_guessed(text, problem):
    assert read_number(text) == (None, problem)
    assert verdict(numeric(), text, {"references": ["3"]})[0] is None


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


@pytest.mark.parametrize(
    "piece", [".", "1", "1,", "-1", "1e", "1 1/", "1/2 ", "9 1/2 ", "x10^", "1 x", "and ", "one ", "minus ", "\0", "א1"]
)
def test_a_hundred_kilobytes_of_anything_are_read_at_once(piece):
    """It takes about 0.1 s; it would take minutes if the time grew with the square of the length."""
    started = time.process_time()
    read_number(piece * (10**5 // len(piece)) + " seven")
    assert time.process_time() - started < 5
