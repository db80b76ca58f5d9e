"""Numbers in texts: which are found, what they are worth, and which are refused as unclear."""

import time
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hir_core.prompts import number_search
from hir_core.prompts.number_search import find_numbers, standard_form
from hir_core.prompts.numbers import SPELLED_BELOW, number_word


def last_number(text, **settings):
    found = find_numbers(standard_form(text), **settings)
    return (found[-1].value, found[-1].problem) if found else (None, "no number")


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
        ("1 234", 1234),
        ("12 345 678", 12345678),
        ("125 000", 125000),
        (".5", Fraction(1, 2)),
        ("so it is.5", 5),
        ("1e3", 1000),
        ("2.5E-1", Fraction(1, 4)),
        ("1.5 × 10^3", 1500),
        ("1.5 × 10³", 1500),
        ("10²", 100),
        ("1.234.567", 1234567),
        ("1.250,50", Fraction(2501, 2)),
        ("4,2 cm", Fraction(21, 5)),
        ("2 and a half hours", Fraction(5, 2)),
        ("3 dollars and 50 cents", Fraction(7, 2)),
        ("half a million", 500_000),
        ("minus 5", -5),
        ("42 cm^2", 42),
        ("1/3", Fraction(1, 3)),
        ("2 1/2", Fraction(5, 2)),
        ("-2 1/2 cups", Fraction(-5, 2)),
        ("50%", Fraction(1, 2)),
        ("50 percent", Fraction(1, 2)),
        ("fifty per cent", Fraction(1, 2)),
        ("5 million", 5_000_000),
        ("5k", 5000),
        ("$1.5M", 1_500_000),
        ("$2b", 2_000_000_000),
        ("2 dozen", 24),
        ("10km", 10),
        ("5m", 5),
        ("**42**", 42),
        ("8 (eight)", 8),
        ("٨", 8),
        ("Eight.", 8),
        ("There are twenty one of them", 21),
        ("minus ninety-nine", -99),
        ("three hundred", 300),
        ("five hundred and six", 506),
        ("two thousand three hundred forty-five", 2345),
        ("a hundred", 100),
        ("a dozen eggs", 12),
        ("half a dozen", 6),
        ("two dozen", 24),
        ("three quarters", Fraction(3, 4)),
        ("two and a half", Fraction(5, 2)),
        ("two point five", Fraction(5, 2)),
        ("one, two, three", 3),
        ("No one knows, but seven came.", 7),
    ],
)
def test_numbers_are_read_as_people_write_them(text, number):
    assert last_number(text) == (number, "")


@pytest.mark.parametrize("number", range(SPELLED_BELOW))
def test_every_number_word_is_read_back(number):
    assert last_number(f"It is {number_word(number)}.") == last_number(str(number)) == (number, "")


@pytest.mark.parametrize(
    "text", ["", "none of them, and more", "NaN", "-inf", "H2O", "COVID-19", "the 3rd", "Step 2", "this one"]
)
def test_what_only_looks_like_a_number_is_none(text):
    assert last_number(text) == (None, "no number")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("3,14", "unclear number"),
        ("1,2,3", "unclear number"),
        ("1.2.3", "unclear number"),
        ("12:30", "unclear number"),
        ("10-12", "unclear number"),
        ("2024-05-01", "unclear number"),
        ("2^10", "unclear number"),
        ("5²", "unclear number"),
        ("1/0", "unclear number"),
        ("5B", "unclear number"),
        ("0x10", "unclear number"),
        ("2π", "unclear number"),
        ("√16", "unclear number"),
        ("more than 5", "unclear number"),
        ("two three", "unclear number"),
        ("hundred and", "no number"),
        ("1e999999999", "number out of range"),
        ("9" * 500, "number out of range"),
    ],
)
def test_what_could_be_several_is_not_guessed(text, problem):
    value, found = last_number(text)
    assert (value, found) == (None, problem) or (problem == "no number" and found == "")


def test_three_digits_before_others_may_be_numbers_of_their_own():
    assert [found.value for found in find_numbers(standard_form("100 200 300"))] == [100, 200, 300]


def test_numbers_of_a_numbered_list_are_left_out():
    text = standard_form("1. three apples\n2. 4 pears")
    assert [found.value for found in find_numbers(text)] == [4]
    assert [found.value for found in find_numbers(standard_form("42. That is all."))] == [42]


def test_a_percent_sign_may_mean_a_unit():
    assert last_number("50%", percent_is_hundredth=False) == (50, "")


@pytest.mark.parametrize(
    "piece",
    [
        ".",
        "1",
        "1,",
        "-1",
        "1e",
        "1 1/",
        "1/2 ",
        "9 1/2 ",
        "x10^",
        "1 x",
        "and ",
        "one ",
        "minus ",
        "\0",
        "א1",
        "1 234 ",
        "half a ",
    ],
)
def test_a_hundred_kilobytes_of_anything_are_read_at_once(piece):
    """It takes about 0.1 s; it would take minutes if the time grew with the square of the length."""
    started = time.process_time()
    find_numbers(standard_form(piece * (10**5 // len(piece)) + " seven"))
    assert time.process_time() - started < 5


SLOW_TO_DRAW = settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", ["_LABEL", "_BOUND", "_MINUS"])
def test_what_stands_before_a_number_is_only_passed_over_where_no_pattern_matches_it(name):
    @SLOW_TO_DRAW
    @given(st.from_regex(getattr(number_search, name)))
    def check(before):
        if before.isascii():
            assert before.rstrip(" (").lower().endswith(number_search._CUES)

    check()


@pytest.mark.parametrize("name", ["_ORDINAL", "_PART_OF_MORE", "_SUFFIX", "_SCALE", "_PERCENT"])
def test_what_follows_a_number_is_only_passed_over_where_no_pattern_matches_it(name):
    pattern = getattr(number_search, name)

    @SLOW_TO_DRAW
    @given(st.from_regex(pattern))
    def check(after):
        if pattern.match(after):
            assert number_search._MAY_MATTER.match(after)

    check()
