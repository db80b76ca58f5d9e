"""`Phrases`, a regular expression that is only tried on texts with one of the words that its matches hold.

Most texts have none of these words, and to look for a word in a set takes a hundredth of the time of the search.
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
    return frozenset(text.translate(_LETTERS).split())


class Phrases:
    """Phrases in any case, found as `re.compile(pattern, re.IGNORECASE | flags)` finds them.

    Args:
        pattern: a regular expression.
        words: words of letters, separated by blanks; each match holds at least one of them.
        signs: what a match may hold instead of these words.
        flags: of `re`, besides IGNORECASE.
    """

    def __init__(self, pattern: str, words: str, *, signs: tuple[str, ...] = (), flags: int = 0) -> None:
        self.pattern = re.compile(pattern, re.IGNORECASE | flags)
        self._words, self._signs = frozenset(words.split()), signs

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
        return self.pattern.finditer(text) if self.may_be_in(text) else iter(())

    def sub(self, replacement: str | Callable[[re.Match[str]], str], text: str) -> str:
        """The text with each match replaced, as `re.sub` does it."""
        return self.pattern.sub(replacement, text) if self.may_be_in(text) else text
