"""A text without its Markdown: marks of items, headings, emphasis, tags, targets of links and code fences."""

from __future__ import annotations

import re
from functools import lru_cache

BULLETS = "-*+•◦▪●‣–"
# Matched from the line break before the line, because a literal first character is what `re` searches fast.
_FENCE_LINE = re.compile(r"\n[ \t>]*+(?:```|~~~)[^\n`]*+(?=\n|\Z)")
_ITEM_MARK = re.compile(
    rf"\n[ \t>]*+(?:\*\*)?(?:(?P<number>\d{{1,3}})[.)]|(?P<letter>[a-z])\)|[{BULLETS}](?:[ \t]++\[[ xX]\])?)"
    r"(?:\*\*)?[ \t]++(?=\S)"
)
_HEADING = re.compile(r"\n[ \t>]*+(?:#{1,6}[ \t][^\n]*+|\*\*[^\n*]*+(?<![.!?…。！？])\*\*:?[ \t]*+(?=\n|\Z))")
_LINK_TARGET = re.compile(r"\]\((?:[^()\n]|\([^()\n]*+\))*+\)")
_TAG = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*+(?:\s[^<>\n]*+)?/?>")
_JSON_FENCE = re.compile(r"(```|~~~)[ \t]*+(?:json)?", re.IGNORECASE)


@lru_cache(maxsize=1)  # a text is checked for many constraints in a row
def plain(text: str) -> str:
    """The text without Markdown; before each item of a list stands a blank line instead of its mark."""
    text = _from_line_break(text)
    if "```" in text or "~~~" in text:
        text = _FENCE_LINE.sub("\n", text)  # what it holds stands apart from the text around it
    if "](" in text:
        text = _LINK_TARGET.sub("]", text)
    if "<" in text:
        text = _TAG.sub(lambda tag: " " if tag[0].startswith("<br") else "", text)
    return _without_item_marks(text).replace("**", "")


def without_headings(text: str) -> str:
    """The text without its headings, and without lines in bold that no final mark ends, which serve as headings."""
    if "#" not in text and "**" not in text:
        return text
    return _HEADING.sub("\n", _from_line_break(text))


def without_blank_lines_of_code(text: str) -> str:
    """The text without the blank lines that stand within code fences."""
    if "```" not in text and "~~~" not in text:
        return text
    kept, is_code = [], False
    for line in text.splitlines():
        if line.lstrip().startswith(("```", "~~~")):
            is_code = not is_code
        if line.strip() or not is_code:
            kept.append(line)
    return "\n".join(kept)


def without_json_fence(text: str) -> str:
    """What a code fence without a language, or for JSON, holds, where it is around the whole text; else the text."""
    opening, _, rest = text.strip().partition("\n")
    content, _, closing = rest.rpartition("\n")
    fence = _JSON_FENCE.fullmatch(opening.rstrip())
    return content if fence and closing.strip() == fence[1] else text


def _from_line_break(text: str) -> str:
    return "\n" + "\n".join(text.splitlines())


def _without_item_marks(text: str) -> str:
    last = 0

    def gap(mark: re.Match[str]) -> str:
        """A blank line, unless the mark is a number or letter out of order: `7. That is it` begins with a number."""
        nonlocal last
        number, letter = mark["number"], mark["letter"]
        if number or letter:
            position = int(number) if number else ord(letter) - ord("a") + 1
            if position not in (1, last + 1):
                return mark[0]
            last = position
        return "\n\n"

    return _ITEM_MARK.sub(gap, text)
