"""The answer that a text puts first or stresses: in front of its reasons, in bold, or as the only one called right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hir_core.prompts.phrases import Phrases
from hir_core.rewards.reading.denial import are_alternatives
from hir_core.rewards.reading.reader import DECORATION, NOTHING, Reader, Reading
from hir_core.rewards.reading.sentence import BOLD, after_equals, hedges, in_sentence, live_mentions

_LEAD_IN = re.compile(
    r"(?:[\s*_\"'(\[$`:=≈~>#|•.…\ue000{-]|\b(?:the|an?|it|it's|its|is|are|about|around|approximately|roughly|"
    r"exactly|that|"
    r"that's|option|choice|letter|answer|number|value|final|correct|as follows|follows|there|would|will|be|"
    r"indeed|therefore|thus|"
    r"then|clearly|definitely|simply|most likely|likely|probably|also|just|only|total|a total of|of|equal to|given by|"
    r"x|y|n|i think|i believe|i'd say|so|hence|statement|sentence|argument|following)\b)*+",
    re.IGNORECASE,
)
_REASON = re.compile(r"[\s*_\"'`)\].]*(?:[,;(]|:(?= [a-z])|[-–] (?![\d(])|(?:because|since|as)\b)", re.IGNORECASE)
_AFFIRMS = Phrases(
    r"(?<!not )(?<!not be )(?<!n't )\b(?:correct|true|right|yes|valid)\b(?! of| next)|[✓✅✔]",
    "correct true right yes valid",
    signs=("✓", "✅", "✔"),
)
_MOST_LINES = 60
"""Lines of a text that may each judge another answer."""
_INTERJECTION_WORDS = 3


def leading_answer(reader: Reader, sentence: str) -> Reading:
    """The answer with which a sentence begins."""
    live = live_mentions(reader, sentence)
    lead_in = _LEAD_IN.match(sentence)
    if not live or lead_in is None or live[0].start > lead_in.end() or live[0].value is None:
        return NOTHING
    first = live[0]
    following = [mention for mention in live[1:] if mention.value != first.value]
    if following and reader.differ(first.value, following[0].value):
        last_same = max(m.end for m in live if m.value == first.value and m.start <= following[0].start)
        is_headed = sentence.startswith(": ", last_same)  # `Invalid: to be valid, it would have to ...`
        if not is_headed and are_alternatives(sentence, last_same, following[0].start):
            return in_sentence(reader, sentence)
    return Reading(first.value)


def first_answer(reader: Reader, text: str, parts: Sequence[str]) -> Any:
    """The answer that a text gives first and then explains; None where it begins otherwise."""
    for part in parts[:3]:
        if (value := reader.bare(part)) is not None and not hedges(part):
            if not reader.may_lead(value):
                return None
            return value if len(reader.distinct([value, *_heads(reader, text)])) == 1 else None
        derived = after_equals(reader, part)
        leading = leading_answer(reader, derived)
        if leading.value is not None and _reason_follows(reader, derived) and not hedges(part):
            return leading.value if reader.may_lead(leading.value) else None
        if len(part.split()) > _INTERJECTION_WORDS or reader.mentions(part):
            break
    return None


def _heads(reader: Reader, text: str) -> list[Any]:
    """The answers of which the lines of a text speak, each of one."""
    lines = text.split("\n", _MOST_LINES)
    return [value for line in lines[:_MOST_LINES] if (value := reader.head(line)) is not None]


def affirmed_answer(reader: Reader, text: str) -> Any:
    """The only answer that is called right by its line, where each line judges another one."""
    if "\n" not in text or not _AFFIRMS.may_be_in(text) or len(reader.distinct(_heads(reader, text))) < 2:
        return None
    right = [reader.head(line) for line in text.split("\n")[:_MOST_LINES] if _AFFIRMS.search(line)]
    values = reader.distinct([value for value in right if value is not None])
    return values[0] if len(values) == 1 else None


def _reason_follows(reader: Reader, sentence: str) -> bool:
    """Whether a sentence begins with its answer and goes on with a comma or a reason."""
    first = live_mentions(reader, sentence)[0]
    return not sentence[: first.start].strip(DECORATION) and _REASON.match(sentence, first.end) is not None


def bold_answer(reader: Reader, text: str) -> Any:
    """The only answer that is set in bold type, with nothing else in the bold part."""
    bold = [reader.bare(span[0]) for span in BOLD.finditer(text)] if "**" in text or "__" in text else []
    values = reader.distinct([value for value in bold if value is not None])
    return values[0] if len(values) == 1 else None
