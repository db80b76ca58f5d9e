"""The reward `option_choice`: 1 where the completion names a right option, 0 where it names a wrong one.

An option is named by its letter, `(B)`, `B`, `B)` or `b.`, by its text, or by both. A completion that names no option,
or several, is a slip of form and not a wrong answer: it cannot be judged, and so is never taught as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hir_core.rewards.exact_match import normalised
from hir_core.rewards.reward import RowReward, Verdict, shortened

_LETTER = re.compile(r"\(?(?P<letter>[A-Za-z])\s*[).:]*")
_LEADING = re.compile(r"\s*\(?(?P<letter>[A-Za-z])[).:]\s*")
_BRACKETED = re.compile(r"\(([A-Z])\)")


class OptionChoice(RowReward):
    """Recognises the option that a completion names."""

    name = "option_choice"

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        if not prompt["options"]:
            return "it has no options: add `options`, or use exact_match"
        if not _right(prompt):
            return f"none of its references {prompt['references']!r} is one of its options: correct them"
        return None

    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        named = options_named(completion, prompt["options"], lettered=_is_lettered(prompt))
        if len(named) != 1:
            what = "no option" if not named else f"{len(named)} options"
            return Verdict(None, f"names {what}: {shortened(completion)}")
        (chosen,) = named
        right = _right(prompt)
        judged = "right" if chosen in right else "wrong"
        return Verdict(float(chosen in right), f"{judged}: names {shortened(prompt['options'][chosen])}")


def options_named(text: str, options: Sequence[str], *, lettered: bool) -> set[int]:
    """The indices of the options that a text names, by letter where the query shows letters, or by their text."""
    named = {index for index, option in enumerate(options) if normalised(option) == normalised(text)}
    if not lettered:
        return named
    if alone := _LETTER.fullmatch(text.strip()):
        return named | _indices([alone["letter"]], options)
    lead = _LEADING.match(text)
    letters = _BRACKETED.findall(text) + ([lead["letter"]] if lead else [])
    rest = normalised(_BRACKETED.sub("", text[lead.end() :] if lead else text))
    named |= {index for index, option in enumerate(options) if rest and normalised(option) == rest}
    return named | _indices(letters, options)


def _indices(letters: Sequence[str], options: Sequence[str]) -> set[int]:
    places = {ord(letter.upper()) - ord("A") for letter in letters}
    return {place for place in places if place < len(options)}


def _right(prompt: dict[str, Any]) -> set[int]:
    """The options that its references name; a text that two options share names neither."""
    lettered = _is_lettered(prompt)
    named = [options_named(reference, prompt["options"], lettered=lettered) for reference in prompt["references"]]
    return {index for indices in named if len(indices) == 1 for index in indices}


def _is_lettered(prompt: dict[str, Any]) -> bool:
    return "(A)" in prompt["query"]
