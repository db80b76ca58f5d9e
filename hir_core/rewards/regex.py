"""The reward `regex`: 1 where a completion matches a pattern, else 0; with a group, whether that equals a reference."""

from __future__ import annotations

from collections.abc import Sequence

from hir_core.config import RegexReward
from hir_core.progress import OnRows, ignore
from hir_core.rewards.exact_match import normalised
from hir_core.rewards.patterns import find
from hir_core.rewards.reward import PromptRow, Reward, Verdict, shortened
from hir_core.time_limit import RowResult


class Regex(Reward):
    """Matches each completion against the pattern, in a separate process under a time limit.

    With a group, the pattern describes the form of an answer: a completion that does not match is not an answer, and
    cannot be judged. Neither can one on which the match takes too long.
    """

    name = "regex"
    judges_in_slices = True
    config: RegexReward

    def unusable(self, prompt: PromptRow) -> str | None:
        if self.config.group is not None and not any(normalised(reference) for reference in prompt["references"]):
            return "it has no reference to compare the group with: add `references`, or leave `group` out"
        return None

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        config = self.config
        matches = find(
            config.pattern,
            list(completions),
            group=0 if config.group is None else config.group,
            how=config.match,
            limit_s=config.time_limit_s,
            on_rows=on_rows,
        )
        rows = zip(matches, completions, prompts, strict=True)
        return [self._verdict(match, completion, prompt["references"]) for match, completion, prompt in rows]

    def _verdict(self, match: RowResult, completion: str, references: Sequence[str]) -> Verdict:
        if match.problem:
            return Verdict(None, f"{match.problem}: {shortened(completion)}")
        if self.config.group is None:
            if match.value:
                return Verdict(1.0, "matches")
            return Verdict(0.0, f"does not match: {shortened(completion)}")
        if not match.value or match.value[0] is None:
            return Verdict(None, f"no match: {shortened(completion)}")
        answer = normalised(match.value[0])
        if answer and answer in map(normalised, references):
            return Verdict(1.0, f"found {shortened(match.value[0])}")
        return Verdict(0.0, f"found {shortened(match.value[0])}, expected {shortened(' or '.join(references))}")
