"""The reward `numeric`: 1 where the number in a completion equals an accepted one within a tolerance, else 0.

What counts as a number is decided in `prompts/numbers.py`.
"""

from __future__ import annotations

from fractions import Fraction

from hir_core.config import NumericReward
from hir_core.prompts.numbers import NO_NUMBER, Reading, read_number
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, after_marker, shortened


class Numeric(RowReward):
    """Compares numbers as exact fractions: R = 1 if |x - r| <= max(absolute, relative * |r|) for an accepted r, else 0.

    A completion without a number, or with one that can be read in several ways, is not an answer: it cannot be judged,
    and so is never trained on as a wrong one.
    """

    name = "numeric"
    config: NumericReward

    def unusable(self, prompt: PromptRow) -> str | None:
        if not self._accepted(prompt):
            return f"none of its references {prompt['references']!r} holds a number: correct them, or use exact_match"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        text = after_marker(completion, self.config.marker)
        if text is None:
            return Verdict(None, f"no {self.config.marker!r}: {shortened(completion)}")
        number, problem = self._read(text)
        if number is None:
            return Verdict(None, f"{problem}: {shortened(completion)}", no_answer=problem == NO_NUMBER)
        accepted = self._accepted(prompt)
        absolute, relative = Fraction(self.config.absolute_tolerance), Fraction(self.config.relative_tolerance)
        for reference, expected in accepted.items():
            if abs(number - expected) <= max(absolute, relative * abs(expected)):
                return Verdict(1.0, f"equals {shortened(reference)}")
        return Verdict(0.0, f"expected {shortened(' or '.join(accepted))}")

    def _read(self, text: str) -> Reading:
        """The first number of a text that followed the marker; without a marker, the last number."""
        is_hundredth = self.config.percent == "hundredth"
        return read_number(text, last=self.config.marker is None, percent_is_hundredth=is_hundredth)

    def _accepted(self, prompt: PromptRow) -> dict[str, Fraction]:
        """The numbers by the reference that holds them; a reference may contain the marker, and need not."""
        numbers = {}
        for reference in prompt["references"]:
            text = after_marker(reference, self.config.marker)
            if text is None:
                number, _ = read_number(reference, percent_is_hundredth=self.config.percent == "hundredth")
            else:
                number, _ = self._read(text)
            if number is not None:
                numbers[reference] = number
        return numbers
