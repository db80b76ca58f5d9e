"""The reward `exact_match`: 1 where the completion equals an accepted answer, else 0."""

from __future__ import annotations

import re

from hir_core.rewards.reward import PromptRow, RowReward, Verdict, shortened

_FULL_STOP = re.compile(r"\.(?!\d)")


def normalised(answer: str) -> str:
    """The answer in lower case, without whitespace and full stops; the point of a decimal number stays."""
    if "." in answer:
        answer = _FULL_STOP.sub("", answer)
    return "".join(answer.lower().split()).replace("。", "")


class ExactMatch(RowReward):
    """Compares the completion with every accepted answer; case, whitespace and full stops do not count.

    The metric of Zhang et al. 2023 (arXiv 2302.05206): R = 1 if norm(o) = norm(a) for a reference a, else 0. An empty
    completion is never right.
    """

    name = "exact_match"

    def unusable(self, prompt: PromptRow) -> str | None:
        if not any(normalised(reference) for reference in prompt["references"]):
            return "it has no reference: add `references`, or choose a reward that needs none"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        answer, references = normalised(completion), prompt["references"]
        for reference in references:
            if answer and answer == normalised(reference):
                return Verdict(1.0, f"equals {shortened(reference)}")
        return Verdict(0.0, f"expected {shortened(' or '.join(references))}")
