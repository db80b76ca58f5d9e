"""The synthetic task `constrained_writing`: write a line that satisfies every constraint of a set.

A line is drawn first and the set from what it satisfies, so that every set can be satisfied. Many lines can be right,
so there are no references; the constraints stand in the metadata, for the reward `constraints`. Prompts that ask for
the same set are one group: the sets of the test split are combinations that training never asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import ClassVar

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.errors import ConfigError
from hir_core.prompts.constraints.constraint import LETTER, NUMBER, ONE_WORD, Constraint, group_of
from hir_core.prompts.constraints.registry import KINDS, described, satisfied
from hir_core.prompts.items import Item
from hir_core.prompts.rng import SeededRng

# A small `words` dial takes them from the front; some share their first letter, for `initials`.
WORDS = ("sun", "moon", "star", "rain", "wind", "sea", "rose", "wood", "mist", "stone", "river", "snow")
NUMBERS = ("3", "7", "12", "three", "seven", "twelve")
DEFAULT_KINDS = (
    *("words_exactly", "words_at_least", "words_at_most", "contains", "excludes", "starts_with", "ends_with"),
    *("lower_case", "upper_case", "title_case", "ends_in_mark"),
)
PATIENCE = 10_000  # lines in a row that satisfy too little of what may be asked


def _json_list(words: list[str]) -> str:
    return json.dumps(words)


def _json_object(words: list[str]) -> str:
    return json.dumps({"line": " ".join(words)})


def _sentences(words: list[str]) -> str:
    return " ".join(f"{word}." for word in words)


Form = Callable[[list[str]], str]
# Lines are written in the forms and cases that the kinds ask for, each as often, and plainly as well.
FORMS: dict[str, Form] = {
    **dict.fromkeys((name for name in KINDS if name.startswith("sentences")), _sentences),
    **dict.fromkeys((name for name in KINDS if name.startswith("lines")), "\n".join),
    "json_object": _json_object,
    "json_list": _json_list,
    "bullets": lambda words: "\n".join(f"- {word}" for word in words),
    "comma_list": ", ".join,
}
CASES: dict[str, Callable[[str], str]] = {"upper_case": str.upper, "title_case": str.title}


class WritingDials(Section):
    """What may be asked for, and of how small a world."""

    words: int = Field(8, ge=2, le=len(WORDS))
    """Different words that lines are made of."""
    max_words: int = Field(6, ge=1, le=50)
    """Words of the longest line."""
    kinds: tuple[str, ...] = Field(DEFAULT_KINDS, min_length=1)
    """Kinds of constraints, each as often where lines allow it."""
    min_constraints: int = Field(1, ge=1)
    """Fewest constraints of a prompt."""
    max_constraints: int = Field(3, ge=1)
    """Most constraints of a prompt."""
    examples: bool = False
    """Shows one line that satisfies the set as a reference, for a warm start. Others are as right: score by
    constraints, not by exact match."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> WritingDials:
        if unknown := [name for name in self.kinds if name not in KINDS]:
            raise ValueError(f"unknown kinds {unknown}: choose from {', '.join(KINDS)}")
        topics = len({KINDS[name].topic for name in self.kinds})
        if not self.min_constraints <= self.max_constraints <= topics:
            raise ValueError(
                f"max_constraints {self.max_constraints} must be at least min_constraints {self.min_constraints} and "
                f"at most {topics}, the topics of kinds: of one topic a prompt has one constraint"
            )
        return self

    def vocabulary(self) -> list[Constraint]:
        """Every constraint that may be asked for."""
        return [Constraint(name, value) for name in dict.fromkeys(self.kinds) for value in self._values(name)]

    def _values(self, name: str) -> list[int] | list[str] | list[None]:
        parameter = KINDS[name].parameter
        if parameter is NUMBER:
            return list(range(2 if name.endswith("at_least") else 1, self.max_words + 1))  # any line has one word
        if parameter is ONE_WORD:
            return list(WORDS[: self.words])
        return sorted({word[0] for word in WORDS[: self.words]}) if parameter is LETTER else [None]


class ConstrainedWriting:
    """Draws a set of constraints and asks for a line that satisfies them."""

    dials_model: ClassVar[type[Section]] = WritingDials

    def __init__(self, dials: WritingDials) -> None:
        self.dials, self.vocabulary = dials, dials.vocabulary()
        self.words = WORDS[: dials.words]
        self.forms = list({FORMS[name]: name for name in dials.kinds if name in FORMS})
        self.cases = [CASES[name] for name in dials.kinds if name in CASES]

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One set of constraints, in random order."""
        line, asked = self._asked(rng)
        return Item(
            task="constrained_writing",
            query=f"Write a short line with some of the words {', '.join(self.words)}. {described(asked)}",
            references=(line,) if self.dials.examples else (),
            place=place,
            group=group_of(asked),
            metadata={"constraints": [constraint.to_json() for constraint in asked]},
        )

    def _asked(self, rng: SeededRng) -> tuple[str, list[Constraint]]:
        """A line and constraints that it satisfies, one of them of a kind drawn before, so that rare ones come too."""
        size, wanted = rng.between(self.dials.min_constraints, self.dials.max_constraints), rng.pick(self.dials.kinds)
        for _ in range(PATIENCE):
            line = self._line(rng)
            fitting = satisfied(line, self.vocabulary)
            asked = _chosen(rng, fitting, wanted)[:size]
            if asked and asked[0].kind == wanted and len(asked) == size:
                return line, rng.shuffled(asked)
        raise ConfigError(
            f"prompts: constrained_writing: {PATIENCE} lines in a row without {size} constraints that may stand "
            f"together, one of them {wanted}: add kinds, raise words or max_words, or lower max_constraints"
        )

    def _line(self, rng: SeededRng) -> str:
        """A line of words in one of the forms, in one of the cases, with what else the kinds ask for."""
        words = [rng.pick(self.words) for _ in range(rng.between(1, self.dials.max_words))]
        if self._asks("initials") and rng.chance(0.5):
            words = [rng.pick([word for word in self.words if word[0] == words[0][0]]) for _ in words]
        if self._asks("numbers") and rng.chance(0.5):
            words[rng.below(len(words))] = rng.pick(NUMBERS)
        form = rng.pick([" ".join, *self.forms])
        text = rng.pick([str.lower, *self.cases])(form(words))
        ends_in_word = text[-1].isalnum()
        return f"{text}." if ends_in_word and self._asks("ends_in_mark") and rng.chance(0.5) else text

    def _asks(self, start: str) -> bool:
        return any(name.startswith(start) for name in self.dials.kinds)


def _chosen(rng: SeededRng, fitting: list[Constraint], wanted: str) -> list[Constraint]:
    """Of the fitting constraints one per topic, the wanted kind's first and the others in random order.

    No word is named twice, because one constraint would often follow from the other.
    """
    kinds = dict.fromkeys(constraint.kind for constraint in fitting)
    chosen: list[Constraint] = []
    for kind in sorted(rng.shuffled(list(kinds)), key=lambda kind: kind != wanted):
        named = {constraint.value for constraint in chosen if KINDS[constraint.kind].parameter is ONE_WORD}
        free = [c for c in fitting if c.kind == kind and c.value not in named]
        if free and KINDS[kind].topic not in {KINDS[constraint.kind].topic for constraint in chosen}:
            chosen.append(rng.pick(free))
    return chosen
