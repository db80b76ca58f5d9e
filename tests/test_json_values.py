"""JSON from others: what is kept, what becomes None, and what is refused."""

import json

import pytest

from hir_core.json_values import DEEPEST, parse_json


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_numbers_that_are_not_finite_become_none_wherever_they_stand():
    text = '{"a": NaN, "b": [1.5, -Infinity, {"c": 1e999}], "d": 12345678901234567890, "e": "é😀"}'
    expected = {"a": None, "b": [1.5, None, {"c": None}], "d": 12345678901234567890, "e": "é😀"}
    assert parse_json(text) == parse_json(text.encode("utf-16")) == expected


def test_nesting_is_bounded_at_any_place():
    assert json.dumps(parse_json(nested(DEEPEST)), separators=(",", ":")) == nested(DEEPEST)
    for text in (nested(DEEPEST + 1), f'{{"a": {nested(DEEPEST)}}}', nested(900), nested(100_000)):
        with pytest.raises(ValueError, match="more than 100 deep"):
            parse_json(text)


@pytest.mark.parametrize("text", ['"\\ud800"', '{"a": ["\\udfff"]}', '{"\\ud800": 1}'])
def test_halves_of_characters_are_refused_unless_they_are_asked_for(text):
    with pytest.raises(UnicodeEncodeError):
        parse_json(text)
    assert parse_json(text, lone_surrogates=True) == json.loads(text)


@pytest.mark.parametrize("text", ["", "{", "[1,]", "1" * 5_000, b"\xff", b"\xef\xbb\xbf{}x"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)
