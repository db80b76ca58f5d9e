"""`FormulaReader`, which finds the formulas in a text for the rules that tell which of them is the answer."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from hir_core.prompts.number_search import with_mixed_numbers
from hir_core.prompts.numbers import spelled_numbers
from hir_core.rewards.formulas.comparison import same
from hir_core.rewards.formulas.expressions import ROUNDED
from hir_core.rewards.formulas.kinds import (
    ALL_NUMBERS,
    NO_SOLUTION,
    NO_VALUE,
    Answer,
    Doubt,
    Equation,
    Expression,
    Inequality,
    Words,
    is_name,
)
from hir_core.rewards.formulas.mentions import DELIMITED, FACTORIAL, LONGEST, Span, formulas_in
from hir_core.rewards.formulas.notation import in_plain_characters, without_frame
from hir_core.rewards.formulas.quantities import UNIT_NAMES
from hir_core.rewards.formulas.structure import read
from hir_core.rewards.reading.final_answer import CLOSE, OPEN
from hir_core.rewards.reading.numbers import stands_alone
from hir_core.rewards.reading.reader import Mention, Reader
from hir_core.rewards.reading.visible import without_tags

_FARTHEST = 30
"""Characters between two formulas that may be one answer."""
_BETWEEN = re.compile(r"[\s]*(?:,?\s*(?:and|or)(?:\s+(?:also\s+)?(?:by|to))?|[,;])\s*(?:then\s+)?", re.IGNORECASE)
_EDGE = f" \n*_`\"'.,;:#~{OPEN}{CLOSE}"
_IN_WORDS = re.compile(rf"\b(?:{NO_SOLUTION}|{ALL_NUMBERS}|{NO_VALUE}|infinity)\b", re.IGNORECASE)
_LETTER = re.compile(r"-?\s?[a-zA-Z]")
_PROSE = re.compile(r"\\[a-zA-Z]+\s*(?:\{[^{}]*\})?|(?P<words>[a-zA-Z]{3,}\s+[a-zA-Z]{2,}\s+[a-zA-Z]{2,})")
_MOST_WORDS, _LONGEST_VARIABLES = 5, 3
_ENDS = re.compile(r"\s*(?:[.,;:!)]|\Z)")
_RELATES = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-z])")


class FormulaReader(Reader):
    """Reads formulas, as they are written.

    Args:
        references: the accepted answers; a few words are an answer only where one of them is.
        query: the question; the formulas that it holds are less likely the answer.

    Raises:
        Doubt: a reference is too long.
    """

    what = "formula"
    computes = True

    def __init__(self, references: Sequence[str], query: str = "") -> None:
        self.expected: list[Answer] = [read(reference) for reference in references if reference.strip()]
        asked = self.mentions(self.standard_form(self.without_markup(query)))
        self.given = frozenset(_without_blanks(mention.value) for mention in asked if mention.value is not None)

    def without_markup(self, text: str) -> str:
        return without_tags(in_plain_characters(text))

    def standard_form(self, text: str) -> str:
        text = with_mixed_numbers(_RESTATED.sub("", _BOLD.sub(lambda bold: bold[1] or bold[2], text)))
        text = _QUOTED.sub(r"\2", _NAMED.sub(r"\1 = ", _NEGATIVE.sub("-", text)))
        text = DELIMITED.sub(lambda formula: " ".join(formula[0].split()).replace("!", FACTORIAL), text)
        text = _FACTORIAL.sub(FACTORIAL, text) if _WORD.search(text) else text.replace("!", FACTORIAL)
        return _BETWEEN_BOXES.sub(_joined_boxes, text.replace("...", r"\dots "))

    def quick(self, completion: str) -> str | None:
        del completion  # nearly all need the standard form
        return None

    def whole(self, text: str) -> str | None:
        if len(text) > LONGEST or any(match["words"] for match in _PROSE.finditer(text)):
            return self.bare(text)
        return _written(text) or None

    def bare(self, text: str) -> str | None:
        text = text.rstrip(_EDGE).lstrip(_EDGE.replace(".", ""))
        if not text or len(text) > LONGEST or text.endswith("?"):
            return None
        if "\n" in text:
            return _system(text)
        mentions = self.mentions(text)
        if len(mentions) == 1 and stands_alone(text, mentions[0].start, mentions[0].end):
            written: str = mentions[0].value
            return written
        return None if mentions else self._words(text)

    def _words(self, text: str) -> str | None:
        """An answer in words: a variable or, where a reference is words too, a few of them."""
        words = without_frame(text).strip(_EDGE + "!()")
        if _LETTER.fullmatch(words):
            return words
        spelled = self._spelled(words)
        if len(spelled) == 1 and stands_alone(words, spelled[0].start, spelled[0].end):
            number: str | None = spelled[0].value
            return number
        takes_words = any(isinstance(reference, Words) for reference in self.expected)
        takes_letters = any(isinstance(known, Expression) and known.text.isalpha() for known in self.expected)
        is_answer = takes_words or (takes_letters and words.isalpha() and len(words) <= _LONGEST_VARIABLES)
        return words if words and is_answer and len(words.split()) <= _MOST_WORDS else None

    def mentions(self, text: str) -> Sequence[Mention]:
        if formulas := _joined(text, formulas_in(text)):
            return _with_units(text, formulas)
        if values := list(_IN_WORDS.finditer(text)):
            return [Mention(*value.span(), value[0], can_be_denied=False) for value in values]
        # Elsewhere than at the end of a clause, a number in words counts something: `all three angles`.
        return [mention for mention in self._spelled(text) if _ENDS.match(text, mention.end)]

    def _spelled(self, text: str) -> list[Mention]:
        return [
            Mention(start, end, None if value is None else f"{value}{'%' if is_percent else ''}")
            for start, end, value, is_percent in spelled_numbers(text)
        ]

    def may_lead(self, value: Hashable) -> bool:
        return isinstance(value, str) and _RELATES.search(value) is None

    def distinct(self, values: Sequence[Hashable]) -> list[str | None]:
        """The different answers; one that rounds another is the same, and the other one is kept."""
        known = list[str | None]()
        for value in dict.fromkeys(values):
            if value is not None and not isinstance(value, str):
                continue
            at = next((place for place, other in enumerate(known) if _is_same(other, value)), None)
            if at is None:
                known.append(value)
            elif "." in (known[at] or "") and "." not in (value or ""):
                known[at] = value
        return known

    def is_given(self, value: Hashable) -> bool:
        return isinstance(value, str) and _without_blanks(value) in self.given


def _is_same(one: str | None, other: str | None) -> bool:
    if one is None or other is None:
        return one is other
    if _without_blanks(one) == _without_blanks(other):
        return True
    try:
        answers = read(one), read(other)
        return answers[0] == answers[1] or (not any(map(_is_step, answers)) and same(*answers))
    except Doubt as error:
        return str(error) == ROUNDED


def _is_step(answer: Answer) -> bool:
    """Whether an answer is a relation that names nothing, as `2x = 6` does, which takes long to tell from another."""
    return isinstance(answer, (Equation, Inequality)) and not any(map(is_name, answer.sides))


def _without_blanks(text: str) -> str:
    return "".join(text.split()).strip("$")


def _written(text: str) -> str:
    """A formula as it was written, without the marks that the standard form of a text has."""
    return text.replace(FACTORIAL, "!").replace(OPEN, "").replace(CLOSE, "").strip()


def _joined(text: str, formulas: list[Span]) -> list[Span]:
    """The formulas, those that only `and`, `or` or a comma separates taken for one; an equation goes with others."""
    joined = list[Span]()
    for formula in formulas:
        is_near = joined and formula.start - joined[-1].end <= _FARTHEST
        are_alike = is_near and ("=" in text[slice(*joined[-1])] or "=" not in text[slice(*formula)])
        if are_alike and _BETWEEN.fullmatch(text, joined[-1].end, formula.start):
            joined[-1] = Span(joined[-1].start, formula.end)
        else:
            joined.append(formula)
    return joined


def _system(text: str) -> str | None:
    """Lines that are nothing but equations, each for another name, taken for one answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [line.partition("=")[0].strip(" $") for line in lines]
    are_values = all(
        re.fullmatch(r"[a-zA-Z]\w?", name) and _is_covered(line) for name, line in zip(names, lines, strict=True)
    )
    return ", ".join(map(_written, lines)) if are_values and len({*names}) == len(names) else None


def _is_covered(text: str) -> bool:
    return any(formula.start <= 2 and formula.end >= len(text) - 2 for formula in formulas_in(text))


_UNIT = re.compile(rf"[ ]?(?:square |sq\.? |cubic )?(?:{UNIT_NAMES})\b(?:\s?\^\{{?[23]\}}?)?")


_CHAINS = re.compile(
    r"\s*(?:[=+*/<>-]|\\(?:times|cdot|approx)(?![a-z]))+\s*|\s*(?=\\(?:times|cdot|approx)(?![a-z])|[-+] )"
)


def _with_units(text: str, formulas: list[Span]) -> list[Mention]:
    """The formulas, each with the unit of measure behind it in text type: `6 cm = 60 mm` is one of them."""
    found, end = list[Mention](), 0
    for formula in formulas:
        if formula.start < end:
            continue  # the unit of `9 cm^2`
        start, written = formula.start, _written(text[slice(*formula)])
        if found and found[-1].end == end and (chain := _CHAINS.fullmatch(text, end, start)) is not None:
            previous = found.pop()
            start, written = previous.start, f"{previous.value}{chain[0]}{written}"
        end = formula.end
        unit = None if text[end - 1].isalpha() else _UNIT.match(text, end)
        if unit:
            end = unit.end()
            written += f" {unit[0].strip()}" if "^" in unit[0] else rf" \text{{ {unit[0].strip()}}}"
        found.append(Mention(start, end, written))
    return found


# --- the standard form -----------------------------------------------------------------------------------------------

_BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*(?![\w(*])|(?<!\w)__(?=\S)([^_\n]+?)__(?!\w)")
_RESTATED = re.compile(
    r"(?<=[\d%}$])[ ]+\((?!\s*\\?(?:mod|pmod|sin|cos|tan|ln|log|exp|sqrt|not?|wrong|incorrect|false)\b)"
    r"[^()]*(?:[%=]|[a-z]{2,})[^()]*\)"
)
_QUOTED = re.compile(r"(?<![\w'\")}])(['\"])(?=\S)([^'\"\n]+)\1(?![\w'])")
_NAMED = re.compile(r"(?<![\w'])([b-zB-HJ-Z]) is (?=-?[$\\\d.])")
_NEGATIVE = re.compile(r"\bnegative (?=[\d\\$])|(?:(?<=is )|\A\s*)minus (?=[\d\\$])", re.IGNORECASE)
_FACTORIAL = re.compile(r"(?:(?<=[\d)}])|(?<=\b[a-zA-Z]))!(?=\s*[-+*/^=<>)\]},\\]|\s+[a-z])")
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2}")
_BETWEEN_BOXES = re.compile(
    rf"{CLOSE}(?P<between>[\s$,.;)(\\]*(?:(?:and|or)[\s$,.;(\\]*(?:\w\s*=\s*)?|(?<=,)[\s$(\\]*)){OPEN}"
)


def _joined_boxes(between: re.Match[str]) -> str:
    """What stands between two boxes that are one answer, as a part of a formula."""
    return " or " if "or" in between["between"] else ", "
