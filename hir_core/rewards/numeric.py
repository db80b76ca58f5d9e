"""The reward `numeric`: 1 where the number in a completion equals an accepted one within a tolerance, else 0.

What counts as a number is decided in `prompts/number_search.py`, which of several is the answer in `rewards/reading`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from hir_core.config import NumericReward
from hir_core.rewards.reading.decision import final_answer
from hir_core.rewards.reading.numbers import NumberReader
from hir_core.rewards.reading.per_prompt import PerPrompt
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, after_marker, shortened


class Accepted(NamedTuple):
    """A number that a reference holds, and the numbers that equal it within the tolerances."""

    number: Fraction
    lowest: Fraction
    highest: Fraction
    reference: str


class Numeric(RowReward):
    """Compares numbers as exact fractions: R = 1 if |x - r| <= max(absolute, relative * |r|) for an accepted r, else 0.

    A completion without a number, or with several that could be the answer, is no answer that is understood: it cannot
    be judged, and so is never trained on as a wrong one.
    """

    name = "numeric"
    config: NumericReward

    def __init__(self, config: NumericReward) -> None:
        super().__init__(config)
        self._is_hundredth = config.percent == "hundredth"
        self._accepted = PerPrompt(self._read_references)

    def unusable(self, prompt: PromptRow) -> str | None:
        if not self._accepted(prompt)[1]:
            return f"none of its references {prompt['references']!r} holds a number: correct them, or use exact_match"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        reader, accepted = self._accepted(prompt)
        reading = final_answer(reader, completion, self.config.marker)
        if reading.value is None:
            return reading.unscored(completion, "no number")
        number = reading.value.number
        for option in accepted:
            if option.lowest <= number <= option.highest:
                return Verdict(1.0, f"equals {shortened(option.reference)}")
        return Verdict(0.0, f"expected {shortened(' or '.join(option.reference for option in accepted))}")

    def _read_references(self, prompt: PromptRow) -> tuple[NumberReader, list[Accepted]]:
        """A reader for the prompt's answers, and the accepted numbers; a reference may contain the marker."""
        absolute, relative = Fraction(self.config.absolute_tolerance), Fraction(self.config.relative_tolerance)
        reader, accepted = NumberReader(percent_is_hundredth=self._is_hundredth), []
        for reference in prompt["references"]:
            marker = self.config.marker if after_marker(reference, self.config.marker) is not None else None
            value = final_answer(reader, reference, marker).value
            if value is not None:
                tolerance = max(absolute, relative * abs(value.number))
                accepted.append(Accepted(value.number, value.number - tolerance, value.number + tolerance, reference))
        has_decimals = bool(accepted) and all(option.number.denominator > 1 for option in accepted)
        reader = NumberReader(
            percent_is_hundredth=self._is_hundredth, query=prompt["query"], decimal_comma=has_decimals
        )
        return reader, accepted
