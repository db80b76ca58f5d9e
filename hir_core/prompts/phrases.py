"""`Phrases`, a regular expression that is only tried on texts with one of the words that its matches hold.

Most texts have none of these words, and to look for a word in a set takes a hundredth of the time of the search. Where
the words are known with which a match begins, the expression is only tried there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache


class _Letters(dict[int, str]):
    """For `str.translate`: each letter in lower case, and a blank for every other character."""

    def __missing__(self, code: int) -> str:
        # The four others are the characters beyond ASCII that `re` takes for a letter where case does not count.
        letter = {"\u0130": "i", "\u0131": "i", "\u017f": "s", "\u212a": "k"}.get(chr(code), chr(code).lower())
        self[code] = letter if "a" <= letter <= "z" else " "
        return self[code]


_LETTERS = _Letters()


@lru_cache(maxsize=256)  # many patterns are tried on the same text
def letter_words(text: str) -> frozenset[str]:
    """The words of a text in lower case, where all but the letters from a to z separates them."""
    return frozenset(_letters(text).split())


@lru_cache(maxsize=64)
def _letters(text: str) -> str:
    """The letters of a text in lower case, with blanks for all other characters, and a blank before and after them."""
    return f" {text.translate(_LETTERS)} "


_SHORT = 20
"""Characters of a text in which a pattern is found sooner than the words with which its matches begin."""


class FirstWords:
    """Words with which every match of a pattern begins, or with characters before them that are no letters or digits.

    Args:
        words: of letters in lower case; several words with a blank between them count as one.
    """

    def __init__(self, *words: str) -> None:
        self._words = {word.rpartition(" ")[2]: f" {word} " for word in words}
        self._last_words = frozenset(self._words)

    def finditer(self, pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
        """All matches in a text, in order, as `pattern.finditer` finds them."""
        return pattern.finditer(text) if len(text) < _SHORT else self._find_from_words(pattern, text)

    def _find_from_words(self, pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
        end = 0
        for start in self._starts(text):
            if start >= end and (match := pattern.match(text, start)):
                yield match
                end = match.end()

    def _starts(self, text: str) -> list[int]:
        """The positions where a match may begin."""
        present = self._last_words & letter_words(text)
        if not present:
            return []
        starts, letters = set[int](), _letters(text)
        for word in present:
            position = letters.find(self._words[word])
            while position >= 0:
                starts.add(position)
                before = position - 1
                while before >= 0 and not text[before].isalnum():
                    starts.add(before)
                    before -= 1
                position = letters.find(self._words[word], position + 1)
        return sorted(starts)


class Phrases:
    """Phrases in any case, found as `re.compile(pattern, re.IGNORECASE | flags)` finds them.

    Args:
        pattern: a regular expression.
        words: words of letters, separated by blanks; each match holds at least one of them.
        signs: what a match may hold instead of these words.
        first: the words with which a match begins, where they are known.
        flags: of `re`, besides IGNORECASE.
    """

    def __init__(
        self, pattern: str, words: str, *, signs: tuple[str, ...] = (), first: FirstWords | None = None, flags: int = 0
    ) -> None:
        self.pattern = re.compile(pattern, re.IGNORECASE | flags)
        self._words, self._signs, self._first = frozenset(words.split()), signs, first

    def may_be_in(self, text: str) -> bool:
        """Whether the words of a text allow a match."""
        if not self._words.isdisjoint(letter_words(text)):
            return True
        return bool(self._signs) and any(sign in text for sign in self._signs)

    def search(self, text: str, start: int = 0, end: int = sys.maxsize) -> re.Match[str] | None:
        """The first match between two positions of a text."""
        return self.pattern.search(text, start, end) if self.may_be_in(text) else None

    def match(self, text: str) -> re.Match[str] | None:
        """The match at the beginning of a text."""
        return self.pattern.match(text) if self.may_be_in(text) else None

    def finditer(self, text: str) -> Iterator[re.Match[str]]:
        """All matches in a text, in order."""
        if not self.may_be_in(text):
            return iter(())
        return self._first.finditer(self.pattern, text) if self._first else self.pattern.finditer(text)

    def sub(self, replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
        """The text with each match replaced, as `re.sub` does it."""
        return self.pattern.sub(replacement, text) if self.may_be_in(text) else text
