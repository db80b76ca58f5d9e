"""A constraint on a text that a program can check, and what all constraints of one kind share.

`Kind` holds how its constraints are checked, how they are worded and which value they take. The functions above it
split a text into what the kinds count.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from hir_core.schemas import content_key

# --- words, sentences and lines of a text ----------------------------------------------------------------------------

# Accents and vowel signs that are characters of their own, for example in Arabic or Hindi; `\w` does not match them.
_MARKS = "".join(char for char in map(chr, range(0x10000)) if unicodedata.category(char).startswith("M"))
WORD = rf"[^\W_](?:[^\W_]|[{_MARKS}]|['’-](?=[^\W_]))*+"
"""A regular expression: letters and digits, with apostrophes and hyphens between them."""
FINAL_MARKS = ".!?…。！？؟।"
_SENTENCE_END = re.compile(rf"(?<![{FINAL_MARKS}])[{FINAL_MARKS}]+(?=\s|$)|[。！？]+")
_WORDS = re.compile(WORD)


@lru_cache(maxsize=1)  # a text is checked for many constraints in a row
def words(text: str) -> tuple[str, ...]:
    """The words of a text, as written."""
    return tuple(_WORDS.findall(text))


@lru_cache(maxsize=1)
def folded_words(text: str) -> tuple[str, ...]:
    """The words of a text, without distinction of case."""
    return tuple(word.casefold() for word in words(text))


def has_words(text: str) -> bool:
    """Whether the text has any word."""
    return _WORDS.search(text) is not None


def sentences(text: str) -> list[str]:
    """The sentences of a text: they have a word, and end with a final mark before a blank or with the text."""
    return [piece for piece in _SENTENCE_END.split(text) if has_words(piece)]


def lines(text: str) -> list[str]:
    """The lines of a text that are not blank, stripped; none where no line has a word."""
    return [line.strip() for line in text.splitlines() if line.strip()] if has_words(text) else []


# --- kinds -----------------------------------------------------------------------------------------------------------

Value = int | str | None


class Parameter(NamedTuple):
    """The values that a kind of constraint takes."""

    description: str
    """For messages."""
    pattern: str
    """A regular expression for the value in the kind's sentence."""
    read: Callable[[str], int | str]

    def allows(self, value: Any) -> bool:
        """Whether the value is valid: reading its written form gives the same value."""
        is_plain = type(value) in (int, str)  # not isinstance: True is an int
        return is_plain and bool(re.fullmatch(self.pattern, str(value))) and self.read(str(value)) == value


NUMBER = Parameter("a whole number from 1 to 999999", r"[1-9][0-9]{0,5}", int)
ONE_WORD = Parameter("one word without blanks", WORD, str)
LETTER = Parameter("one small letter", r"[^\W\d_]", str.lower)


@dataclass(frozen=True)
class Kind:
    """One kind of constraint."""

    name: str
    sentence: str
    """The instruction in English, which ends with a full stop: `{}` stands for the value, and `(s)` for a plural s."""
    holds: Callable[[str, Any], bool]
    """Whether a text satisfies the constraint with a value."""
    parameter: Parameter | None = None
    """The values that it takes; None: it takes none."""
    theme: str = ""
    """Shared by kinds that contradict or imply each other; empty for a kind that has no such relation."""

    @property
    def topic(self) -> str:
        """The theme or, without one, the name; an instruction should have at most one constraint of each topic."""
        return self.theme or self.name

    def say(self, value: Value) -> str:
        """The sentence for a value."""
        return self.sentence.format(value).replace("(s)", "" if value == 1 else "s")

    def read(self, sentence: str) -> tuple[Value] | None:
        """The value in a sentence of this kind, as a tuple; None where it is not such a sentence."""
        pattern = re.escape(self.sentence).replace(re.escape("(s)"), "s?")
        if self.parameter:
            pattern = pattern.replace(re.escape("{}"), f"({self.parameter.pattern})")
        match = re.fullmatch(pattern, sentence)
        if not match:
            return None
        value: Value = self.parameter.read(match[1]) if self.parameter else None
        return (value,) if self.say(value) == sentence else None


# --- constraints -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Constraint:
    """A kind of constraint with a value; `str` gives its canonical form, for example `words_exactly=3`."""

    kind: str
    value: Value = None
    """The number, word or letter; None where its kind takes no value."""

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}={json.dumps(self.value, ensure_ascii=False)}"

    def to_json(self) -> dict[str, int | str]:
        """Its form in a prompt's metadata, for example `{"kind": "words_exactly", "value": 3}`."""
        return {"kind": self.kind} if self.value is None else {"kind": self.kind, "value": self.value}


def group_of(constraints: Iterable[Constraint]) -> str:
    """The group of the prompts that ask for a set of constraints, in whatever order."""
    return content_key("constraints", sorted({str(constraint) for constraint in constraints}))
