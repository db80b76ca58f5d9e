"""The reward `option_choice`: 1 where the completion names a right option, 0 where it names a wrong one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hir_core.config import OptionChoiceReward
from hir_core.rewards.reading.letters import named_option
from hir_core.rewards.reading.options import OptionReader
from hir_core.rewards.reading.per_prompt import PerPrompt
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, shortened


class Offered(NamedTuple):
    """What a prompt offers to choose from."""

    reader: OptionReader
    right: frozenset[int]
    """The indices of the options that the references name."""


class OptionChoice(RowReward):
    """Recognises which option of a multiple-choice prompt the completion names.

    An option is named by its letter, its text, or both, alone or where an answer stands in a text. A completion that
    names no option, or several, cannot be judged, and so is never trained on as a wrong one.
    """

    name = "option_choice"
    config: OptionChoiceReward

    def __init__(self, config: OptionChoiceReward) -> None:
        super().__init__(config)
        self._offered = PerPrompt(offered)

    def unusable(self, prompt: PromptRow) -> str | None:
        if not prompt["options"]:
            return "it has no options: add `options`, or use exact_match"
        if not self._offered(prompt).right:
            return f"none of its references {prompt['references']!r} is one of its options: correct them"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        return judge_option(completion, self._offered(prompt), self.config.marker)


def offered(prompt: PromptRow, options: Sequence[str] | None = None) -> Offered:
    """The reader of a prompt's options, or of others that its query offers, and the right ones."""
    reader = OptionReader(options or prompt["options"] or [], prompt["query"])
    named = (reader.bare(reference) for reference in prompt["references"])
    return Offered(reader, frozenset(index for index in named if index is not None))


def judge_option(completion: str, offered: Offered, marker: str | None) -> Verdict:
    """Whether the option that a completion names is a right one."""
    reading = named_option(offered.reader, completion, marker)
    chosen = reading.value
    if chosen is None:
        return reading.unscored(completion, "no option")
    result = "right" if chosen in offered.right else "wrong"
    return Verdict(float(chosen in offered.right), f"{result}: names {shortened(offered.reader.options[chosen])}")
