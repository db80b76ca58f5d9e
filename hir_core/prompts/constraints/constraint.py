"""`Kind`: what all constraints of one kind share: how they are checked, how they are said, what their parameter is."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from hir_core.schemas import content_key

# Accents and vowel signs that stand as characters of their own, in Arabic or Hindi for example; `\w` leaves them out.
_MARKS = "".join(char for char in map(chr, range(0x10000)) if unicodedata.category(char).startswith("M"))
WORD = rf"[^\W_](?:[^\W_]|[{_MARKS}]|['’-](?=[^\W_]))*+"
"""A regular expression: letters and digits, with apostrophes and hyphens between them."""
FINAL_MARKS = ".!?…。！？؟।"
_SENTENCE_END = re.compile(rf"(?<![{FINAL_MARKS}])[{FINAL_MARKS}]+(?=\s|$)|[。！？]+")
_WORDS = re.compile(WORD)


@lru_cache(maxsize=1)  # one text is checked for many constraints in a row
def words(text: str) -> tuple[str, ...]:
    """The words of a text, as written."""
    return tuple(_WORDS.findall(text))


@lru_cache(maxsize=1)
def folded_words(text: str) -> tuple[str, ...]:
    """The words of a text without their case."""
    return tuple(word.casefold() for word in words(text))


def has_words(text: str) -> bool:
    """Whether there is any word."""
    return _WORDS.search(text) is not None


def sentences(text: str) -> list[str]:
    """The pieces with a word in them that end with a final mark before a blank, or with the text."""
    return [piece for piece in _SENTENCE_END.split(text) if has_words(piece)]


def lines(text: str) -> list[str]:
    """The lines that are not blank, without the blanks around them; none where no line has a word."""
    return [line.strip() for line in text.splitlines() if line.strip()] if has_words(text) else []


Value = int | str | None


class Parameter(NamedTuple):
    """What may stand in a kind's sentence."""

    what: str
    """In words, for messages."""
    pattern: str
    read: Callable[[str], int | str]

    def allows(self, value: Any) -> bool:
        """Whether a value is one that its written form reads back as."""
        is_plain = type(value) in (int, str)  # True is an int, and no number
        return is_plain and bool(re.fullmatch(self.pattern, str(value))) and self.read(str(value)) == value


NUMBER = Parameter("a whole number from 1 to 999999", r"[1-9][0-9]{0,5}", int)
ONE_WORD = Parameter("one word without blanks", WORD, str)
LETTER = Parameter("one small letter", r"[^\W\d_]", str.lower)


@dataclass(frozen=True)
class Kind:
    """One kind of constraint."""

    name: str
    sentence: str
    """The instruction in English, ending with a full stop: `{}` stands for the parameter, and `(s)` for an s from two
    on."""
    holds: Callable[[str, Any], bool]
    """Whether a text satisfies it, given its parameter."""
    parameter: Parameter | None = None
    theme: str = ""
    """Shared by kinds that speak of the same; left out where it stands alone."""

    @property
    def topic(self) -> str:
        """What it speaks of; of kinds with one topic, one at most makes sense in one instruction."""
        return self.theme or self.name

    def say(self, value: Value) -> str:
        """The sentence for a parameter."""
        return self.sentence.format(value).replace("(s)", "" if value == 1 else "s")

    def read(self, sentence: str) -> tuple[Value] | None:
        """The parameter that a sentence of this kind was said with; None where it is not one."""
        match = re.fullmatch(self._pattern(), sentence)
        if not match:
            return None
        value: Value = self.parameter.read(match[1]) if self.parameter else None
        return (value,) if self.say(value) == sentence else None

    def _pattern(self) -> str:
        literal = re.escape(self.sentence).replace(re.escape("(s)"), "s?")
        return literal.replace(re.escape("{}"), f"({self.parameter.pattern})") if self.parameter else literal


@dataclass(frozen=True)
class Constraint:
    """Something that a text satisfies or not; `str` gives its canonical form, such as `words_exactly=3`."""

    kind: str
    value: Value = None
    """The number, word or letter that it speaks of; None where its kind needs none."""

    def __str__(self) -> str:
        return self.kind if self.value is None else f"{self.kind}={json.dumps(self.value, ensure_ascii=False)}"

    def to_json(self) -> dict[str, int | str]:
        """Its form in a prompt's metadata, for example `{"kind": "words_exactly", "value": 3}`."""
        return {"kind": self.kind} if self.value is None else {"kind": self.kind, "value": self.value}


def group_of(constraints: Iterable[Constraint]) -> str:
    """The key of a set of constraints, whatever their order: prompts that ask for the same set share it."""
    return content_key("constraints", sorted({str(constraint) for constraint in constraints}))
