"""The synthetic task `constrained_writing`: write a line that satisfies every constraint of a set.

A line is drawn first, then constraints that it satisfies, so every set can be satisfied. Many lines can be right, so
there are no references; the reward `constraints` reads the constraints from the metadata. Prompts with the same set
form one group: no set of the test split is asked for in training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import ClassVar

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.errors import ConfigError
from hir_core.prompts.constraints.constraint import LETTER, NUMBER, ONE_WORD, Constraint, Parameter, Value, group_of
from hir_core.prompts.constraints.registry import KINDS, describe_all, satisfied
from hir_core.prompts.items import Item
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known

# The dial `words` keeps the first ones; some share their first letter, for the kind `initials`.
WORDS = ("sun", "moon", "star", "rain", "wind", "sea", "rose", "wood", "mist", "stone", "river", "snow")
NUMBERS = ("3", "7", "12", "three", "seven", "twelve")
DEFAULT_KINDS = (
    *("words_exactly", "words_at_least", "words_at_most", "contains", "excludes", "starts_with", "ends_with"),
    *("lower_case", "upper_case", "title_case", "ends_in_mark"),
)
MAX_LINES = 10_000  # lines that may be drawn in a row before one satisfies enough constraints


def _sentences(words: list[str]) -> str:
    return " ".join(f"{word}." for word in words)


# The ways to write the words of a line, and the cases, that each kind needs; both are drawn with equal probability.
FORMS: dict[str, Callable[[list[str]], str]] = {
    **dict.fromkeys((name for name in KINDS if name.startswith("sentences")), _sentences),
    **dict.fromkeys((name for name in KINDS if name.startswith("lines")), "\n".join),
    **dict.fromkeys((name for name in KINDS if name.startswith("paragraphs")), "\n\n".join),
    "json_object": lambda words: json.dumps({"line": " ".join(words)}),
    "json_list": json.dumps,
    "bullets": lambda words: "\n".join(f"- {word}" for word in words),
    "numbered_list": lambda words: "\n".join(f"{number}. {word}" for number, word in enumerate(words, 1)),
    "comma_list": ", ".join,
}
CASES: dict[str, Callable[[str], str]] = {"upper_case": str.upper, "title_case": str.title}


class WritingDials(Section):
    """Which constraints are drawn, and the lines that they are drawn from."""

    words: int = Field(8, ge=2, le=len(WORDS))
    """Different words that lines are made of."""
    max_words: int = Field(6, ge=1, le=50)
    """Words of the longest line."""
    kinds: tuple[str, ...] = Field(DEFAULT_KINDS, min_length=1)
    """Kinds of constraints, each equally often where lines allow it."""
    min_constraints: int = Field(1, ge=1)
    """Fewest constraints of a prompt."""
    max_constraints: int = Field(3, ge=1)
    """Most constraints of a prompt."""
    examples: bool = False
    """Adds one line that satisfies the set as a reference, for a warm start. Other lines are right too, so score with
    the reward `constraints`, not with `exact_match`."""

    @model_validator(mode="after")
    def _enough_topics(self) -> WritingDials:
        require_known("kinds", self.kinds, KINDS)
        topics = len({KINDS[name].topic for name in self.kinds})
        if not self.min_constraints <= self.max_constraints <= topics:
            raise ValueError(
                f"max_constraints {self.max_constraints} must be at least min_constraints {self.min_constraints} and "
                f"at most {topics}, the topics of kinds: a prompt has at most one constraint of each topic"
            )
        return self

    def vocabulary(self) -> list[Constraint]:
        """Every constraint that can be asked for."""
        words = WORDS[: self.words]
        constraints = []
        for name in dict.fromkeys(self.kinds):
            fewest = 2 if name.endswith("at_least") else 1  # every line has at least one word
            values: dict[Parameter | None, Sequence[Value]] = {
                NUMBER: range(fewest, self.max_words + 1),
                ONE_WORD: words,
                LETTER: sorted({word[0] for word in words}),
                None: [None],
            }
            constraints += [Constraint(name, value) for value in values[KINDS[name].parameter]]
        return constraints


class ConstrainedWriting:
    """Draws a set of constraints and asks for a line that satisfies them."""

    dials_model: ClassVar[type[Section]] = WritingDials

    def __init__(self, dials: WritingDials) -> None:
        self.dials, self.vocabulary = dials, dials.vocabulary()
        self.words = WORDS[: dials.words]
        self.forms = list({FORMS[name]: name for name in dials.kinds if name in FORMS})
        self.cases = [CASES[name] for name in dials.kinds if name in CASES]

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One set of constraints that some line satisfies, in random order.

        One constraint is of a kind that is drawn first, so that rare kinds come up.
        """
        size, kind = rng.between(self.dials.min_constraints, self.dials.max_constraints), rng.pick(self.dials.kinds)
        for _ in range(MAX_LINES):
            line = self._line(rng)
            constraints = _compatible(rng, satisfied(line, self.vocabulary), kind)[:size]
            if constraints and constraints[0].kind == kind and len(constraints) == size:
                break
        else:
            raise ConfigError(
                f"prompts: constrained_writing: {MAX_LINES} lines in a row without {size} constraints that can be "
                f"asked for together, one of them {kind}: add kinds, raise words or max_words, or lower max_constraints"
            )
        constraints = rng.shuffled(constraints)
        return Item(
            task="constrained_writing",
            query=f"Write a short line with some of the words {', '.join(self.words)}. {describe_all(constraints)}",
            references=(line,) if self.dials.examples else (),
            origin=origin,
            group=group_of(constraints),
            metadata={"constraints": [constraint.to_json() for constraint in constraints]},
        )

    def _line(self, rng: SeededRng) -> str:
        """A line of random words in one of the forms and cases; half the time with what other kinds need."""
        words = [rng.pick(self.words) for _ in range(rng.between(1, self.dials.max_words))]
        if self._has_kind("initials") and rng.chance(0.5):
            words = [rng.pick([word for word in self.words if word[0] == words[0][0]]) for _ in words]
        if self._has_kind("numbers") and rng.chance(0.5):
            words[rng.below(len(words))] = rng.pick(NUMBERS)
        form = rng.pick([" ".join, *self.forms])
        text = rng.pick([str.lower, *self.cases])(form(words))
        ends_in_word = text[-1].isalnum()
        return f"{text}." if ends_in_word and self._has_kind("ends_in_mark") and rng.chance(0.5) else text

    def _has_kind(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.dials.kinds)


def _compatible(rng: SeededRng, constraints: list[Constraint], first_kind: str) -> list[Constraint]:
    """At most one of the constraints per topic, that of the first kind first, the others in random order.

    No two of them name the same word, because one would often imply the other.
    """
    kinds = dict.fromkeys(constraint.kind for constraint in constraints)
    chosen: list[Constraint] = []
    for kind in sorted(rng.shuffled(list(kinds)), key=lambda kind: kind != first_kind):
        words = {constraint.value for constraint in chosen if KINDS[constraint.kind].parameter is ONE_WORD}
        candidates = [c for c in constraints if c.kind == kind and c.value not in words]
        if candidates and KINDS[kind].topic not in {KINDS[constraint.kind].topic for constraint in chosen}:
            chosen.append(rng.pick(candidates))
    return chosen
