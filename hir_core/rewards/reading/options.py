"""Options of a multiple-choice prompt as answers: named by letter, by text or by both."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

from hir_core.prompts.phrases import FirstWords
from hir_core.rewards.reading.denial import is_refusal
from hir_core.rewards.reading.numbers import NumberReader, Quantity
from hir_core.rewards.reading.reader import DECORATION, Mention, Reader
from hir_core.rewards.reading.truth import TruthReader, polarity

_ONLY_BRACKETED = re.compile(r"[\s*_\"'`$\ue000]*[(\[]([A-Za-z])[)\]][\s*_.\"'`$:\ue001]*")
_LETTER_AND_TEXT = re.compile(
    r"[\s*_\"'`$\ue000]*[(\[]?(?P<letter>[A-Za-z])[)\].:\ue001*_]+[\s*_\"':-]*(?P<text>\S.*)", re.DOTALL
)
_NAMED = re.compile(
    r"(?:option|choice|answer|letter)\s*[:#]?\s*[(\[\"'*]*(?P<letter>[A-Za-z])[)\]\"'*]*", re.IGNORECASE
)
_LETTER = re.compile(
    r"(?<![\w/])(?P<several>[A-Z](?:/[A-Z])+|[a-z](?:/| or | and |, )[a-z])(?![\w/'])"
    r"|(?<!\w)[(\[](?P<bracketed>[A-Za-z])[)\]]"
    r"|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Ll]etter|OPTION|ANSWER)s?\s?:?\s?[\"'*(]*(?P<named>[A-Z](?![\w'])|"
    r"[a-z](?=[).,;:*\"']|\s*$))"
    r"|^[\s*_>#-]*(?P<item>[A-Za-z])[).:](?=\s|\*|$)"
    r"|(?<![\w'./^-])(?P<free>[B-HJ-Z])(?![\w'/^-]|\.\w)"
    r"|(?<![\w'./^-])(?P<article>[AI])(?=[\s*]*(?:[.,;:?)\]!*\"'✓✅=]|$|(?:is|are|was|because|since|and|or|nor|"
    r"but|not|would|must|"
    r"fits|matches|seems|as the|as it)\b))(?!\.\w)",
    re.MULTILINE,
)
_NAMES = [f"{name}{plural}" for name in ("option", "choice", "answer", "letter") for plural in ("", "s")]
_LETTER_WORDS = FirstWords(
    *ascii_lowercase, *_NAMES, *(f"{name}{letter}" for name in _NAMES for letter in ascii_lowercase)
)
"""The words with which a match of `_LETTER` begins: `B`, `option`, `optionB`."""
_ITEM = re.compile(r"[\s*_>#•-]*(?:[Oo]ption )?[(\[]?(?P<letter>[A-Za-z])[)\].:]+(?=\s|\*|$)")
_ARTICLE = re.compile(r"(?:an?|the|to)\s+", re.IGNORECASE)


class OptionReader(Reader):
    """Reads which option a text names, as its index.

    Options that are numbers, or yes and no, are read as such. A text that two options share names neither.

    Args:
        options: their texts.
        query: shows the options; letters only name options that it shows with letters.
    """

    what = "option"

    def __init__(self, options: Sequence[str], query: str) -> None:
        self.options = options
        self.letters = ascii_uppercase[: len(options)] if shows_letters(query, options) else ""
        known = [_option(option) for option in options]
        counts = Counter([name for option in known for name in option.names])
        self.by_text = {
            name: index for index, option in enumerate(known) for name in option.names if counts[name] == 1 and name
        }
        self.by_letter = {letter.lower(): index for index, letter in enumerate(self.letters)}
        self.inner, self.by_value = _inner_reader(known, query)
        self.computes = self.inner is not None
        self.may_be_subject = not isinstance(self.inner, TruthReader)
        self.with_final_marks = [option.text.strip() for option in known if option.has_final_mark]
        self.spellings = [option.spelling for option in known]
        # Yes and no have synonyms, and options that are questions or refusals are read by rules of their own.
        self.depends_on_options = isinstance(self.inner, TruthReader) or any(option.is_open for option in known)

    def standard_form(self, text: str) -> str:
        """The text in which each option is at most one sentence and no question, whatever marks it has."""
        for option in self.with_final_marks:
            end = "." if option[-1] in ".?!" else ""
            text = text.replace(option, _FINAL_MARK.sub("", option) + end)
        return text

    def bare(self, text: str) -> int | None:
        return _bare(self, text) if len(text) <= _LONGEST else None

    def read(self, text: str) -> int | None:
        """The option that a short text is; `bare` remembers what it is."""
        name = _folded(text)
        if (
            self.letters
            and (only := _ONLY_BRACKETED.fullmatch(text))
            and (index := self.by_letter.get(only[1].lower())) is not None
        ):
            return index
        by_letter, by_text = self.by_letter.get(name), self.by_text.get(name)
        if (by_letter is None) != (by_text is None) or by_letter == by_text:
            found = by_text if by_letter is None else by_letter
            if found is not None:
                return None if text.rstrip().endswith("?") and not self.options[found].endswith("?") else found
        if self.letters:
            if named := _NAMED.fullmatch(text.strip(DECORATION)):
                return self.by_letter.get(named["letter"].lower())
            both = _LETTER_AND_TEXT.match(text)
            if (
                both
                and (index := self.by_letter.get(both["letter"].lower())) is not None
                and self._names(both["text"], index)
            ):
                return index
        if self.inner and by_letter is None:
            return self.by_value.get(_key(self.inner.bare(text)))
        return None

    def _names(self, text: str, index: int) -> bool:
        name = _folded(text)
        return name == _folded(self.options[index]) or self.by_text.get(name) == index

    def head(self, line: str) -> int | None:
        if self.letters and (item := _ITEM.match(line)):
            return self.by_letter.get(item["letter"].lower())
        return self.bare(line)

    def mentions(self, text: str) -> Sequence[Mention]:
        return _mentions(self, text)

    def find(self, text: str) -> Sequence[Mention]:
        """The options that a text mentions; `mentions` remembers them."""
        texts = list(self._texts(text))
        covered = [(mention.start, mention.end) for mention in texts if mention.end - mention.start > 1]
        letters = (
            [m for m in self._letters(text) if not any(start <= m.start < end for start, end in covered)]
            if self.letters
            else []
        )
        return sorted([*letters, *texts], key=lambda mention: mention[:2])

    def _letters(self, text: str) -> Iterator[Mention]:
        for match in _LETTER_WORDS.finditer(_LETTER, text):
            if match["several"]:
                if all(letter.lower() in self.by_letter for letter in re.findall(r"\b[A-Za-z]\b", match[0])):
                    yield Mention(*match.span(), None)
                continue
            index = self.by_letter.get(match[match.lastgroup or 0].lower())
            if index is not None:
                yield Mention(match.start(match.lastgroup or 0), match.end(), index)

    def _texts(self, text: str) -> Iterator[Mention]:
        if self.inner:
            for mention in self.inner.mentions(text):
                index = self.by_value.get(_key(mention.value))
                if index is not None or (mention.value is None and isinstance(self.inner, TruthReader)):
                    yield Mention(mention.start, mention.end, index, mention.can_be_denied)
            return
        lower, found = text.lower(), []
        if len(lower) != len(text):
            return
        for name, index in self.by_text.items():
            # A text of one letter is no article.
            name, searched = (self.options[index].strip(), text) if len(name) == 1 else (name, lower)
            start = searched.find(name)
            while start >= 0:
                end = start + len(name)
                if _is_word(lower, start, end):
                    found.append((start, -end, index))
                start = searched.find(name, end)
        last_end = 0
        for start, negative_end, index in sorted(found):  # of texts that begin together, the longest
            if start >= last_end:
                last_end = -negative_end
                yield Mention(start, last_end, index)

    def declines(self, sentence: str) -> bool:
        """An option may itself say that there is not enough information."""
        return is_refusal(sentence) and not any(is_refusal(option) for option in self.options)


def shows_letters(query: str, options: Sequence[str]) -> bool:
    """Whether a query shows its options with letters: `(A) red`, `A. red`, `a) red`."""
    if not options:
        return False
    first = options[0].strip()
    return "(A)" in query or any(f"{mark}{gap}{first}" in query for mark in _MARKS for gap in (" ", ""))


_MARKS = [
    form.format(letter)
    for letter in "Aa"
    for form in ("({})", "{})", "{}.", "{}:", "[{}]", "**{}.**", "**{})**", "**{}**")
]


_LETTERED_LINE = re.compile(
    r"^[ ]*(?:\*\*)?[(\[]?(?P<letter>[A-Za-z])[)\].:](?:\*\*)?[ ]+(?P<text>\S.*)$", re.MULTILINE
)


def options_in(query: str) -> list[str]:
    """The options that a query lists with letters from A on, a line each; none where it lists none."""
    lines = list(_LETTERED_LINE.finditer(query))
    starts = [index for index, line in enumerate(lines) if line["letter"] in "Aa"]
    last = lines[starts[-1] :] if starts else []
    in_order = [line for line, letter in zip(last, ascii_uppercase, strict=False) if line["letter"].upper() == letter]
    return [line["text"].strip() for line in in_order] if len(in_order) == len(last) > 1 else []


_FINAL_MARK = re.compile(r"(?<=\w\w)[.?!]+(?=\s|\Z)")


_LONGEST = 400
"""Characters of a text that may be an option with nothing else said."""


@lru_cache(maxsize=256)  # the rules ask for the same sentence of a completion several times
def _bare(reader: OptionReader, text: str) -> int | None:
    return reader.read(text)


@lru_cache(maxsize=256)
def _mentions(reader: OptionReader, text: str) -> Sequence[Mention]:
    return reader.find(text)


def _folded(text: str) -> str:
    if "." in text or "?" in text or "!" in text:
        text = _FINAL_MARK.sub("", text)
    return " ".join(text.lower().split()).strip(_EDGES)


_EDGES = DECORATION + "-•"


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether a part of a text begins and ends where words do."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (
        (before and text[start].isalnum() and (before.isalnum() or before in "_/"))
        or (after and text[end - 1].isalnum() and (after.isalnum() or after in "_/" or text[end : end + 2] in ("'s",)))
    )


class _Option(NamedTuple):
    """An option, and what is worked out from its text alone."""

    text: str
    names: frozenset[str]
    """The folded texts that name it: with its article and without."""
    spelling: str
    """The letters and digits of all of its names."""
    has_final_mark: bool
    is_open: bool
    """Whether it is a question, or says itself that there is no answer."""
    number: tuple[int, int] | None
    polarity: tuple[str, bool] | None


@lru_cache(maxsize=4096)  # prompts of one task often have the same options
def _option(text: str) -> _Option:
    name = _folded(text)
    bare_name = _ARTICLE.sub("", name, count=1) if _ARTICLE.match(name) else name
    return _Option(
        text,
        frozenset((name, bare_name)),
        spelled(bare_name),
        _FINAL_MARK.search(text) is not None,
        text.endswith("?") or is_refusal(text),
        _key(_NUMBERS.bare(_NUMBERS.standard_form(text))),
        polarity(text),
    )


def spelled(text: str) -> str:
    """The letters and digits of a text, in lower case."""
    return _MARKS_AND_BLANKS.sub("", text.lower())


_MARKS_AND_BLANKS = re.compile(r"[\W_]+")
_NUMBERS = NumberReader()


def _inner_reader(options: Sequence[_Option], query: str) -> tuple[Reader | None, dict[Any, int]]:
    """The reader of the options' texts, where all of them are numbers or are yes and no, and the options by value."""
    known = [option.polarity for option in options if option.polarity]
    if len(known) == len(options) == 2 and known[0][0] == known[1][0] and known[0][1] != known[1][1]:
        return TruthReader(known[0][0], query), {value: index for index, (_, value) in enumerate(known)}
    by_value: dict[Any, int] = {}
    for index, option in enumerate(options):
        if option.number is None or option.number in by_value:
            return None, {}
        by_value[option.number] = index
    return (_NUMBERS, by_value) if by_value else (None, {})


def _key(value: Any) -> Any:
    """What an option is looked up by: of a number two integers, since a fraction takes long to hash."""
    return value.number.as_integer_ratio() if isinstance(value, Quantity) else value
