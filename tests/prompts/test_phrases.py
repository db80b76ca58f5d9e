"""Phrases: a search that the words of a text rule out would have found nothing."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import hir_core.prompts
import hir_core.rewards.reading
from hir_core.prompts.phrases import FirstWords, Phrases, letter_words
from hir_core.rewards.reading import options

VERDICTS = Path(__file__).parent.parent / "rewards" / "verdicts"


def phrases():
    """Each `Phrases` of the readers, by module and name."""
    for package in (hir_core.prompts, hir_core.rewards.reading):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(found.name)).items():
                if isinstance(value, Phrases):
                    yield pytest.param(value.pattern, value, id=f"{found.name.rpartition('.')[2]}.{name}")


@pytest.mark.parametrize(("pattern", "words"), list(phrases()))
def test_each_match_of_a_pattern_holds_one_of_its_words(pattern, words):
    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(pattern))
    def check(text):
        if pattern.search(text):
            assert words.may_be_in(text)

    check()


@pytest.mark.parametrize(("pattern", "words"), list(phrases()))
def test_nothing_is_missed_in_natural_outputs(pattern, words):
    lines = {line for path in VERDICTS.glob("*.yaml") for line in path.read_text(encoding="utf-8").splitlines()}
    beginnings = {line[: answer.start()] for line in lines for answer in re.finditer(r"\d+|\([A-Z]\)", line)}
    found = [line for line in lines | beginnings if pattern.search(line)]
    assert found
    assert [line for line in found if not words.may_be_in(line)] == []


def searches():
    """Each pattern whose first words are known, with them."""
    yield pytest.param(options._LETTER, options._LETTER_WORDS, id="options._LETTER")
    for _, words in (parameter.values for parameter in phrases()):
        if words._first:
            yield pytest.param(words.pattern, words._first, id=words.pattern.pattern[:20])


@pytest.mark.parametrize(("pattern", "first"), list(searches()))
def test_a_search_from_first_words_finds_what_the_pattern_finds(pattern, first, monkeypatch):
    monkeypatch.setattr("hir_core.prompts.phrases._SHORT", 0)
    lines = sorted({line for path in VERDICTS.glob("*.yaml") for line in path.read_text(encoding="utf-8").splitlines()})
    texts = lines + [f"{one[:40]}{glue}{other}" for one, other in zip(lines, lines[7:], strict=False)
                     for glue in ("", " ", ".\n\n", ", no, ", "\n** ")]  # fmt: skip
    expected = [[match.span() for match in pattern.finditer(text)] for text in texts]
    assert sum(map(len, expected)) > 100
    assert [[match.span() for match in first.finditer(pattern, text)] for text in texts] == expected

    @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(pattern))
    def check(text):
        assert [match.span() for match in first.finditer(pattern, text)] == [m.span() for m in pattern.finditer(text)]

    check()


def test_a_short_and_a_long_text_are_searched_alike():
    pattern, first = re.compile(r"(?:[.] )?\b(?:(?:let )?us|on second thought)\b"), FirstWords("us", "let", "on second")
    for text in ("us. let us. us", "us. us. let us us on second thought", "focus, let us; on_second thought"):
        for longer in (text, "x " * 60 + text):
            assert [m[0] for m in first.finditer(pattern, longer)] == [m[0] for m in pattern.finditer(longer)]


def test_words_are_folded_as_regular_expressions_fold_them():
    letters = "abcdefghijklmnopqrstuvwxyz"
    characters = "".join(map(chr, range(0x110000)))
    like_letters = re.findall("[a-z]", characters, re.IGNORECASE)
    for character in like_letters:
        equal = {letter for letter in letters if re.fullmatch(letter, character, re.IGNORECASE)}
        assert letter_words(character) == equal, hex(ord(character))
    assert letter_words("".join(set(characters) - set(like_letters))) == set()


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
