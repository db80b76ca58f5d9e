"""Where the final formula of a completion stands: in a box, after an announcement, or in its last statement."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from hir_core.rewards.formulas.mentions import LONGEST, mentions
from hir_core.rewards.formulas.notation import closing, in_plain_characters
from hir_core.rewards.formulas.sentences import HEDGED, NOTHING, RELATES, Found, in_sentence, joined_mentions

_MOST_STATEMENTS = 30
"""Boxes or announcements, counted from the end, that are looked at."""
_THOUGHT = re.compile(r"<(think|thinking|reasoning|thought)>", re.IGNORECASE)
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning|thought)>", re.IGNORECASE)
_LEFTOVER = re.compile(r"<\|[^|<>]{1,40}\|>|</?s>|<end_of_turn>")
_TAGGED = re.compile(r"<(?P<tag>answer|final_answer)>(?P<answer>.*?)(?:</(?P=tag)>|\Z)", re.IGNORECASE | re.DOTALL)
_FIELD = re.compile(r'"(?:final_?)?answer"\s*:\s*(?:"(?P<text>[^"\n]+)"|(?P<bare>[^",}\n]+))', re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w)\]}*])\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*(?![\w(*])|(?<!\w)__(?=\S)([^_\n]+?)__(?!\w)")
_QUOTED = re.compile(r"(?<![\w'\")}])(['\"])(?=\S)([^'\"\n]+)\1(?![\w'])")
_RESTATED = re.compile(
    r"(?<=[\d%}$])[ ]+\((?!\s*\\?(?:mod|pmod|sin|cos|tan|ln|log|exp|sqrt)\b)[^()]*(?:[%=]|[a-z]{2,})[^()]*\)"
)
_NAMED = re.compile(r"(?<![\w'])([b-zB-HJ-Z]) is (?=-?[$\\\d.])")
_NEGATIVE = re.compile(r"\bnegative (?=[\d\\$])|(?:(?<=is )|\A\s*)minus (?=[\d\\$])", re.IGNORECASE)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:\{|(?=\w))")
_JOINS_BOXES = re.compile(r"[\s$,.;)(\\]*(?:(?:and|or)[\s$,.;(\\]*(?:\w\s*=\s*)?)?")
_ANNOUNCED = re.compile(
    r"(?:\b(?:final |correct )?(?:answer|solution|result)s?\b(?: (?:to|for|of|in)\b[^\n.?!:=$]{0,80}?)?\s*"
    r"(?:\bis(?: that)?\b|\bare\b|\bwould be\b|\bmust be\b|\bshould be\b|=|:)+\s*(?:therefore|"
    r"thus|simply|equal to)?[:\s]*"
    r"|^\W{0,6}(?:final )?answer\W{0,6}$\s*|^[ ]*####[ ]*)",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"(?<!\be\.g)(?<!\bi\.e)[.!?]+(?=[\s\"')\]*$]|\Z)|\n\s*\n|\n(?=\s*(?:[-*#]|\d+\.)\s)|\n")
_TAKEN_BACK = re.compile(
    r"\b(?:wait|actually|correction|scratch that|i made (?:a|an) (?:mistake|error)|"
    r"let me re-?\w+)\b",
    re.IGNORECASE,
)


def final_formula(completion: str) -> Found:
    """The texts that a completion, or the part of it after a marker, states as its answer."""
    text = visible(completion)
    if text is None or not text.strip():
        return NOTHING
    text = _BOLD.sub(lambda bold: bold[1] or bold[2], in_plain_characters(text))
    text = _NAMED.sub(r"\1 = ", _NEGATIVE.sub("-", _RESTATED.sub("", text)))
    if tagged := [*_TAGGED.finditer(text)]:
        text = tagged[-1]["answer"]
    elif fields := [*_FIELD.finditer(text)]:
        text = (fields[-1]["text"] or fields[-1]["bare"]).replace("\\\\", "\\")
    text = _QUOTED.sub(r"\2", text)
    if boxes := _boxes(text):
        return Found(boxes)
    announced = [match.end() for match in _ANNOUNCED.finditer(text)]
    for end in reversed(announced[-_MOST_STATEMENTS:]):
        line = _first_line(text[end : end + LONGEST])
        found = in_sentence(line, follows_announcement=True)
        if found != NOTHING:
            return found
    return _concluded(text.strip())


def visible(completion: str) -> str | None:
    """The completion without reasoning and leftovers of chat templates; None where its reasoning does not end."""
    ends = [match.end() for match in _THOUGHT_END.finditer(completion)]
    text = completion[ends[-1] :] if ends else completion
    return None if _THOUGHT.search(text) else _LEFTOVER.sub(" ", text)


def _boxes(text: str) -> tuple[str, ...]:
    """The contents of the boxes; those that only `and` or a comma separates are one answer."""
    groups, previous = list[str](), -1
    for box in [*_BOX.finditer(text)][-_MOST_STATEMENTS:]:
        if box.start() < previous:
            continue
        if box[0].endswith("{"):
            end = closing(text[: box.end() + LONGEST], box.end() - 1)
            if end < 0:
                continue
            content, end = text[box.end() : end], end + 1
        else:
            content, end = text[box.end() : box.end() + 1], box.end() + 1
        joins = groups and _JOINS_BOXES.fullmatch(text, previous, box.start())
        if joins and re.search(r"and|or|,", joins[0]):
            groups[-1] += f"{' or ' if 'or' in joins[0] else ', '}{content}"
        else:
            groups.append(content)
        previous = end
    if len(groups) > 1 and _TAKEN_BACK.search(text):
        groups = groups[-1:]
    return tuple(dict.fromkeys(" ".join(group.split()) for group in groups if group.strip()))


def _first_line(text: str) -> str:
    """The first sentence of a text."""
    text = text.lstrip()
    return next((text[slice(*span)] for span in _sentences(text) if text[slice(*span)].strip(" *_#")), "")


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Where the sentences of a text are; within formulas none ends."""
    inside, start = mentions(text), 0
    starts = [mention.start for mention in inside]
    for end in _SENTENCE_END.finditer(text):
        before = bisect_right(starts, end.start()) - 1
        if before >= 0 and end.start() < inside[before].end:
            continue
        if text[start : end.end()].strip():
            yield start, end.end()
        start = end.end()
    if text[start:].strip():
        yield start, len(text)


# --- conclusions ----------------------------------------------------------------------------------------------------


def _system(text: str) -> Found:
    """Lines that are nothing but equations, taken for one answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    names = [line.partition("=")[0].strip() for line in lines]
    are_values = all(
        re.fullmatch(r"[a-zA-Z]\w?", name) and _is_covered(line) for name, line in zip(names, lines, strict=True)
    )
    return Found((", ".join(lines),)) if len(lines) > 1 and are_values and len({*names}) == len(names) else NOTHING


def _concluded(text: str) -> Found:
    """What a text without a box or an announcement states: as a whole, or in its last sentence with a formula."""
    if (system := _system(text)) != NOTHING:
        return system
    whole = in_sentence(text) if "\n" not in text.strip() or _is_covered(text) else NOTHING
    parts = [text[slice(*span)].strip() for span in _sentences(text)]
    if len(parts) <= 1:
        return whole
    if lead := _lead(parts):
        return lead
    if _CUT_OFF.search(parts[-1]):
        return Found((), "ends before its answer", names_none=True)
    for part in reversed(parts):
        found = in_sentence(part)
        if found != NOTHING:
            return found
        if _UNDECIDED.search(part):
            return Found((), HEDGED)
    return NOTHING


_UNDECIDED = re.compile(
    r"\b(?:(?:I|we)(?: \w+)? (?:cannot|can't|can not|could not|couldn't) (?:tell|decide|choose|say)|"
    r"I(?:'m| am)(?: \w+)? (?:not sure|unsure|undecided))\b",
    re.IGNORECASE,
)
"""Said after a formula, it takes the formula back."""
_CUT_OFF = re.compile(
    r"(?:\b(?:is|are|the|a|an|of|and|or|by|to|with|so|equals|that|then|we|for|in|from|"
    r"have)|[=+*/(,-])\s*\Z"
)
_CONCLUDING = re.compile(
    r"\W*(?:so|therefore|thus|hence|finally|in total|altogether|actually|wait|no)\b", re.IGNORECASE
)


def _lead(parts: list[str]) -> Found | None:
    """The formula that a text gives first, with nothing else in its sentence, and then explains."""
    covered = joined_mentions(parts[0], mentions(parts[0]))
    if (
        len(covered) != 1
        or covered[0].start > 3
        or parts[0][covered[0].end :].strip(" .!*`)$")
        or RELATES.search(parts[0])
    ):
        return None
    first = in_sentence(parts[0])
    later = [in_sentence(part) for part in parts[1:] if _CONCLUDING.match(part)]
    return Found(first.texts + later[-1].texts if later else first.texts) if first.texts else None


def _is_covered(text: str) -> bool:
    return any(mention.start <= 2 and mention.end >= len(text) - 2 for mention in mentions(text))
