"""The kinds of answers: expressions, equations, inequalities, lists, intervals, matrices, words; and names in them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hir_core.rewards.formulas.notation import closing


@dataclass(frozen=True)
class Expression:
    """A single expression."""

    text: str


@dataclass(frozen=True)
class Equation:
    """Sides that are equal, `a = b = c`."""

    sides: tuple[str, ...]


@dataclass(frozen=True)
class Inequality:
    """Sides in order with the signs between them."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Members:
    """Several answers in brackets, or in none (`""`) as in a list; of `±` they are a set."""

    brackets: str
    items: tuple[Answer, ...]


@dataclass(frozen=True)
class Matrix:
    """Rows of a matrix."""

    rows: tuple[tuple[Answer, ...], ...]


@dataclass(frozen=True)
class Either:
    """Alternatives, joined by `or`."""

    items: tuple[Answer, ...]


@dataclass(frozen=True)
class Combined:
    """Sets joined by union, intersection or difference."""

    sign: str
    items: tuple[Answer, ...]


@dataclass(frozen=True)
class Words:
    """No formula, but words, in lower case."""

    text: str


Answer = Expression | Equation | Inequality | Members | Matrix | Either | Combined | Words
SET = "{}"
EMPTY = Members(SET, ())


class Doubt(Exception):
    """Whether two answers are the same is not known; the message says why."""


# --- names -----------------------------------------------------------------------------------------------------------

_NAME = re.compile(
    r"(?:[a-zA-Z]|\\(?:alpha|beta|gamma|delta|theta|lambda|phi|omega|sigma|mu|rho|tau|Delta)|\\text\{[^{}]*\}|"
    r"\\(?:angle|triangle|overline|vec|hat|bar)\s*\{?\s*[A-Za-z]{1,3}\s*\}?|[A-Z]{2,3})"
    r"(?:_\{?\s*(?:\w+|\\text\{[^{}]*\})\s*\}?)?'{0,2}\s*(?:\([^()]*\))?|\\frac\{d\w?\}\{d\w\}\s*\w?|d\w\s*/\s*d\w|[A-Za-z][a-z]{2,}(?:\s[a-z]+){0,3}|"
    r"\|?[A-Z]{1,3}\|?"
)


def is_name(side: str) -> bool:
    """Whether a side of an equation only names what the other side gives: `x`, `f(x)`, `a_1`."""
    return _NAME.fullmatch(side.strip()) is not None


def name_in(side: str) -> str:
    """A name in a form in which equal names are equal."""
    return re.sub(r"\s|[{}]|\(.*\)", "", side)


def pair_names(side: str) -> tuple[str, ...] | None:
    """The names in `(x, y)`; None where the side is something else."""
    if not (side.startswith("(") and side.endswith(")") and closing(side, 0, "(", ")") == len(side) - 1):
        return None
    names = [part.strip() for part in side[1:-1].split(",")]
    return tuple(map(name_in, names)) if len(names) > 1 and all(map(is_name, names)) else None


# --- words -----------------------------------------------------------------------------------------------------------

NO_SOLUTION = (
    r"(?:there (?:is|are) )?no (?:real |such |valid |possible )?(?:solutions?|values?|roots?|numbers?)(?: exists?)?|"
    r"(?:the )?empty set"
)
ALL_NUMBERS = r"(?:the set of )?(?:all|any) (?:of the )?real numbers?|all reals|all real values(?: of x)?"
NO_VALUE = r"(?:is )?(?:undefined|not defined|dne)|(?:it )?does not exist|infinitely many(?: solutions)?"
_NO_FORMULA = re.compile(rf"{NO_VALUE}|yes|no|true|false")


def _without_article(words: str) -> str:
    return re.sub(r"^(?:the|an?) ", "", words)


def same_words(reference: Answer, answer: Answer) -> bool:
    """Whether two answers, of which at least one is words, say the same.

    Raises:
        Doubt: they are other words, which may mean the same.
    """
    if isinstance(reference, Words) and isinstance(answer, Words):
        if _without_article(reference.text) == _without_article(answer.text):
            return True
        if " " in reference.text or " " in answer.text:
            raise Doubt("other words")
        return False
    if isinstance(answer, Words) and not _NO_FORMULA.fullmatch(answer.text):
        raise Doubt("words")
    return False
