"""The reward `regex`: 1 where a completion matches a pattern, else 0; with a group, whether that equals a reference.

With a group, the pattern says what an answer looks like: a completion that does not match is a slip of form and not a
wrong answer, and cannot be judged. A match that takes too long cannot be judged either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hir_core.config import RegexReward
from hir_core.progress import OnRows, ignore
from hir_core.rewards.exact_match import normalised
from hir_core.rewards.patterns import find
from hir_core.rewards.reward import Reward, Verdict, shortened
from hir_core.rewards.time_limit import Answer


class Regex(Reward):
    """Matches in a process of its own, under a time limit."""

    name = "regex"
    config: RegexReward

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        if self.config.group is not None and not any(normalised(reference) for reference in prompt["references"]):
            return "it has no reference to compare the group with: add `references`, or leave `group` out"
        return None

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        config = self.config
        group, limit_s = config.group if config.group is not None else 0, config.time_limit_s
        how, texts = config.match, list(completions)
        found = find(config.pattern, texts, group=group, how=how, limit_s=limit_s, on_rows=on_rows)
        rows = zip(found, completions, prompts, strict=True)
        return [self._verdict(answer, text, prompt["references"]) for answer, text, prompt in rows]

    def _verdict(self, answer: Answer, completion: str, references: Sequence[str]) -> Verdict:
        if answer.problem:
            return Verdict(None, f"{answer.problem}: {shortened(completion)}")
        if self.config.group is None:
            if answer.value:
                return Verdict(1.0, "matches")
            return Verdict(0.0, f"does not match: {shortened(completion)}")
        if not answer.value or answer.value[0] is None:
            return Verdict(None, f"no match: {shortened(completion)}")
        given = normalised(answer.value[0])
        if given and given in map(normalised, references):
            return Verdict(1.0, f"found {shortened(answer.value[0])}")
        return Verdict(0.0, f"found {shortened(answer.value[0])}, expected {shortened(' or '.join(references))}")
