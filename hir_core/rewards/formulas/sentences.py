"""The formula that a sentence states: the only one, or the one that its words single out as the result."""

from __future__ import annotations

import re
from typing import NamedTuple

from hir_core.rewards.formulas.mentions import Mention, mentions
from hir_core.rewards.formulas.notation import without_frame
from hir_core.rewards.formulas.numerals import spelled_number

NO_FORMULA, HEDGED, SEVERAL = "no formula", "hedged", "several formulas"


class Found(NamedTuple):
    """The texts that a completion states as its answer, or why there is none."""

    texts: tuple[str, ...] = ()
    problem: str = ""
    names_none: bool = False
    """Whether the completion names no answer at all."""


NOTHING = Found((), NO_FORMULA, names_none=True)


_HEDGE = re.compile(
    r"\b(?:might|maybe|perhaps|possibly|not sure|unsure|uncertain|cannot (?:tell|decide)|can't (?:tell|decide)|either|"
    r"depending on|depends on|could be|may be|wild guess|don't know|do not know)\b",
    re.IGNORECASE,
)
_SUBORDINATE = re.compile(
    r",?\s+\(?(?:because|since|where|whereas|as|given that|due to|which|so that|for which|"
    r"when|if|rather than|instead of|"
    r"not|with|while|after|assuming|but|and this|and it|for|from|between|among|each|every|by (?=\w+ing))\b",
    re.IGNORECASE,
)
_REASON = re.compile(r"\b(?:because|since|given that|due to)\b", re.IGNORECASE)
_CONCLUDES = re.compile(
    r"\b(?:so|therefore|thus|hence|then|that is|i\.e|to get|we get|get|gives|giving|"
    r"yields?|which (?:is|gives|means)|conclude(?: that)?|"
    r"makes?|making|leaves|equals|totals?|have|(?:add|sum|come|amount)s?(?: up)? to)\b|"
    r"\\(?:therefore|implies|Rightarrow)|∴",
    re.IGNORECASE,
)
_STATES = re.compile(
    r"[a-zA-Z]:\s|\b(?:is|are|was|were|be|equals?|gives?|giving|makes?|making|gets?|"
    r"have|has|becomes?|yields?|total(?:s|ing)?|needs?|takes?|costs?|"
    r"'s|so|therefore|thus|hence|i would say|remains?|left|comes to|of|to)\b",
    re.IGNORECASE,
)
RELATES = re.compile(r"[=<>]|\\(?:le|ge|ne|in)(?![a-z])")
_SUPPOSED = re.compile(
    r"\W*(?:since|because|as|if|when|given(?: that)?|suppose|let|for|with)\b(?:[^,()\[\]]|"
    r"\([^()]*[)\]]|\[[^\[\]]*[)\]])*,\s*(?:then\s+)?",
    re.IGNORECASE,
)
_HINT = re.compile(
    r"\W*(?:(?:first|then|next|now|just|simply|please|you (?:can|should|need to|have to)|"
    r"try to|let us|let's|we (?:can|should|need to)|"
    r"start by|begin by|to \w+[^,]{0,40},)[, ]+)*(?:add|subtract|multiply|divide|use|"
    r"integrate|differentiate|apply|consider|try|cancel|factor|"
    r"complete|substitute|take|set|let|note|recall|remember|solve|simplify|draw|find|"
    r"compute|calculate|count|look|think|"
    r"check|write|expand|square|adding|using|expanding|multiplying|start|begin|see|choose|pick|convert|rewrite|move)\b",
    re.IGNORECASE,
)
_BARE_REST = re.compile(r"[\s.,;:!*_`\"'()$#>-]*(?:(?:\d\w*)?\s*[a-zA-Z]+\s*){0,4}[\s.,;:!*_`\"')$]*")
_BETWEEN = re.compile(r"[\s]*(?:,?\s*(?:and|or)(?:\s+(?:also\s+)?(?:by|to))?|[,;])\s*(?:then\s+)?", re.IGNORECASE)
_OR = re.compile(r"\bor\b", re.IGNORECASE)


def in_sentence(sentence: str, *, follows_announcement: bool = False) -> Found:
    """The formula that a sentence states."""
    sentence = sentence.strip()
    if (supposed := _SUPPOSED.match(sentence)) and mentions(sentence[supposed.end() :]):
        sentence = sentence[supposed.end() :]
    found = joined_mentions(sentence, mentions(sentence))
    if not found:
        spelled = _SAYS_NUMBER.search(sentence)
        if spelled and spelled_number(spelled[1]) is not None:
            return Found((spelled[1],))
        return _words(sentence) if follows_announcement else _only_words(sentence)
    if sentence.endswith("?"):
        return NOTHING
    is_whole = len(found) == 1 and is_bare(sentence, found[0])
    if not is_whole and _HINT.match(sentence) and not _CONCLUDES.search(sentence, 0, found[-1].start):
        return NOTHING
    if _HEDGE.search(sentence):
        return Found((), HEDGED)
    relates = any(RELATES.search(sentence, *mention) for mention in found)
    if not (is_whole or follows_announcement or found[0].start <= 2 or relates or _STATES.search(sentence)):
        return _only_words(sentence)
    chosen = _narrowed(sentence, found)
    texts = dict.fromkeys(sentence[mention.start : mention.end].strip() for mention in chosen)
    if len(texts) > 1:
        return Found((), SEVERAL)
    text = next(iter(texts))
    if not is_whole and text.endswith("!") and chosen[-1].end == len(sentence):
        text = text.removesuffix("!")  # `The answer is 3!`
    return Found((text + _unit_after(sentence, chosen[-1].end),))


def is_bare(sentence: str, mention: Mention) -> bool:
    """Whether a sentence is nothing but a formula and at most a few words behind it."""
    return mention.start <= 3 and _BARE_REST.fullmatch(sentence, mention.end) is not None


_UNIT = re.compile(
    r"[ ]?(?:square |sq\.? |cubic )?(?:mm|cm|dm|m|km|kg|mg|g|lb|ml|l|L|inch(?:es)?|feet|foot|ft|yards?|miles?|"
    r"(?:centi|milli|kilo)?met(?:er|re)s?|(?:kilo)?grams?|lit(?:er|re)s?|seconds?|minutes?|hours?|days?|weeks?|cents?|"
    r"dollars?|radians?)\b(?:\s?\^\{?[23]\}?)?"
)


def _unit_after(sentence: str, end: int) -> str:
    """A unit of measure in words behind a formula."""
    unit = _UNIT.match(sentence, end)
    if unit is None or re.search(r"[a-zA-Z]", sentence[max(0, end - 1) : end]):
        return ""
    return rf" \text{{ {unit[0].strip()}}}" if "^" not in unit[0] else f" {unit[0].strip()}"


_FARTHEST = 30
"""Characters between two formulas that may be one answer."""


def joined_mentions(sentence: str, found: list[Mention]) -> list[Mention]:
    """The mentions, those that only `and`, `or` or a comma separates taken for one."""
    joined = list[Mention]()
    for mention in found:
        is_near = joined and mention.start - joined[-1].end <= _FARTHEST
        if is_near and _BETWEEN.fullmatch(sentence, joined[-1].end, mention.start):
            joined[-1] = Mention(joined[-1].start, mention.end)
        else:
            joined.append(mention)
    return joined


def _narrowed(sentence: str, found: list[Mention]) -> list[Mention]:
    """The mentions, and ever fewer of them until one is left."""
    for narrow in (_without_asides, _before_reason, _after_conclusion, _before_explanation, _after_verb, _relations):
        if len({sentence[mention.start : mention.end] for mention in found}) == 1:
            return found
        found = narrow(sentence, found) or found
    return found


def _without_asides(sentence: str, found: list[Mention]) -> list[Mention]:
    asides = [match.span() for match in re.finditer(r"\((?=[^()]*[a-zA-Z]{3})[^()]*\)", sentence)]
    return [m for m in found if not any(start < m.start and m.end < end for start, end in asides)]


def _after_conclusion(sentence: str, found: list[Mention]) -> list[Mention]:
    ends = [match.end() for match in _CONCLUDES.finditer(sentence, 0, found[-1].start)]
    return [mention for mention in found if ends and mention.start >= ends[-1]]


def _before_reason(sentence: str, found: list[Mention]) -> list[Mention]:
    reason = _REASON.search(sentence, found[0].end)
    return [mention for mention in found if reason and mention.end <= reason.start()]


def _before_explanation(sentence: str, found: list[Mention]) -> list[Mention]:
    explained = _SUBORDINATE.search(sentence, found[0].end)
    return [mention for mention in found if explained and mention.end <= explained.start() + 1]


_VERB = re.compile(r"\b(?:is|are|be|equals?|gives?|makes?|gets?|has|have|costs?|needs?)\b")


def _after_verb(sentence: str, found: list[Mention]) -> list[Mention]:
    ends = [match.end() for match in _VERB.finditer(sentence, 0, found[-1].start)]
    return [mention for mention in found if ends and mention.start >= ends[-1]]


def _relations(sentence: str, found: list[Mention]) -> list[Mention]:
    return [mention for mention in found if RELATES.search(sentence, *mention)]


# --- words -----------------------------------------------------------------------------------------------------------

_LONGEST_WORDS, _LONGEST_TEXT = 5, 200
_SAYS_NUMBER = re.compile(r"\b(?:is|are|equals|makes|gives|get)\s+([a-zA-Z][a-zA-Z -]{2,60}?)[\s.!*]*\Z")
_SOLUTIONS = re.compile(
    r"(?:there (?:is|are) )?no (?:real )?solutions?|(?:the )?empty set|(?:all|any) real numbers?|"
    r"all reals|does not exist|undefined|"
    r"infinitely many(?: solutions)?|infinity",
    re.IGNORECASE,
)
_LETTER_ANSWER = re.compile(r"-?\s?[a-zA-Z]|\d+")


def _words(sentence: str) -> Found:
    """An answer in words after an announcement: a few words, or a letter."""
    words = sentence.strip(" .!*_`\"'")
    if not words or _HEDGE.search(words) or len(words.split()) > _LONGEST_WORDS:
        return NOTHING
    return Found((words,))


def _only_words(sentence: str) -> Found:
    """An answer in words that is a whole sentence: a variable, `no solution`, a number in words."""
    words = short_words(sentence)
    if words and (_LETTER_ANSWER.fullmatch(words) or _SOLUTIONS.fullmatch(words) or spelled_number(words) is not None):
        return Found((words,))
    return NOTHING


def short_words(text: str) -> str:
    """A text of a few words without anything around them; empty for any other text."""
    if len(text) > _LONGEST_TEXT:
        return ""
    words = without_frame(text).strip(" .!*_`\"'()")
    return words if len(words.split()) <= _LONGEST_WORDS and "\n" not in words else ""
