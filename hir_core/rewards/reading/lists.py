"""Lists as answers: items in order, however they are separated, numbered or set on lines of their own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hir_core.rewards.reading.denial import after_correction, is_hedged, is_refusal
from hir_core.rewards.reading.final_answer import Place, prepared, sentences, statements
from hir_core.rewards.reading.reader import Reading
from hir_core.rewards.reading.words import list_words

_SEPARATOR = re.compile(r"\s*(?:[,;|\n]|->|→|\band\b)\s*")
_ITEM_LINE = re.compile(r"[ ]*(?:\*\*)?(?:[-*•+]|\(?\d{1,3}[.):])(?:\*\*)?[ ]+(?=\S)")
_INLINE_NUMBER = re.compile(r"(?:^|(?<=\s))\(?\d{1,3}[.)](?=\s)")
_INTRODUCED = re.compile(r":(?=[\s*\ue000])|→|-?=?>|=|\b(?:is|are|be|becomes|gives)\b", re.IGNORECASE)
_LONGEST = 20_000
_FILLERS = frozenset(
    [
        "first",
        "second",
        "third",
        "fourth",
        "next",
        "finally",
        "lastly",
        "last",
        "followed",
        "by",
        "comes",
        "after",
        "that",
    ]
)


class ListReader:
    """Compares what a completion lists with lists.

    Args:
        references: the accepted lists.
    """

    def __init__(self, references: Sequence[str]) -> None:
        self.lists = [list_words(reference) for reference in references]
        items = [_SEPARATOR.split(reference.strip()) for reference in references]
        self.longest_item = max((len(item.split()) for found in items if len(found) > 1 for item in found), default=1)
        self.fillers = _FILLERS - {word for words in self.lists for word in words}
        self.has_numbers = any(word.lstrip("-")[:1].isdecimal() for words in self.lists for word in words)

    def read(self, completion: str, marker: str | None = None) -> Reading:
        """True where the completion lists a reference's items in its order, False where it lists them otherwise."""
        if marker is None and self._compared(completion) is True:
            return Reading(True)
        found = prepared(completion, marker)
        if not found.text:
            return Reading(problem=found.problem, has_no_answer=found.has_no_answer)
        whole = set(list_words(found.text))
        if whole and len(found.text) < _LONGEST and any(whole <= set(words) for words in self.lists):
            return Reading(self._compared(found.text) is True)
        back = after_correction(found.text)
        corrected = self._last(found.text[back:]) if back is not None else None
        if corrected is not None:
            return Reading(corrected)
        stated = [verdict for verdict in self._statements(found.text) if verdict is not None]
        if stated:
            return Reading(stated[0]) if len(set(stated)) == 1 else Reading(problem="several lists")
        last = self._last(found.text)
        if last is not None:
            return Reading(last)
        if any(map(is_refusal, sentences(found.text))):
            return Reading(problem="refusal", has_no_answer=True)
        names_items = any(whole & set(words) for words in self.lists)
        return Reading(problem="no list", has_no_answer=not names_items)

    def _statements(self, text: str) -> list[bool | None]:
        verdicts = []
        for statement in statements(text):
            content = text[statement.start : min(statement.end, statement.start + _LONGEST)]
            is_whole = statement.place in (Place.WHOLE, Place.LINE, Place.BEFORE)
            verdicts.append(self._compared(content) if is_whole else next(iter(self._verdicts(content)), None))
        return verdicts

    def _last(self, text: str) -> bool | None:
        return next(reversed(self._verdicts(text)), None)

    def _verdicts(self, text: str) -> list[bool]:
        """The verdict on each part of a text that lists some of the items, in order."""
        return [verdict for part in _parts(text, self.longest_item) if (verdict := self._compared(part)) is not None]

    def _compared(self, part: str) -> bool | None:
        """Whether a part of a text is a reference's list; None where it is not a list of these items."""
        if len(part) > _LONGEST or is_hedged(part):
            return None
        if not self.has_numbers:
            part = _INLINE_NUMBER.sub(" ", part)
        introductions = [match.end() for match in _INTRODUCED.finditer(part)]
        rest = part[introductions[-1] :] if introductions else part
        readings = [tuple(word for word in list_words(text) if word not in self.fillers) for text in (rest, part)]
        readings = [words for words in readings if words]
        if any(words in self.lists for words in readings):
            return True
        words = readings[0] if readings else ()
        if "or" in words or "not" in words:
            return None
        if not any(_is_alike(words, expected) for expected in self.lists):
            return None
        surplus = set(words) - {word for expected in self.lists for word in expected}
        is_sentence = any(len(item.split()) > self.longest_item for item in _SEPARATOR.split(rest.strip()))
        return None if surplus and is_sentence else False


def is_list(reference: str, query: str) -> bool:
    """Whether a reference is a list in order: of three items or more, or of items that the query gives otherwise."""
    items = [item for item in _SEPARATOR.split(reference.strip(" []().")) if item.strip()]
    words = list_words(reference)
    if len(words) < 2:
        return False
    if len(items) > 2 and all(len(item.split()) <= _LONGEST_ITEM for item in items):
        return True
    asked = list_words(query)
    is_rearranged = not Counter(words) - Counter(asked)
    return is_rearranged and len(set(words)) > 1 and f" {' '.join(words)} " not in f" {' '.join(asked)} "


_LONGEST_ITEM = 4


def _parts(text: str, longest_item: int) -> list[str]:
    """The sentences of a text; the lines of a list together are one part."""
    parts, items = list[str](), list[str]()
    for line in text.split("\n"):
        if item := _ITEM_LINE.match(line):
            items.append(line[item.end() :])
        elif line.strip() and len(line.split()) <= longest_item and line.strip()[-1] not in ".:?!":
            items.append(line)
        elif line.strip():
            parts += ["\n".join(items)] if items else []
            items = []
            parts += [sentence for sentence in sentences(line) if not sentence.endswith("?")]
    return parts + (["\n".join(items)] if items else [])


def _is_alike(words: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether at least half of the words are expected ones, and the other way round."""
    shared = sum((Counter(words) & Counter(expected)).values())
    return 2 * shared >= len(words) and 2 * shared >= len(expected) and shared > 1
