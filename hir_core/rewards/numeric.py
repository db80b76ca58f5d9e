"""The reward `numeric`: 1 where the number in a completion equals an accepted one within a tolerance, else 0.

A completion without a number, or with one that can be read in several ways, is a slip of form and not a wrong answer:
it cannot be judged, and so is never taught as wrong. What counts as a number is told in `numerals`.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from hir_core.config import NumericReward
from hir_core.prompts.numbers import Reading, read_number
from hir_core.rewards.reward import RowReward, Verdict, after_marker, shortened


class Numeric(RowReward):
    """Right where |x - r| <= max(absolute, relative * |r|) for an accepted number r, computed without rounding."""

    name = "numeric"
    config: NumericReward

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        if not self._accepted(prompt):
            return f"none of its references {prompt['references']!r} holds a number: correct them, or use exact_match"
        return None

    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        text = after_marker(completion, self.config.marker)
        if text is None:
            return Verdict(None, f"no {self.config.marker!r}: {shortened(completion)}")
        number, problem = self._read(text)
        if number is None:
            return Verdict(None, f"{problem}: {shortened(completion)}")
        accepted = self._accepted(prompt)
        for reference, expected in accepted.items():
            if abs(number - expected) <= self._tolerance(expected):
                return Verdict(1.0, f"equals {shortened(reference)}")
        return Verdict(0.0, f"expected {shortened(' or '.join(accepted))}")

    def _read(self, text: str) -> Reading:
        """The first number after the marker; without a marker, the last of all."""
        is_hundredth = self.config.percent == "hundredth"
        return read_number(text, last=self.config.marker is None, percent_is_hundredth=is_hundredth)

    def _accepted(self, prompt: dict[str, Any]) -> dict[str, Fraction]:
        """The number in each reference that has one; a reference may hold the marker, and need not."""
        marked = {reference: after_marker(reference, self.config.marker) for reference in prompt["references"]}
        read = {
            reference: read_number(reference, percent_is_hundredth=self.config.percent == "hundredth")
            if text is None
            else self._read(text)
            for reference, text in marked.items()
        }
        return {reference: number for reference, (number, _) in read.items() if number is not None}

    def _tolerance(self, expected: Fraction) -> Fraction:
        return max(Fraction(self.config.absolute_tolerance), Fraction(self.config.relative_tolerance) * abs(expected))
