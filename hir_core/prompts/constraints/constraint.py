"""A constraint on a text that a program can check, and what all constraints of one kind share.

`Kind` holds how its constraints are checked, how they are worded and which value they take.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from hir_core.prompts.constraints.units import WORD
from hir_core.schemas import content_key

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
