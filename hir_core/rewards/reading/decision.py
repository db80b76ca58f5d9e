"""The final answer of a completion: what its statements agree on or, without any, what its sentences conclude.

The rules are the same for all kinds of answers; a `Reader` finds the answers of its kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hir_core.prompts.phrases import Phrases
from hir_core.rewards.reading.denial import after_correction, is_cut_off, is_hedged
from hir_core.rewards.reading.emphasis import affirmed_answer, bold_answer, first_answer, leading_answer
from hir_core.rewards.reading.final_answer import Place, Statement, prepared, sentences, statements
from hir_core.rewards.reading.reader import NOTHING, Reader, Reading
from hir_core.rewards.reading.sentence import (
    LONGEST_SENTENCE,
    after_equals,
    hedges,
    in_sentence,
    is_instruction,
    live_mentions,
    without_asides,
)


def final_answer(reader: Reader, completion: str, marker: str | None = None) -> Reading:
    """The final answer of a completion, which follows the marker's last occurrence if there is a marker."""
    if marker is None and (value := reader.quick(completion)) is not None:
        return Reading(value)
    found = prepared(completion, marker, reader.without_markup)
    if not found.text:
        return Reading(problem=found.problem, has_no_answer=found.has_no_answer)
    return _in_text(reader, reader.standard_form(found.text), follows_marker=marker is not None)


def _in_text(reader: Reader, text: str, *, follows_marker: bool) -> Reading:
    """The final answer of a prepared text in standard form."""
    if follows_marker and (stated := _head(reader, text.lstrip())).value is not None:
        return stated
    back = after_correction(text)
    if back is None:
        return _read(reader, text)
    corrected = _read(reader, text[back:])
    if corrected.value is None and (
        not corrected.problem or corrected.has_no_answer or not reader.mentions(text[back:])
    ):
        return Reading(problem="hedged") if hedges(text[back:]) else _read(reader, text)
    before = _read(reader, text[:back])
    if corrected.value is None or corrected.is_firm or before.value in (None, corrected.value):
        return corrected
    return Reading(problem=f"several {reader.what}s")


def _read(reader: Reader, text: str) -> Reading:
    if (value := reader.bare(text)) is not None:
        return Reading(value)
    stated = _stated(reader, text)
    if stated == NOTHING:
        return _concluded(reader, text)
    if stated.value is None:
        return stated
    first = first_answer(reader, text, sentences(text[:_LONGEST_STATEMENT]))
    contradicts = first is not None and reader.differ(first, stated.value)
    return Reading(problem=f"several {reader.what}s") if contradicts else stated


# --- statements ------------------------------------------------------------------------------------------------------


def _stated(reader: Reader, text: str) -> Reading:
    """What the statements that commit to an answer agree on; nothing where there is none."""
    readings = [reading for s in statements(text) if (reading := _read_statement(reader, text, s)) != NOTHING]
    if not readings:
        return NOTHING
    values = reader.distinct([reading.value for reading in readings if reading.value is not None])
    if len(values) == 1 and not any(reading.problem and reading.is_firm for reading in readings):
        return Reading(values[0])
    return Reading(problem=f"several {reader.what}s") if values else readings[-1]


def _read_statement(reader: Reader, text: str, statement: Statement) -> Reading:
    whole = statement.place in (Place.WHOLE, Place.LINE)
    content = text[
        statement.start : statement.end if whole else min(statement.end, statement.start + _LONGEST_STATEMENT)
    ]
    if statement.place is Place.WHOLE:
        if (value := reader.whole(content)) is not None:
            return Reading(value)
        return _concluded(reader, content)
    if statement.place is Place.LINE:
        return Reading(reader.bare(content))
    if statement.place is Place.BEFORE:
        if not reader.may_be_subject:
            return Reading(reader.bare(content))
        return in_sentence(reader, _last_clause(reader, content))
    return _head(reader, content, is_label=statement.place is Place.AFTER_LABEL)


_CLAUSE = re.compile(r"\b(?:but|while|whereas|however|although)\b|;|, (?:and|so|then)\b", re.IGNORECASE)


def _last_clause(reader: Reader, subject: str) -> str:
    """The part of a sentence's beginning to which the verb after it belongs."""
    breaks = [match.end() for match in _CLAUSE.finditer(subject)]
    return subject[breaks[-1] :] if breaks and reader.mentions(subject[breaks[-1] :]) else subject


_LINE = re.compile(r"[^\n]*\w[^\n]*")


def _head(reader: Reader, text: str, *, is_label: bool = True) -> Reading:
    """The answer that stands at the beginning of a text, which an announcement or a marker precedes."""
    line = _LINE.search(text)
    if line is None:
        return NOTHING
    if (value := reader.bare(line[0])) is not None:
        return Reading(value)
    first = next(iter(sentences(line[0])), "")
    if (value := reader.bare(first)) is not None:
        return Reading(value)
    if hedges(first):
        return Reading(problem="hedged", is_firm=False)
    follows = bool(text[line.end() :].strip()) or len(first) < len(line[0].strip())
    leading = leading_answer(reader, first if is_label and follows else after_equals(reader, first))
    if leading != NOTHING or (is_label and follows):
        return leading
    return in_sentence(reader, first)


# --- conclusions -----------------------------------------------------------------------------------------------------

_CONCLUDES = Phrases(
    r"\b(?:so|therefore|thus|hence|consequently|accordingly|in conclusion|in total|altogether|in all|total|"
    r"together|left|"
    r"remain(?:s|ing)?|finally|overall|results?|which means|this means|that means|meaning|makes?|making|gives?|"
    r"giving|equals?|sum|leaving|"
    r"at the end|in the end|now|conclude|ultimately|it follows|we get|we have|to get|that's|amounts? to|adds? up to|"
    r"comes to|is left|yields?|implies|leaves)\b|=|∴|⇒|→|->",
    "so therefore thus hence consequently accordingly conclusion total altogether all together left remain remains "
    "remaining finally overall result results means meaning make makes making give gives giving equal equals sum "
    "leaving end now conclude ultimately follows get have that amount amounts add adds comes yield yields implies "
    "leaves",
    signs=("=", "->", "∴", "⇒", "→"),
)  # fmt: skip
_SUPPOSES = re.compile(
    r"\W*(?:suppose|assume|assuming|let|whether|to (?:find|determine|solve|answer|calculate|verify|check|"
    r"confirm)|check|verification|(?:you|we) can (?:check|verify)|let's (?:check|verify))\b",
    re.IGNORECASE,
)
_IF = re.compile(r"\W*if\b", re.IGNORECASE)
_LIST_ITEM = re.compile(r"\s*(?:[-*•+]|\d{1,3}[.)])\s")
_LONGEST_STATEMENT = 600
"""Characters after an announcement in which its answer is looked for."""


def _concluded(reader: Reader, text: str) -> Reading:
    """What a text without a statement of its answer concludes: in its first sentence, or in its last."""
    parts = sentences(text)
    if len(max(parts, key=len, default="")) > LONGEST_SENTENCE:
        return Reading(problem="endless sentence")
    if _takes_back(reader, parts):
        return Reading(problem="undecided")
    lead = first_answer(reader, text, parts)
    if lead is None:
        lead = affirmed_answer(reader, text)
    if lead is None:
        lead = bold_answer(reader, text)
    earlier = _told_backwards(reader, parts)
    last = next((part for part in earlier if live_mentions(reader, part)), None)
    if last is None:
        return _without_answer(reader, text, parts)
    if lead is None and (reader.declines(parts[0]) or reader.declines(parts[-1])):
        return _declined(reader, parts)
    if lead is None and is_cut_off(text):
        return Reading(problem="ends before its answer", has_no_answer=True)
    concluded = in_sentence(reader, last)
    if lead is None and concluded.value is None:
        return concluded
    others: Iterable[str] = list(earlier) if "=" in text else earlier
    is_conclusion = _is_conclusion(last, follows=others if "=" in text else ())
    if lead is not None:
        differs = concluded.value is not None and reader.differ(lead, concluded.value)
        contradicts = differs and is_conclusion and last is not parts[0] and not reader.is_given(concluded.value)
        return Reading(problem=f"several {reader.what}s") if contradicts else Reading(lead)
    if not is_conclusion and _names_another(reader, concluded.value, others):
        return Reading(problem=f"several {reader.what}s")
    return Reading(concluded.value, is_firm=is_conclusion)


def _takes_back(reader: Reader, parts: Sequence[str]) -> bool:
    """Whether the last sentence leaves open what the others say: `I am not sure.`"""
    is_open = len(parts) > 1 and is_hedged(parts[-1]) and not reader.mentions(parts[-1])
    return is_open and any(map(reader.mentions, parts))


def _told_backwards(reader: Reader, parts: Sequence[str]) -> Iterator[str]:
    """The sentences that state something, the last one first: no asides, unless all are.

    Most answers are found in the last of them, so that the others need not be looked at.
    """
    asides = list[str]()
    has_more = False
    for part in reversed(parts):
        if not _states_something(reader, part):
            continue
        if part[0] == "(" and part[-1] == ")" and reader.bare(part) is None:
            asides.append(part)
        else:
            has_more = True
            yield part
    if not has_more:
        yield from asides


def _states_something(reader: Reader, sentence: str) -> bool:
    """Whether a sentence is no question, supposition, check or instruction."""
    if sentence.endswith("?") or (_SUPPOSES.match(sentence) and "=" not in sentence):
        return False
    return not is_instruction(reader, sentence) if reader.computes else _IF.match(sentence) is None


def _is_conclusion(sentence: str, *, follows: Iterable[str]) -> bool:
    """Whether a sentence draws a conclusion: it says so, or follows a calculation; an item of a list is none."""
    if _LIST_ITEM.match(sentence):
        return False
    return _CONCLUDES.search(sentence) is not None or any("=" in part for part in follows)


def _names_another(reader: Reader, answer: Any, backwards: Iterable[str]) -> bool:
    """Whether sentences, the last one first, name other answers than this one, which are not only the question's."""
    is_given, others = reader.is_given(answer), list[Any]()
    for sentence in backwards:
        values = _values(reader, sentence)
        for value in values:
            differs = value != answer and value in reader.distinct([answer, value])
            if differs and (is_given or not reader.is_given(value)):
                return True  # two answers that differ do so whatever else is named
        others = values + others
    others = [value for value in reader.distinct([answer, *others]) if value != answer]
    return not all(map(reader.is_given, others)) or (bool(others) and is_given)


def _values(reader: Reader, sentence: str) -> list[Any]:
    """The answers that a sentence mentions outside parentheses."""
    live = live_mentions(reader, sentence)
    if not live:
        return []
    return [mention.value for mention in without_asides(sentence, live) if mention.value is not None]


def _declined(reader: Reader, parts: Sequence[str]) -> Reading:
    """A refusal, which names no answer; undecided between several, it is one that is not understood."""
    named = list[Any]()
    for part in parts:
        for value in _values(reader, part):
            if named and reader.differ(named[0], value):
                return Reading(problem="undecided")
            named.append(value)
    is_undecided = len(reader.distinct(named)) > 1 or (named and any(map(is_hedged, parts)))
    return Reading(problem="undecided") if is_undecided else Reading(problem="refusal", has_no_answer=True)


def _without_answer(reader: Reader, text: str, parts: Sequence[str]) -> Reading:
    if not any(map(str.isalnum, text)):
        return Reading(problem="empty", has_no_answer=True)
    if any(map(reader.declines, parts)):
        return _declined(reader, parts)
    names_none = not any(reader.mentions(part) for part in parts if not is_instruction(reader, part))
    if parts[-1].endswith("?"):
        return Reading(problem="question", has_no_answer=names_none or len(parts) == 1)
    return Reading(problem=f"no {reader.what}", has_no_answer=names_none or is_cut_off(text) or _is_unfinished(parts))


def _is_unfinished(parts: Sequence[str]) -> bool:
    """Whether the last of several sentences lacks its end, which the others have."""
    return len(parts) > 1 and parts[-1][-1].isalnum() and all(part[-1] in ".!?:" for part in parts[:-1])
