"""`Reader`, which finds the answers of one kind that a text mentions, and what is read from a text."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

from hir_core.rewards.reading.denial import is_refusal
from hir_core.rewards.reading.visible import plain
from hir_core.rewards.reward import Verdict, shortened

DECORATION = " \n*_`\"'.,;:!$()[]{}<>|=#~→\ue000\ue001"
_LONGEST_PLAIN = 100
_MARKUP = frozenset("\\<{")


class Mention(NamedTuple):
    """An answer that a text mentions, and where."""

    start: int
    end: int
    value: Any
    """None where it is not understood."""
    can_be_denied: bool = True
    """Whether `not` before it makes it no answer. Of yes and no, `not` makes the opposite."""


class Reading(NamedTuple):
    """What a text says, or why that is not known."""

    value: Any = None
    problem: str = ""
    """Empty where there is a value, and where the text says nothing."""
    has_no_answer: bool = False
    """Whether the text names no answer at all."""
    is_firm: bool = True
    """Whether the text commits to the value, and does not only mention it."""

    def unscored(self, completion: str, nothing: str) -> Verdict:
        """The verdict on a completion in which there is no value; `nothing` is the reason where it has none."""
        reason = f"{self.problem or nothing}: {shortened(completion)}"
        return Verdict(None, reason, no_answer=self.has_no_answer)


NOTHING = Reading()


class Reader(ABC):
    """Finds the answers of one kind that a text mentions."""

    what: str
    """What it reads, for reasons: `number`."""
    computes = False
    """Whether a sentence may derive its answer from others, as in `3 and 4 make 7`."""
    may_be_subject = True
    """Whether what stands before `is correct` may be the answer; of yes and no, `correct` itself is one."""

    @abstractmethod
    def bare(self, text: str) -> Any:
        """The answer that a short text is, with nothing else said; None where it is none."""

    @abstractmethod
    def mentions(self, text: str) -> Sequence[Mention]:
        """The answers that a text mentions, in order."""

    def quick(self, completion: str) -> Any:
        """The answer that a completion plainly is; None where it needs a closer look."""
        is_plain = len(completion) < _LONGEST_PLAIN and completion.isascii() and _MARKUP.isdisjoint(completion)
        return self.bare(completion) if is_plain else None

    def head(self, line: str) -> Any:
        """The answer of which a line speaks, where a text speaks of one in each line; None where it does not."""
        return self.bare(line)

    def whole(self, text: str) -> Any:
        """The answer that the whole content of a box or a tag is; None where it only holds one."""
        return self.bare(text)

    def without_markup(self, text: str) -> str:
        """The text without the markup that is no part of an answer of this kind."""
        return plain(text)

    def standard_form(self, text: str) -> str:
        """The prepared text in the form in which this reader finds its answers."""
        return text

    def distinct(self, values: Sequence[Hashable]) -> list[Any]:
        """The different answers among values."""
        return list(dict.fromkeys(values))

    def differ(self, one: Hashable, other: Hashable) -> bool:
        """Whether two answers are different ones."""
        return len(self.distinct([one, other])) > 1

    def may_lead(self, value: Hashable) -> bool:
        """Whether a text that begins with this answer may go on to explain it; an equation is rather a first step."""
        del value
        return True

    def is_given(self, value: Hashable) -> bool:
        """Whether the question itself holds an answer, so that mentioning it says little."""
        del value
        return False

    def declines(self, sentence: str) -> bool:
        """Whether a sentence declines to answer, or asks for what is missing."""
        return is_refusal(sentence)
