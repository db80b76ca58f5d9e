"""The reward `option_choice`: 1 where the completion names a right option, 0 where it names a wrong one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hir_core.rewards.exact_match import normalised
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, shortened

_LETTER = re.compile(r"\(?(?P<letter>[A-Za-z])\s*[).:]*")
_LEADING_LETTER = re.compile(r"\s*\(?(?P<letter>[A-Za-z])[).:]\s*")
_BRACKETED_LETTER = re.compile(r"\(([A-Z])\)")


class OptionChoice(RowReward):
    """Recognises which option of a multiple-choice prompt the completion names.

    An option is named by its letter, `(B)`, `B`, `B)` or `b.`, by its text, or by both. A completion that names no
    option, or several, is not an answer: it cannot be judged, and so is never trained on as a wrong one.
    """

    name = "option_choice"

    def unusable(self, prompt: PromptRow) -> str | None:
        if not prompt["options"]:
            return "it has no options: add `options`, or use exact_match"
        if not _right_options(prompt):
            return f"none of its references {prompt['references']!r} is one of its options: correct them"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        options, right = prompt["options"] or [], _right_options(prompt)
        named = options_named(completion, options, has_letters=_has_letters(prompt))
        if len(named) != 1:
            what = "no option" if not named else f"{len(named)} options"
            return Verdict(None, f"names {what}: {shortened(completion)}", no_answer=not named)
        (chosen,) = named
        result = "right" if chosen in right else "wrong"
        return Verdict(float(chosen in right), f"{result}: names {shortened(options[chosen])}")


def options_named(text: str, options: Sequence[str], *, has_letters: bool) -> set[int]:
    """The indices of the options that a text names by their text, and by their letter where the query shows letters."""
    named = {index for index, option in enumerate(options) if normalised(option) == normalised(text)}
    if not has_letters:
        return named
    if only_letter := _LETTER.fullmatch(text.strip()):
        return named | _letter_indices([only_letter["letter"]], options)
    leading = _LEADING_LETTER.match(text)
    letters = _BRACKETED_LETTER.findall(text) + ([leading["letter"]] if leading else [])
    rest = normalised(_BRACKETED_LETTER.sub("", text[leading.end() :] if leading else text))
    named |= {index for index, option in enumerate(options) if rest and normalised(option) == rest}
    return named | _letter_indices(letters, options)


def _letter_indices(letters: Sequence[str], options: Sequence[str]) -> set[int]:
    indices = {ord(letter.upper()) - ord("A") for letter in letters}
    return {index for index in indices if index < len(options)}


def _right_options(prompt: PromptRow) -> set[int]:
    """The indices of the options that the references name; a text that two options share names neither of them."""
    has_letters = _has_letters(prompt)
    named = [
        options_named(reference, prompt["options"] or [], has_letters=has_letters) for reference in prompt["references"]
    ]
    return {index for indices in named if len(indices) == 1 for index in indices}


def _has_letters(prompt: PromptRow) -> bool:
    return "(A)" in prompt["query"]
