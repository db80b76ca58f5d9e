"""Texts as answers: whether a completion answers with a reference's words, with others, or cannot be understood."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hir_core.rewards.reading.denial import after_correction, is_denied, is_hedged, is_refusal
from hir_core.rewards.reading.final_answer import Place, Statement, prepared, sentences, statements
from hir_core.rewards.reading.formulas import are_same, is_formula, symbols_of
from hir_core.rewards.reading.reader import Reading
from hir_core.rewards.reading.words import STOP_WORDS, words_of

_ASIDE = re.compile(r"\([^()]*\)")
_NOT_BUT = re.compile(r"\bnot\b[^\n]{0,200}\bbut\b", re.IGNORECASE)
_REASON = re.compile(
    r"\b(?:because|since|as it|as he|as she|as they|given that)\b|,\s*(?:which|who|as|not|rather|of course|"
    r"followed|and not|i)\b|"
    r";|[.!] | [-–] ",
    re.IGNORECASE,
)
_LEAD_IN = re.compile(
    r"(?:[\s*_\"'(\[$`:=>#|•\ue000-]|\b(?:it|it's|its|this|that|that's|there|is|are|was|were|i think|i believe|i'd say|"
    r"he is|she is|he was|she was|they are|they were|so|therefore|thus|hence|then|the (?:correct |"
    r"final )?answer|answer|called|"
    r"named|likely|probably|must be|would be|sure|okay|ok|yes|of course|certainly|indeed|clearly|definitely|"
    r"simply|also|"
    r"just)\b[,!]?)*+",
    re.IGNORECASE,
)
_INTERJECTION = re.compile(
    r"\W*(?:ok(?:ay)?|h+m+|sure|hello|hi|thanks|thank you|right|well|interesting question|(?:good|great) question|"
    r"interesting|let me (?:see|think)|let's see|n/a|none|unknown)\W*",
    re.IGNORECASE,
)
_BECAUSE = re.compile(r",? \b(?:because|since)\b", re.IGNORECASE)
_DESCRIBES = re.compile(
    r"\b(?:is|are|was|were)\b(?: \w+)?(?: (?:in|on|at))? (?:an?|some|most|many|several|one of)\b", re.IGNORECASE
)
"""`X is a country`: says what something is like, and names nothing."""
_IS = re.compile(r"\b(?:is|are|was|were|be|called|named)\b", re.IGNORECASE)
_BY = re.compile(r"\b(?:was|were|is|are) \w+ by\b", re.IGNORECASE)
_SENTENCE = re.compile(
    r"\W*(?:i|he|she|it|they|we|you|this|there|here|let|let's|first|next|find|take|look|group)\b(?! (?:is|are|"
    r"was|were)\b)|"
    r".*\b(?:is|are|was|were|has|have|had|can|cannot|do|does|did|will|would|know|need|see|means?|should|must)\b",
    re.IGNORECASE,
)
_LABELLED = re.compile(r"[^:\n]{1,40}[:=→]+[\s*]*(?=\S)")
_RESULT_IS = re.compile(
    r"\W*(?:(?:so|thus|therefore|hence),? )?the (?:result|output|outcome|solution|conclusion) (?:is|was|would be)\b:?",
    re.IGNORECASE,
)
_ITEM = re.compile(r"\s*(?:[-*•+]|\d{1,3}[.)])\s")
_LINE = re.compile(r"[^\n]*\S[^\n]*")
_LONGEST = 600
_LONGEST_LABEL = 4
_LONGEST_VERB = 40


class TextReader:
    """Compares what a completion answers with texts.

    Args:
        references: the accepted texts.
        query: the question; words that only repeat it are no part of an answer.
    """

    def __init__(self, references: Sequence[str], query: str) -> None:
        self.words = [words for reference in references if (words := words_of(reference))]
        self.plain = {" ".join(reference.split()).lower() for reference in references}
        self.is_formula = any(map(is_formula, references))
        self.symbols = [symbols_of(reference) for reference in references]
        self.query = frozenset(words_of(query)) - STOP_WORDS
        self.asked = f" {' '.join(words_of(query))} "
        self.own = {word for words in self.words for word in words} - STOP_WORDS
        self.longest = max(map(len, self.words), default=0)
        self._spelled = [
            re.compile(r"(?<!\w)" + r"[\W_]{1,3}".join(map(re.escape, words)) + r"(?!\w)") for words in self.words
        ]

    def read(self, completion: str, marker: str | None = None) -> Reading:
        """True where the completion answers with a reference, False where it answers with something else."""
        if marker is None and " ".join(completion.split()).lower().rstrip(".") in self.plain:
            return Reading(True)
        found = prepared(completion, marker)
        if not found.text:
            return Reading(problem=found.problem, has_no_answer=found.has_no_answer)
        text = found.text
        if marker is not None and (line := _LINE.search(text)) and (verdict := self._phrase(line[0])) is not None:
            return Reading(verdict)
        back = after_correction(text)
        if back is not None and (corrected := self._text(text[back:])).value is not None:
            return corrected
        return self._text(text)

    def _text(self, text: str) -> Reading:
        if self._equals(text):
            return Reading(True)
        stated = [verdict for s in statements(text) if (verdict := self._statement(text, s)) is not None]
        if stated:
            return Reading(stated[0]) if len(set(stated)) == 1 else Reading(problem="several answers")
        parts = sentences(text)
        told = [part for part in parts if not part.endswith("?")]
        if not told:
            return Reading(problem="question", has_no_answer=True)
        if is_refusal(told[0]) or is_refusal(told[-1]):
            return Reading(problem="refusal", has_no_answer=True)
        verdict = self._told(told)
        if verdict is not None:
            return Reading(verdict)
        words = set(words_of(text[:_LONGEST]))
        is_about_it = bool(words & self.own) or "or" in words or is_hedged(text) or self._mentions_a_formula(told)
        return Reading(problem="no answer that is understood", has_no_answer=not is_about_it and len(words) > 1)

    def _told(self, told: Sequence[str]) -> bool | None:
        """What sentences answer: the first one, where it is only an answer, or the last; they may not contradict."""
        lead, first, last = self._phrase(told[0]), self._sentence(told[0]), self._sentence(told[-1])
        if len(told) == 1:
            return lead if lead is not None else first
        if _LABELLED.match(told[0]) or _ITEM.match(told[0]):
            lead = None  # of more than one thing that is said
        ending = self._phrase(told[-1]) if last is None else last
        if lead is not None:
            return lead if ending in (None, lead) or self._sentence(told[-1]) is None else None
        return ending if ending is not None else (True if first else None)

    def _statement(self, text: str, statement: Statement) -> bool | None:
        content = text[statement.start : min(statement.end, statement.start + _LONGEST)]
        if statement.place in (Place.WHOLE, Place.LINE):
            verdict = self._equals(content) or self._phrase(content)
            return None if verdict is False and statement.place is Place.LINE else verdict
        if statement.place is Place.BEFORE:
            verdict = self._phrase(content)
            return verdict if "answer" in text[statement.end : statement.end + _LONGEST_VERB] else verdict or None
        line = _LINE.search(content)
        if line is None:
            return None
        first = next(iter(sentences(line[0])), line[0])
        verdict = self._equals(line[0]) or self._phrase(first)
        follows = content[line.end() :].strip() or len(first) < len(line[0].strip())
        leads_on = statement.place is Place.AFTER_LABEL and follows and len(words_of(first)) > self.longest + 1
        return None if verdict is False and leads_on else verdict

    def _equals(self, text: str) -> bool:
        if self.is_formula:
            return symbols_of(text) in self.symbols
        return words_of(text) in self.words

    def _formula(self, text: str) -> bool | None:
        """Whether a text, or what follows its last `is`, is a reference's formula."""
        ends = [match.end() for match in _IS.finditer(text)]
        found = symbols_of(text[ends[-1] :].lstrip(" :") if ends else text[_lead_in(text) :])
        verdicts = [are_same(found, symbols) for symbols in self.symbols]
        return True if True in verdicts else None if None in verdicts else False

    def _mentions_a_formula(self, told: Sequence[str]) -> bool:
        return self.is_formula and any(not any(map(str.isalnum, part)) or "=" in part for part in told)

    def _phrase(self, phrase: str) -> bool | None:
        """Whether a short text is a reference; None where it could be one in other words, or is no answer."""
        if self._equals(phrase) or self._equals(phrase[_lead_in(phrase) :]):
            return True
        if (
            len(phrase) > _LONGEST
            or phrase.rstrip().endswith("?")
            or is_hedged(phrase)
            or _INTERJECTION.fullmatch(phrase)
        ):
            return None
        if (label := _LABELLED.match(phrase)) and len(label[0].split()) <= _LONGEST_LABEL:
            phrase = phrase[label.end() :]
            if self._equals(phrase):
                return True
        if self.is_formula:
            return self._formula(phrase)
        if contrast := _NOT_BUT.search(phrase):
            phrase = phrase[contrast.end() :]
        phrase = spoken if (spoken := _ASIDE.sub(" ", phrase)).strip() else phrase
        if reason := _REASON.search(phrase, _lead_in(phrase) + 1):
            phrase = phrase[: reason.start()]
        if words_of(phrase) in self.words:
            return True
        is_sentence = _SENTENCE.match(phrase)
        phrase = phrase[_lead_in(phrase) :]
        words = words_of(phrase)
        if words in self.words:
            return True
        content = {word for word in words if word not in STOP_WORDS or len(words) == 1}
        if not content or len(content) > max(2, self.longest + 1) or not {"not", "or"}.isdisjoint(words):
            return None
        if self._is_mentioned(phrase):
            return None if content - self.own - self.query else True
        if is_sentence and _SENTENCE.match(phrase):
            return None
        # A name that lacks a part, or has one more, may be the same name.
        return None if content & self.own and (content <= self.own or self.own <= content) else False

    def _sentence(self, sentence: str) -> bool | None:
        """Whether a sentence answers the question, some of whose words it repeats, with a reference."""
        if is_hedged(sentence) or len(sentence) > _LONGEST:
            return None
        if self.is_formula:
            return self._formula(sentence)
        if reason := _BECAUSE.search(sentence, 1):
            sentence = sentence[: reason.start()]
        if contrast := _NOT_BUT.search(sentence):
            return self._phrase(sentence[contrast.end() :])
        if by := _BY.search(sentence):
            return self._phrase(sentence[by.end() :])
        if result := _RESULT_IS.match(sentence):
            return self._phrase(sentence[result.end() :])
        said = words_of(sentence)
        is_open = not {"not", "or"}.isdisjoint(said)
        others = [word for word in dict.fromkeys(said) if word not in STOP_WORDS and word not in self.query | self.own]
        copulas, repeats = list(_IS.finditer(sentence)), self.query & set(said)
        if self._is_mentioned(sentence):
            return True if not is_open and self._names(sentence, said, bool(others), bool(repeats)) else None
        if is_open or not repeats or _DESCRIBES.search(sentence):
            return None
        if not copulas:
            return self._beside_the_question(said)
        new = set(said) - STOP_WORDS - repeats
        is_short = 0 < len(new | set(others)) <= max(2, self.longest + 1)
        return False if is_short and not new <= self.own else None

    def _beside_the_question(self, said: tuple[str, ...]) -> bool | None:
        """What the words are that stand before, or after, words that repeat a part of the question."""
        for size in range(len(said) - 1, 1, -1):
            for repeated, rest in ((said[-size:], said[:-size]), (said[:size], said[size:])):
                asked = f" {' '.join(repeated)} "
                if rest == said[:-size] and any(f" {word}{asked}" in self.asked for word in ("who", "what", "which")):
                    return self._phrase(" ".join(rest))
                if asked in self.asked:
                    new = set(rest) - STOP_WORDS
                    return False if new - self.query and self._phrase(" ".join(rest)) is False else None
        return None

    def _names(self, sentence: str, said: tuple[str, ...], has_others: bool, repeats: bool) -> bool:
        """Whether a sentence that mentions a reference names it as the answer."""
        if not has_others:
            return True
        copulas = list(_IS.finditer(sentence))
        if copulas and self._phrase(sentence[copulas[-1].end() :]):
            return True
        subject = words_of(sentence[: copulas[0].start()]) if copulas else ()
        while subject and subject[0] in STOP_WORDS:
            subject = subject[1:]
        if repeats and subject in self.words:
            return True
        is_linked = repeats or _BY.search(sentence) is not None
        return is_linked and any(said[-len(words) :] == words for words in self.words)

    def _is_mentioned(self, text: str) -> bool:
        """Whether a reference stands in a text that does not deny it."""
        folded = text.casefold()
        found = [match for spelled in self._spelled for match in spelled.finditer(folded)]
        return bool(found) and not any(is_denied(folded, *match.span()) for match in found)


def _lead_in(text: str) -> int:
    match = _LEAD_IN.match(text)
    return match.end() if match else 0
