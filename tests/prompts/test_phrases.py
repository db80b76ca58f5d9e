"""Phrases: a search that the words of a text rule out would have found nothing."""

import importlib
import pkgutil
import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hir_core.prompts
import hir_core.rewards.reading
from hir_core.prompts.phrases import Phrases, letter_words


def phrases():
    """Each `Phrases` of the readers, by module and name."""
    for package in (hir_core.prompts, hir_core.rewards.reading):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(found.name)).items():
                if isinstance(value, Phrases):
                    yield pytest.param(value.pattern, value, id=f"{found.name.rpartition('.')[2]}.{name}")


@pytest.mark.parametrize(("pattern", "words"), list(phrases()))
def test_each_match_of_a_pattern_holds_one_of_its_words(pattern, words):
    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(pattern))
    def check(text):
        if pattern.search(text):
            assert words.may_be_in(text)

    check()


def test_words_are_folded_as_regular_expressions_fold_them():
    for code in range(0x110000):
        character = chr(code)
        equal = {letter for letter in "abcdefghijklmnopqrstuvwxyz" if re.fullmatch(letter, character, re.IGNORECASE)}
        assert letter_words(character) == equal, hex(code)


@given(st.text(alphabet="noNO tT'’ſ_1.-é", max_size=12))
@example("isn't")
def test_a_search_finds_what_its_pattern_finds(text):
    words = Phrases(r"\bnot\b|n't\b", "not t")
    assert [match.span() for match in words.finditer(text)] == [match.span() for match in words.pattern.finditer(text)]
    for found, expected in (
        (words.search(text, 1), words.pattern.search(text, 1)),
        (words.match(text), words.pattern.match(text)),
    ):
        assert (found and found.span()) == (expected and expected.span())
