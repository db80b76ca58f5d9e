"""Where the final answer of a completion stands: its statements that commit to an answer, and its sentences.

A text is first brought into a form without reasoning, markup and chat leftovers, in which an answer in a box or a tag
stands between two marks of its own. All rewards that look for an answer within a text find its place here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from hir_core.prompts.phrases import FirstWords, Phrases
from hir_core.rewards.reading.visible import plain, visible
from hir_core.rewards.reward import after_marker

OPEN, CLOSE = "\ue000", "\ue001"
"""Characters of no language that stand for the edges of a box or a tag around an answer."""


class Prepared(NamedTuple):
    """What of a completion may hold its answer."""

    text: str
    problem: str = ""
    """Why there is nothing to read."""
    has_no_answer: bool = False
    """Whether the completion ends before any answer, or is empty."""


def prepared(completion: str, marker: str | None = None, without_markup: Callable[[str], str] = plain) -> Prepared:
    """The text in which to look for the answer: what follows the marker's last occurrence, or all that is visible."""
    text, is_unfinished = visible(completion)
    if not text:
        return Prepared("", "reasoning without an answer" if is_unfinished else "empty", has_no_answer=True)
    after = after_marker(text, marker)
    if after is None:
        return Prepared("", f"no {marker!r}")
    if not after.strip():
        return Prepared("", f"nothing after {marker!r}", has_no_answer=True)
    return Prepared(without_markup(_with_marks(after)).strip())


_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*\{|\\?[{}]")
_BARE_BOX = re.compile(r"\\boxed\s+(\w+)")
_TAG = re.compile(r"<(?P<close>/)?(?:(?:final_?)?answer|ans|solution|result|output)>", re.IGNORECASE)

_FIELD = re.compile(
    r'"(?:final_?)?answer"\s*:\s*(?:"(?P<text>(?:[^"\\\n]|\\.)+)"|(?P<value>-?\d[\d.eE+-]*|true|false)(?=\s*[,}\n]))',
    re.IGNORECASE,
)


def _with_marks(text: str) -> str:
    if "\\" in text and ("boxed" in text or "fbox" in text or "framebox" in text):
        text = _with_marked_boxes(_BARE_BOX.sub(rf"{OPEN}\1{CLOSE}", text))
    if "<" in text:
        text = _with_marked_tags(text)
    if 'nswer"' in text:
        text = _FIELD.sub(_marked_field, text)
    return text


def _marked_field(field: re.Match[str]) -> str:
    """The answer in a JSON object, between marks; a backslash is doubled there, though models often forget to."""
    text = field["text"].replace('\\"', '"').replace("\\\\", "\\") if field["text"] is not None else field["value"]
    return f"{OPEN}{text}{CLOSE}"


def _with_marked_boxes(text: str) -> str:
    pieces, start, braces = [], 0, list[bool]()
    for brace in _BOX.finditer(text):
        if brace[0] in (r"\{", r"\}"):
            continue
        if brace[0] != "}":
            braces.append(brace[0] != "{")
        elif not braces:
            continue
        if brace[0] == "{" or (brace[0] == "}" and not braces.pop()):
            continue
        pieces += [text[start : brace.start()], CLOSE if brace[0] == "}" else OPEN]
        start = brace.end()
    return "".join([*pieces, text[start:]])


def _with_marked_tags(text: str) -> str:
    pieces, start, opened = [], 0, False
    for tag in _TAG.finditer(text):
        closes = tag["close"] is not None
        pieces.append(text[start : tag.start()])
        if closes == opened:
            pieces.append(CLOSE if closes else OPEN)
            opened = not closes
        start = tag.end()
    return "".join([*pieces, text[start:], CLOSE if opened else ""])


# --- statements ------------------------------------------------------------------------------------------------------


class Place(Enum):
    """How an answer stands in its statement."""

    WHOLE = "whole"
    """The statement is the answer: in a box, in a tag."""
    LINE = "line"
    """The statement is the answer, if it is one at all: a line after `####` may also be a heading."""
    AFTER_IS = "after_is"
    """The answer follows a verb: `the answer is ...`."""
    AFTER_LABEL = "after_label"
    """The answer follows a label, or reasoning that leads to it does: `Answer: ...`."""
    BEFORE = "before"
    """The answer comes before a verb: `... is correct`."""


class Statement(NamedTuple):
    """A part of a text that commits to an answer."""

    start: int
    end: int
    place: Place


_ENCLOSED = re.compile(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}")
_HASHES = re.compile(r"^[ ]*####[ ]*(?=[^#\s])(.+)$", re.MULTILINE)
_ADVERB = (
    r"(?:therefore|thus|then|hence|clearly|definitely|simply|also|indeed|most likely|likely|probably|actually|now)"
)
_DECOR = r"[*_`\"')\]]{0,6}"
_IS = (
    r"(?:is|are|was|were|would be|should be|must be|will be|has to be|comes to|equals|becomes|remains|appears to be|"
    r"seems to be|=|≈|→|⇒|->|=>)"
)
_ANNOUNCED = Phrases(
    rf"""
    (?:
      \b(?:answer|ans|verdict|the\ solution)\b
      | ^\W{{0,8}}final(?=\W{{0,4}}:)
      | \b(?:correct|right|best|final|most\ \w{{1,20}})\ (?:(?:answer|multiple)\ )?
        (?:options?|choices?|response|solution|result|conclusion|one|number|value|total|sum|amount|statement|order|list)\b
      | \bmy\ (?:choice|pick|selection|conclusion)\b
    )
    (?:\ (?:to|for|of|in|among|from|given|here)\b[^\n.?!:=]{{0,120}}?)?
    {_DECOR}
    (?: \s?(?:{_ADVERB}\ )?(?P<is>(?<![\w]){_IS}(?![\w]))
      | [ ]?(?P<label>[:]|[-–—](?=\s)|\.(?=\s*\n))
      | [ ](?=\([A-Za-z0-9]\)) )
    | ^\W{{0,8}}(?:final\ |correct\ )?answer\W{{0,8}}$(?P<heading>)
    | ^\W{{0,8}}(?:final\ )?answer[ ]+(?=[A-Z0-9($])
    | \b(?:I|we)(?:'d|'ll|\ would|\ will|\ must|\ can|\ have\ to|\ should)?\ (?:{_ADVERB}\ )?
      (?:choose|pick|select|go\ with|opt\ for|vote\ for|say|answer|conclude)(?:\ that)?\b(?:\ (?:is|it'?s|it\ is))?
    | \b(?:go|going)\ with\b
    """,
    "answer ans verdict solution final correct right best most my choose pick select go opt vote say conclude going",
    first=FirstWords(
        "answer", "ans", "verdict", "the solution", "final", "correct", "right", "best", "most", "my", "i", "we", "go",
        "going",
    ),
    flags=re.VERBOSE | re.MULTILINE,
)  # fmt: skip
_HYPOTHETICAL = Phrases(
    r"\b(?:if|whether|suppose|supposing|assum(?:e|ing)|unless|why|how|what|which|when|to|let's|let us|"
    r"check(?:ing)?|verify|"
    r"find|determine|get|guess|each|every|possible|potential|wrong|incorrect|previous|initial|other|here's|"
    r"here is|here are)\b[^.,;:\n]{0,60}\Z",
    "if whether suppose supposing assume assuming unless why how what which when to let check checking verify find "
    "determine get guess each every possible potential wrong incorrect previous initial other here",
)
_LIKELY = rf"(?:(?:{_ADVERB}|in fact|obviously|certainly)\s+){{0,3}}"
_IS_ANSWER = Phrases(
    rf"""\b(?:is|are|was|would\ be|must\ be|has\ to\ be|seems|appears|seems\ to\ be|appears\ to\ be)\s+{_LIKELY}
    (?:the\ |my\ |our\ )?(?:(?:only|single|final|most\ \w{{1,20}})\ )?
    (?:(?:correct|right(?!\ (?:of|next|above|below|behind|in|after|before|to|at|hand|side)\b)|true|accurate|best)
    (?:\ (?:final\ )?(?:answer|option|choice|response|one|statement|conclusion|
    solution|fit|match))?|answer|option\ that\ (?:is|fits|matches))\b(?!\ (?:if|when|to\ say|that|about))""",
    "correct right true accurate best answer option",
    first=FirstWords("is", "are", "was", "would", "must", "has", "seems", "appears"),
    flags=re.VERBOSE,
)
_MOST_STATEMENTS = 100
"""A text that repeats itself has more; the first and the last ones tell enough."""
_SENTENCE_START = re.compile(r"[.!?]\s|\n")


def statements(text: str) -> list[Statement]:
    """The statements of a prepared text that commit to an answer, in order."""
    found = [Statement(*match.span(1), Place.WHOLE) for match in _ENCLOSED.finditer(text)] if OPEN in text else []
    if "####" in text:
        found += [Statement(*match.span(1), Place.LINE) for match in _HASHES.finditer(text)][-1:]
    for match in _ANNOUNCED.finditer(text):
        if not _HYPOTHETICAL.search(text, max(0, match.start() - 80), match.start()) and not _is_asked(
            text, match.end()
        ):
            is_label = match["label"] is not None or match["heading"] is not None
            place = Place.AFTER_LABEL if is_label else Place.AFTER_IS
            found.append(Statement(match.end(), len(text), place))
    for match in _IS_ANSWER.finditer(text):
        start = _start_of_sentence(text, match.start())
        if not _HYPOTHETICAL.search(text, max(start, match.start() - 80), match.start()) and not _is_asked(
            text, match.end()
        ):
            found.append(Statement(start, match.start(), Place.BEFORE))
    found.sort()
    return found if len(found) <= _MOST_STATEMENTS else found[: _MOST_STATEMENTS // 2] + found[-_MOST_STATEMENTS // 2 :]


def _is_asked(text: str, position: int) -> bool:
    end = _SENTENCE_END.search(text, position, position + 300)
    return end is not None and "?" in end[0]


_LONGEST_SENTENCE = 400
"""Characters before a verb among which its subject is looked for."""


def _start_of_sentence(text: str, position: int) -> int:
    earliest = max(0, position - _LONGEST_SENTENCE)
    ends = [match.end() for match in _SENTENCE_START.finditer(text, earliest, position)]
    return ends[-1] if ends else earliest


# --- sentences -------------------------------------------------------------------------------------------------------

# It begins with the characters that it is looked for by, which is several times faster than two alternatives.
_SENTENCE_END = re.compile(r"[.!?。\n](?:(?<=\n)|[.!?。]*[\"')\]*_`$\ue001]*(?=\s|\Z))")
_ABBREVIATIONS = (
    "e.g", "i.e", "vs", "mr", "mrs", "ms", "dr", "st", "approx", "etc", "fig", "eq", "jr", "sr", "prof", "u.s", "a.m",
    "p.m",
)  # fmt: skip
_ABBREVIATED = re.compile(rf"\b(?:{'|'.join(map(re.escape, _ABBREVIATIONS))})\Z", re.IGNORECASE)
_ITEM_NAME = re.compile(r"\W*(?:[^\W\d]|(?P<number>\d{1,3}))")
_NUMBERED_LINE = re.compile(r"^\W*\d{1,3}\.\s", re.MULTILINE)


def sentences(text: str) -> list[str]:
    """The sentences of a text; a line break ends one, a full stop after an item's letter or number or `Dr` does not."""
    found, start = list[str](), 0
    for end in _SENTENCE_END.finditer(text):
        if end[0][0] == "." and text[end.end() : end.end() + 1] not in ("\n", "") and _is_inside(text, start, end):
            continue
        if sentence := text[start : end.end()].strip():
            found.append(sentence)
        start = end.end()
    if rest := text[start:].strip():
        found.append(rest)
    return found


def _is_inside(text: str, start: int, stop: re.Match[str]) -> bool:
    """Whether a full stop ends no sentence but an abbreviation, or the letter or the number of an item."""
    earliest = max(start, stop.start() - 8)
    if text[earliest : stop.start()].casefold().endswith(_ABBREVIATIONS) and _ABBREVIATED.search(
        text, earliest, stop.start()
    ):
        return True
    name = _ITEM_NAME.fullmatch(text, start, stop.start())
    return name is not None and (not name["number"] or len(_NUMBERED_LINE.findall(text)) > 1)
