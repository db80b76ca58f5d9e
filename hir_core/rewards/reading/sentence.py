"""The answer that one sentence gives: the only one that it mentions, or the one that it stresses or derives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from hir_core.prompts.phrases import Phrases
from hir_core.rewards.reading.denial import are_alternatives, is_denied, is_hedged, is_joined, is_open
from hir_core.rewards.reading.reader import NOTHING, Mention, Reader, Reading

LONGEST_SENTENCE = 2000
"""Characters: in a longer one, nobody finds the answer."""
_SO = Phrases(
    r"\b(?:so|therefore|thus|hence|consequently|for a total of|a total of|making|leaving|giving|to get|we get|meaning|"
    r"implies|conclude|which (?:means|makes|gives|leaves|is|leads to))\b|∴|⇒|→|->|=>",
    "so therefore thus hence consequently total making leaving giving get meaning implies conclude which",
    signs=("->", "=>", "∴", "⇒", "→"),
)
_EQUALS = re.compile(r"(?<![<>!≤≥=])=(?!=)|≈")
_RESULT_VERB = Phrases(
    r"\b(?:is|are|was|were|be|equals?|makes?|gives?|gets?|yields?|leaves?|has|have|had|becomes?|remains?|to|of|totals?|"
    r"evaluates? to)\b",
    "is are was were be equal equals make makes give gives get gets yield yields leave leaves has have had become "
    "becomes remain remains to of total totals",
)
_EXPLAINS = Phrases(
    r"\b(?:because|since|as\b(?! a result)|given that|due to|considering|where|whereas|while|although|though|despite|"
    r"after|before|when|if|based on|according to|compared (?:to|with)|out of|including|consisting of|"
    r"which includes?)\b|:",
    "because since as given due considering where whereas while although though despite after before when if based "
    "according compared out including consisting which",
    signs=(":",),
)
_GIVES_REASON = Phrases(
    r"\b(?:because|since|given that|due to|after|before|when|if|out of)\b",
    "because since given due after before when if out",
)
_CONDITION = re.compile(r"\W*(?:if|when|after|since|because|as|given|with)\b", re.IGNORECASE)
_BECAUSE = Phrases(r"\b(?:because|since)\b", "because since")
_COLON = re.compile(r":(?=\s)")
_INSTRUCTS = Phrases(
    r"\A\W*(?:(?:first|then|next|now|just|simply|please|you (?:can|should|need to|have to)|try to|let us|let's|"
    r"we (?:can|should|need to)|start by|begin by|to \w+[^,]{0,40},)[, ]+)*(?:add|subtract|multiply|divide|use|"
    r"integrate|differentiate|apply|consider|cancel|factor|complete|substitute|note(?! that)|recall|"
    r"remember|solve|simplify|find|compute|calculate|expand|square|"
    r"start|begin|convert|rewrite)\b",
    "add subtract multiply divide use integrate differentiate apply consider cancel factor complete substitute note "
    "recall remember solve simplify find compute calculate expand square start begin convert rewrite",
)
_CALCULATION = re.compile(r"[\s$(]*+\d(?:[^a-zA-Z=\\]|\\[a-z]++)*+=")
"""An answer that is a calculation with numbers: `2 * 2 = 4`."""
_COMMA = re.compile(", ")
ASIDE = re.compile(r"\([^()]*\)")
_BETWEEN = Phrases(
    r"\b(?:from|between)\b[^,.;\n]{1,40}?\b(?:to|and|until)\b\s*[^\s,;]+(?: [ap]\.?m\b\.?)?", "from between"
)
BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")


@lru_cache(maxsize=256)  # several rules ask for those of the same sentence
def live_mentions(reader: Reader, sentence: str) -> tuple[Mention, ...]:
    """The mentions that are not denied."""
    live, denied_end = list[Mention](), None
    for mention in reader.mentions(sentence):
        denied = mention.can_be_denied and (
            is_denied(sentence, mention.start, mention.end)
            or (denied_end is not None and is_joined(sentence, denied_end, mention.start))
        )
        denied_end = mention.end if denied else None
        if not denied:
            live.append(mention)
    return tuple(live)


def in_sentence(reader: Reader, sentence: str) -> Reading:
    """The answer that a sentence gives: the only one, or the one that it stresses or derives."""
    if len(sentence) > LONGEST_SENTENCE:
        return Reading(problem="endless sentence", is_firm=False)
    live = live_mentions(reader, sentence)
    if not live:
        return NOTHING
    if hedges(sentence):
        return Reading(problem="hedged", is_firm=False)
    for narrowed in _narrowed(reader, sentence, live):
        values = reader.distinct([mention.value for mention in narrowed])
        if len(values) == 1:
            return Reading(problem=f"unclear {reader.what}", is_firm=False) if values[0] is None else Reading(values[0])
    return Reading(problem=f"several {reader.what}s", is_firm=False)


def hedges(sentence: str) -> bool:
    """Whether a sentence leaves its answer open; what leaves only its reason open does not count."""
    reason = _BECAUSE.search(sentence, 1)
    return is_hedged(sentence[: reason.start()] if reason else sentence)


def is_instruction(reader: Reader, sentence: str) -> bool:
    """Whether a sentence only tells how to calculate: `First, add 3 to both sides.`"""
    if not reader.computes or _INSTRUCTS.match(sentence) is None or _SO.search(sentence) or _COLON.search(sentence):
        return False
    return not _ends_outside(_EQUALS, sentence, reader.mentions(sentence))


def _narrowed(reader: Reader, sentence: str, live: Sequence[Mention]) -> Iterator[Sequence[Mention]]:
    """The mentions, and ever fewer of them: without asides, without explanations, after the words that conclude."""
    yield live
    yield (live := without_asides(sentence, live))
    bold = [span.span() for span in BOLD.finditer(sentence)] if "**" in sentence or "__" in sentence else []
    if stressed := [m for m in live if any(start <= m.start and m.end <= end for start, end in bold)]:
        yield stressed
    if reader.computes and _CONDITION.match(sentence):
        comma = next(iter(_ends_outside(_COMMA, sentence, live)), -1)
        yield (live := [m for m in live if m.start >= comma] or live)
    yield (live := _after_last(_SO, sentence, live))
    if any(is_open(sentence, one.end, other.start) for one, other in pairwise(live) if one.value != other.value):
        return
    if reader.computes:
        yield from _derived(reader, sentence, live)
    elif (explained := _EXPLAINS.search(sentence, live[0].end)) and live[0].start < explained.start():
        yield [m for m in live if m.start < explained.start()]


def _derived(reader: Reader, sentence: str, live: Sequence[Mention]) -> Iterator[Sequence[Mention]]:
    """The mentions that a sentence derives from its others."""
    yield (live := _after_last(_EQUALS, sentence, live))
    for colon in _COLON.finditer(sentence, live[0].end, live[-1].start):
        before, after = [m for m in live if m.start < colon.start()], [m for m in live if m.start > colon.start()]
        yield before if len(before) < len(after) else after
    new = [mention for mention in live if mention.value is None or not reader.is_given(mention.value)]
    explained = _GIVES_REASON.search(sentence, live[0].end)
    if (
        explained
        and (before := [m for m in live if m.start < explained.start()])
        and (not new or any(m in new for m in before))
    ):
        yield (live := before)
        new = [mention for mention in new if mention in live]
    if not any(are_alternatives(sentence, one.end, other.start) for one, other in pairwise(live)):
        yield new  # before the verbs: in `100 cents make 1 dollar` the dollar is the question's
    yield [m for m in live if _CALCULATION.match(sentence, m.start, m.end)]
    yield _after_last(_RESULT_VERB, sentence, live)


def without_asides(sentence: str, live: Sequence[Mention]) -> Sequence[Mention]:
    """The mentions outside parentheses and spans (`from 9 to 17`), unless all are inside."""
    asides = [aside.span() for aside in ASIDE.finditer(sentence)] if "(" in sentence else []
    asides += [(span.start(), span.end() + 1) for span in _BETWEEN.finditer(sentence)]
    return [m for m in live if not any(start < m.start and m.end < end for start, end in asides)] or live


def _after_last(words: Phrases | re.Pattern[str], sentence: str, live: Sequence[Mention]) -> Sequence[Mention]:
    """The mentions after the last of the words that is followed by any; all mentions where there is none."""
    ends = _ends_outside(words, sentence[: live[-1].start + 1], live)
    return [mention for mention in live if mention.start >= ends[-1] - 1] if ends else live


def _ends_outside(words: Phrases | re.Pattern[str], text: str, mentions: Sequence[Mention]) -> list[int]:
    """Where each of the words ends that is no part of an answer, as the equals sign of `x = 3` may be."""
    ends = [match.end() for match in words.finditer(text)]
    return [end for end in ends if not any(mention.start < end <= mention.end for mention in mentions)]


def after_equals(reader: Reader, sentence: str) -> str:
    """The sentence from its last equals sign on, where an answer follows that."""
    if not reader.computes or "=" not in sentence:
        return sentence
    last = _ends_outside(_EQUALS, sentence, reader.mentions(sentence))[-1:]
    return sentence[last[0] :] if last and reader.mentions(sentence[last[0] :]) else sentence
