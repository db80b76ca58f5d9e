"""The reward `exact_match`: 1 where the completion equals an accepted answer, else 0.

The paper's metric (Zhang et al. 2023, arXiv 2302.05206): case, blanks and full stops do not count.
"""

from __future__ import annotations

from typing import Any

from hir_core.rewards.reward import RowReward, Verdict, shortened


def normalised(answer: str) -> str:
    """The answer in lower case, without blanks and full stops."""
    return "".join(answer.lower().split()).replace(".", "")


class ExactMatch(RowReward):
    """Compares with every accepted answer."""

    name = "exact_match"

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        if not any(normalised(reference) for reference in prompt["references"]):
            return "it has no reference: add `references`, or choose a reward that needs none"
        return None

    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        answer, references = normalised(completion), prompt["references"]
        for reference in references:
            if answer and answer == normalised(reference):
                return Verdict(1.0, f"equals {shortened(reference)}")
        return Verdict(0.0, f"expected {shortened(' or '.join(references))}")
