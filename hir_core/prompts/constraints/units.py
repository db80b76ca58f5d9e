"""What constraints count in a text, as a reader would: words, sentences, lines and paragraphs.

A number, amount, address or abbreviation is one word: `3.5`, `$1,000`, `e-mail@example.com`, `U.S.`, `well-known`.
Markdown counts as it is shown: marks and numbers of items are no words, and headings no sentences or paragraphs.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from hir_core.prompts.constraints.markdown import plain, without_blank_lines_of_code, without_headings
from hir_core.prompts.constraints.sentences import split_sentences

# Accents and vowel signs that are characters of their own, for example in Arabic or Hindi; `\w` does not match them.
_MARKS = "".join(char for char in map(chr, range(0x10000)) if unicodedata.category(char).startswith("M"))
_ENDINGS = "ai|app|co|com|csv|de|dev|edu|exe|fr|gov|html|io|jpg|js|json|md|net|org|pdf|png|py|ts|txt|uk|yaml|yml"
_LETTER = r"[^\W\d_]"
# Each begins with a character and not with what stands before it, because `re` then skips it fast.
_JOINED = "|".join([
    r"['’‐‑&°\u00ad\u200c\u200d_-](?=[^\W_])",
    r"[.,:/–](?=\d)(?<=\d.)",
    r"\.(?:" + "|".join([
        rf"(?={_LETTER}(?![^\W_]))(?<=(?<![^\W_]){_LETTER}\.)",  # `U.S`
        r"(?=D\b)(?<=\bPh\.)|(?=(?:Sc|Ed|Eng)\b)(?<=\b[BM]\.)",
        rf"(?=(?:[\w-]{{1,63}}+\.){{0,3}}(?:{_ENDINGS})\b)",  # `example.com`
    ]) + ")",
])  # fmt: skip
WORD = rf"[^\W_]++(?:(?:[{_MARKS}]|{_JOINED})[^\W_]*+)*+"
"""A regular expression: letters and digits, with what may stand between those of one word."""
_WORDS = re.compile(WORD)
_WORDS_AND_ADDRESSES = re.compile(rf"(?:https?://|www\.)[^\s<>]++|[\w.+%-]{{1,64}}+@[\w-]++(?:\.[\w-]++)*+|{WORD}")
_SAME = (("’", "'"), ("‐", "-"), ("‑", "-"), ("\u00ad", ""))
_LETTER_OR_DIGIT = re.compile(r"[^\W_]")
_BLANK_LINES = re.compile(r"\n[^\S\n]*+\n")


# Each keeps its last result, because a text is checked for many constraints in a row.


@lru_cache(maxsize=1)
def words(text: str) -> tuple[str, ...]:
    """The words of a text, as written."""
    shown = plain(text)
    has_addresses = "@" in shown or "://" in shown or "www." in shown
    return tuple((_WORDS_AND_ADDRESSES if has_addresses else _WORDS).findall(shown))


def folded(text: str) -> str:
    """The text without distinction of case, of kinds of apostrophes and hyphens, and of how accents are encoded."""
    if not text.isascii():
        for variant, usual in _SAME:
            text = text.replace(variant, usual)
        text = unicodedata.normalize("NFC", text)
    return text.casefold()


@lru_cache(maxsize=1)
def folded_words(text: str) -> tuple[str, ...]:
    """The words of a text, each folded."""
    return tuple(folded("\n".join(words(text))).split("\n")) if words(text) else ()


def has_words(text: str) -> bool:
    """Whether the text has any letter or digit."""
    return _LETTER_OR_DIGIT.search(text) is not None


@lru_cache(maxsize=1)
def sentences(text: str) -> tuple[str, ...]:
    """The sentences of a text; headings are none, unless the text has nothing else."""
    return tuple(split_sentences(plain(without_headings(text))) or split_sentences(plain(text)))


def lines(text: str) -> list[str]:
    """The lines of a text that are not blank, stripped; none where no line has a word."""
    return [line.strip() for line in text.splitlines() if line.strip()] if has_words(text) else []


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a text, which blank lines separate; headings are none, unless the text has nothing else.

    Blank lines of code within a fence separate nothing.
    """
    joined = without_blank_lines_of_code(text)
    return _separated(without_headings(joined)) or _separated(joined)


def _separated(text: str) -> list[str]:
    return [part for part in _BLANK_LINES.split("\n".join(text.splitlines())) if has_words(part)]
