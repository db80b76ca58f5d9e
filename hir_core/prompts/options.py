"""Options of a multiple-choice query: written below the question, read back from a query, and named by references.

The options stand at the end of the query, one per line, either lettered or as a list:

    Options:          Options:
    (A) a red hat     - Yes
    (B) a blue hat    - No

Options that are letters themselves are written as a list: below `(A) b`, the answer `b` could mean either option.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from hir_core.prompts.rng import SeededRng

MAX_OPTIONS = len(string.ascii_uppercase)
_HEADING = "Options:"
_LETTERED = re.compile(r"(?P<letter>\([A-Z]\)) ?(?P<text>.*)")
_LISTED = re.compile(r"- ?(?P<text>.*)")
_BEFORE_QUOTED = re.compile(r"""(?<!\S)([A-Za-z])(?=\s+["“])""")  # a " a red hat " b " a blue hat "
_INLINE_LETTERS = (
    re.compile(r"\(([A-Za-z])\)"),  # (a) a red hat (b) a blue hat
    re.compile(r"(?<!\S)([A-Za-z])[).:](?=\s)"),  # A. a red hat B. a blue hat
    _BEFORE_QUOTED,
)
_QUOTED = re.compile(r"""["“]\s*(?P<text>[^"“”]+?)\s*["”]\W*""")
_SEPARATOR = re.compile(r"(?:[,;]|[,;]?\s+or)$")


class ParsedQuery(NamedTuple):
    """A query split into its question and its options."""

    question: str
    options: tuple[str, ...]
    lettered: bool
    """Whether the options have letters; False too where there are no options."""


class Offered(NamedTuple):
    """A query that ends with its options, and the references that name the right ones."""

    query: str
    options: tuple[str, ...]
    right: tuple[int, ...]
    """The indices of the right options."""
    references: tuple[str, ...]


def letter(index: int) -> str:
    """The name of the option at an index: 0 is `(A)`."""
    return f"({string.ascii_uppercase[index]})"


def letter_index(text: str, count: int) -> int | None:
    """The index that a text names as a letter, like `(B)`, `B` or `b.`, among a number of options; else None."""
    name = text.strip().strip("()[].:").upper()
    index = string.ascii_uppercase.find(name) if len(name) == 1 else -1
    return index if 0 <= index < count else None


def option_index(name: str, options: Sequence[str]) -> int | None:
    """The index of the option that is named: by its text first, since a text may look like a letter; else None."""
    return options.index(name) if name in options else letter_index(name, len(options))


def with_options(question: str, options: Sequence[str], *, lettered: bool = True) -> str:
    """The question followed by its options, one per line, lettered or as a list."""
    names = [letter(index) if lettered else "-" for index in range(len(options))]
    return "\n".join([question, _HEADING, *(f"{name} {option}" for name, option in zip(names, options, strict=True))])


def shuffled_options(question: str, options: Sequence[str], seed: int) -> list[str]:
    """The options in an order that depends on the question and the seed, not on the order in which they are given."""
    return SeededRng("options", seed, question, sorted(options)).shuffled(sorted(options))


def read_options(query: str) -> ParsedQuery:
    """The question and the options of a query; without options where the query does not end with a block of them."""
    start = query.rfind(_HEADING)
    if start >= 0 and query[:start][-1:] in ("", "\n"):
        lines = [line.strip() for line in query[start + len(_HEADING) :].split("\n") if line.strip()]
        for pattern, lettered in ((_LETTERED, True), (_LISTED, False)):
            matches = [match for match in map(pattern.fullmatch, lines) if match]
            if not 0 < len(matches) == len(lines) <= MAX_OPTIONS:
                continue  # some line is not an option, or there are none
            if not lettered or all(match["letter"] == letter(index) for index, match in enumerate(matches)):
                return ParsedQuery(query[:start].rstrip(), tuple(m["text"].strip() for m in matches), lettered)
    return ParsedQuery(query, (), False)


def read_inline_options(query: str) -> ParsedQuery:
    """The question and the options of a query that ends with lettered options within its text.

    They are read only where every letter from A or a on stands there once, in order, so that a letter that belongs to
    the text is not taken for an option's; there are none otherwise.
    """
    for style in _INLINE_LETTERS:
        question, *rest = style.split(query)
        names, texts = "".join(rest[::2]).upper(), _inline_texts([text.strip() for text in rest[1::2]], style)
        in_order = len(names) > 1 and names == string.ascii_uppercase[: len(names)]
        if in_order and question.strip() and all(text and "\n" not in text for text in texts):
            return ParsedQuery(question.rstrip(), tuple(texts), lettered=True)
    return ParsedQuery(query, (), lettered=False)


def _inline_texts(texts: Sequence[str], style: re.Pattern[str]) -> list[str]:
    """The texts of options in a row, without what separates them; blank where quotation marks are missing."""
    if style is _BEFORE_QUOTED:
        return [match["text"] if (match := _QUOTED.fullmatch(text)) else "" for text in texts]
    return [*(_SEPARATOR.sub("", text) for text in texts[:-1]), *texts[-1:]]


def option_references(right: Sequence[int], options: Sequence[str], *, lettered: bool = True) -> tuple[str, ...]:
    """References for the right options, given by index: their letters, then their texts.

    A text that does not say which option is meant is left out: one that two options share, or another option's letter.
    """
    names = [letter(index) for index in right] if lettered else []
    texts = [options[index] for index in right if list(options).count(options[index]) == 1]
    if lettered:
        letters = {option: letter_index(option, len(options)) for option in texts}
        texts = [text for text in texts if letters[text] in (None, options.index(text))]
    return (*names, *texts)


def offer(question: str, options: Sequence[str], right: Sequence[int], seed: int) -> Offered:
    """The question with its options below it: as the question shows them itself, else in an order of the seed's.

    Args:
        question: options that it shows at its end, in its text or in lines, are moved below it with their letters.
        options: texts, or the letters under which the question shows them.
        right: the indices of the right options.
        seed: decides the order of options that the question does not show.
    """
    if shown := _shown(question, options):
        question, order, lettered = shown
    else:
        order = tuple(shuffled_options(question, options, seed))
        lettered = all(letter_index(option, MAX_OPTIONS) is None for option in options)
    found = {option_index(options[index], order) for index in right}
    places = tuple(sorted(place for place in found if place is not None))
    references = option_references(places, order, lettered=lettered)
    return Offered(with_options(question, order, lettered=lettered), order, places, references)


def _shown(question: str, options: Sequence[str]) -> ParsedQuery | None:
    """The question without its own options, and these, where they are the given ones, by text or by letter."""
    for read in (read_options, read_inline_options):
        shown = read(question)
        places = [option_index(option, shown.options) for option in options]
        if None not in places and len(set(places)) == len(shown.options):
            return shown
    return None
