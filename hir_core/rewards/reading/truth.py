"""Yes and no as answers, and the pairs of words that mean the same: true and false, valid and invalid."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from hir_core.rewards.reading.denial import is_hedged
from hir_core.rewards.reading.reader import DECORATION, Mention, Reader

_PAIRS = """yes no|true false|valid invalid|correct incorrect|right wrong|plausible implausible|possible impossible|
likely unlikely|consistent inconsistent|acceptable unacceptable|grammatical ungrammatical|equivalent inequivalent|
entailed contradicted|safe unsafe|legal illegal|moral immoral|logical illogical|sarcastic unsarcastic|fair unfair|
toxic non-toxic|similar dissimilar|relevant irrelevant|sufficient insufficient|solvable unsolvable|ethical unethical"""
PAIRS: tuple[tuple[str, str], ...] = tuple(
    (positive, negative) for positive, negative in (pair.split() for pair in _PAIRS.split("|"))
)
_SYNONYMS = {"yes": ("yes", "yeah", "yep", "yup"), "no": ("no", "nope")}
_ALWAYS_ALIKE = ("yes", "true")
"""The pairs that answer the same questions."""


_POLARITIES: dict[str, tuple[str, bool]] = {}
for _positive, _negative in PAIRS:
    for _word, _value in ((_positive, True), (f"not {_positive}", False), (_negative, False)):
        _POLARITIES.setdefault(_word, (_positive, _value))


def polarity(text: str) -> tuple[str, bool] | None:
    """The positive word of the pair to which a short text belongs, and whether it is that one; None for another."""
    return _POLARITIES.get(text.strip(DECORATION).lower())


_CORRECT = {"correct": True, "incorrect": False, "wrong": False, "affirmative": True, "negative": False}
_CORRECT |= {
    f"{lead} {word}": value for word, value in _CORRECT.items() for lead in ("that's", "that is", "it is", "this is")
}


class TruthReader(Reader):
    """Reads yes or no, as True and False.

    Args:
        pair: the positive word of the pair in which the reference answers.
        query: the question; where it asks for one word of a pair only (`Is it valid?`), that pair means yes and no.
    """

    what = "truth value"
    computes = True
    may_be_subject = False

    def __init__(self, pair: str, query: str) -> None:
        words = set(re.findall(r"[a-z-]+", query.lower()))
        asked = [positive for positive, negative in PAIRS[2:] if positive in words and negative not in words]
        others = [pair_name for pair_name in _ALWAYS_ALIKE if pair in _ALWAYS_ALIKE and pair_name != pair]
        if pair == "yes":
            others += asked[:1]
        elif pair in asked:
            others += ["yes"]
        self.words = [_words_of(name) for name in (pair, *others)]
        self.alone = _CORRECT if pair in _ALWAYS_ALIKE else {}
        self.patterns = [_pattern(words) for words in self.words]

    def bare(self, text: str) -> bool | None:
        word = text.strip(DECORATION + "-•").lower()
        for words in (*self.words, self.alone):
            if (value := words.get(word)) is not None and not text.rstrip().endswith("?"):
                return value
        if len(text) > 300 or text.rstrip().endswith("?"):
            return None
        mentions = self.mentions(text)
        values = {mention.value for mention in mentions}
        is_first = mentions and not text[: mentions[0].start].strip(DECORATION)
        if (
            len(values) == 1
            and None not in values
            and _BUT.search(text) is None
            and not is_hedged(text)
            and (is_first or _PLAIN_CLAIM.fullmatch(text, 0, mentions[0].start))
        ):
            return mentions[0].value is True
        return None

    def mentions(self, text: str) -> Sequence[Mention]:
        for words, pattern in zip(self.words, self.patterns, strict=True):
            if found := list(_found(text, words, pattern)):
                return found
        return []


_PLAIN_CLAIM = re.compile(
    r"[\s*_\"'(>#]*(?:(?:that|this|it|the (?:given |above |following )?(?:argument|statement|sentence|claim|"
    r"answer|conclusion|expression))\s+"
    r"(?:is|was|evaluates to|would be)|it's|that's)[\s*_\"':]*(?:clearly |definitely |deductively |logically |"
    r"therefore |thus )?",
    re.IGNORECASE,
)
_BUT = re.compile(r", (?:but|though|although)\b", re.IGNORECASE)
_BEFORE_NO = re.compile(
    r"(?:\A|\b(?:is|be|say|so|therefore|thus|hence|answer|that|and|but|or)|[:\"'*(=→.!?\n)\ue000])[,\s*_\"'(]*\Z",
    re.IGNORECASE,
)
_AFTER_NO = re.compile(
    r"[\s*_\"')]*(?:[,.;:!\n\ue001—–(-]|\Z|\b(?:because|since|as|it|this|that|they|he|she|we|not|the)\b)", re.IGNORECASE
)
_NOT_STATED = re.compile(
    r"\b(?:whether|if|for\b[^.,;\n]{0,60}\bto be|would have to be|either)\b[^.,;\n]{0,80}\Z", re.IGNORECASE
)


def _words_of(positive: str) -> dict[str, bool]:
    negative = dict(PAIRS)[positive]
    words = dict.fromkeys(_SYNONYMS.get(positive, (positive,)), True) | dict.fromkeys(
        _SYNONYMS.get(negative, (negative,)), False
    )
    return words | (
        {}
        if positive == "yes"
        else {f"not {positive}": False, "untrue": False}
        if positive == "true"
        else {f"not {positive}": False}
    )


def _pattern(words: dict[str, bool]) -> re.Pattern[str]:
    names = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True) if " " not in word)
    return re.compile(
        rf"\b(?P<both>(?:{names})\s*(?:/|,? or|\band\b)\s*(?:{names}|not)\b)"
        rf"|(?P<not>(?:\bnot|n't|\bnever|\bcannot be|\bnor|"
        rf"\bneither)\s+(?:(?!not\b)\w+\s+){{0,2}}?)?\b(?P<word>{names})\b",
        re.IGNORECASE,
    )


def _found(text: str, words: dict[str, bool], pattern: re.Pattern[str]) -> Iterable[Mention]:
    for match in pattern.finditer(text):
        if _NOT_STATED.search(text, max(0, match.start() - 100), match.start()):
            continue
        if match["both"]:
            yield Mention(match.start(), match.end(), None, can_be_denied=False)
            continue
        word = match["word"].lower()
        is_no = word in ("no", "yes")
        if word == "no" and not (
            _BEFORE_NO.search(text, max(0, match.start() - 20), match.start()) and _AFTER_NO.match(text, match.end())
        ):
            continue
        value = words[word] != bool(match["not"] and not is_no)
        yield Mention(match.start(), match.end(), value, can_be_denied=False)
