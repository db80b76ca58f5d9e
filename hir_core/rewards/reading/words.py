"""Words of a text without case, accents and punctuation: the form in which texts and lists are compared."""

from __future__ import annotations

import re
import unicodedata

# A number is one word with its sign, point and colons; `C++` and `Qh5#` are words with their signs.
_WORD = re.compile(r"(?<![\w)])-?\d+(?:[.:/]\d+)*%?|[^\W_]+(?:'[^\W_]+)?[+#]*")
_LIST_WORD = re.compile(r"(?<![\w)])-?\d+(?:\.\d+)?|[^\W_]+(?:['-][^\W_]+)*")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "was",
        "were",
        "be",
        "been",
        "being",
        "it",
        "its",
        "it's",
        "that's",
        "this",
        "that",
        "these",
        "those",
        "there",
        "here",
        "and",
        "of",
        "in",
        "on",
        "at",
        "to",
        "for",
        "from",
        "by",
        "with",
        "as",
        "so",
        "therefore",
        "thus",
        "hence",
        "then",
        "i",
        "we",
        "you",
        "he",
        "she",
        "they",
        "my",
        "our",
        "your",
        "his",
        "her",
        "their",
        "would",
        "will",
        "must",
        "should",
        "has",
        "have",
        "had",
        "do",
        "does",
        "did",
        "can",
        "called",
        "named",
        "known",
        "one",
        "who",
        "which",
        "what",
        "when",
        "where",
        "whose",
        "answer",
        "correct",
        "final",
        "following",
        "think",
        "believe",
        "say",
        "likely",
        "probably",
        "actually",
        "indeed",
        "definitely",
        "clearly",
        "simply",
        "also",
        "just",
        "thing",
        "something",
        "s",
    ]
)


_WEEKDAYS = {f"{day}days": f"{day}day" for day in ("mon", "tues", "wednes", "thurs", "fri", "satur", "sun")}
"""`on Mondays` and `on Monday` are the same answer."""


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, without its first article."""
    found = [_WEEKDAYS.get(word, word) for word in _WORD.findall(_folded(_THOUSANDS.sub("", text)))]
    return tuple(found[1:] if len(found) > 1 and found[0] in ("a", "an", "the") else found)


def list_words(text: str) -> tuple[str, ...]:
    """The words of a list, without what separates its items."""
    return tuple(word for word in _LIST_WORD.findall(_folded(text)) if word not in ("and", "then"))


def _folded(text: str) -> str:
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return text.casefold()
