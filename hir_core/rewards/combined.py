"""The reward `combined`: several rewards as one score, by weighted mean, minimum or product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hir_core.config import CombinedReward
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import PromptRow, Reward, Verdict, finite


class Combined(Reward):
    """Judges every completion by each part, and combines the scores; the parts' own scores are kept as attributes.

    mean: R = sum(w_i R_i) / sum(w_i); minimum: R = min(R_i); product: R = prod(R_i). Where a part cannot judge, the
    whole cannot: a score made of the other parts would not be on the same scale.
    """

    name = "combined"
    config: CombinedReward

    def __init__(self, config: CombinedReward, parts: Sequence[Reward]) -> None:
        super().__init__(config)
        self.parts = parts
        self.launches = any(part.launches for part in parts)
        self.judges_in_slices = all(part.judges_in_slices for part in parts)
        self.uses_references = all(part.uses_references for part in parts)
        self.weights = [part.weight for part in config.parts]
        self.names = [part.attribute for part in config.parts]

    def fingerprint(self) -> dict[str, Any]:
        parts = zip(self.config.parts, self.parts, strict=True)
        return {
            **super().fingerprint(),
            "parts": [{**section.fingerprint(), "reward": part.fingerprint()} for section, part in parts],
        }

    def unusable(self, prompt: PromptRow) -> str | None:
        for name, part in zip(self.names, self.parts, strict=True):
            if reason := part.unusable(prompt):
                return f"{name}: {reason}"
        return None

    def prepare(self, completions: Sequence[str], prompts: Sequence[PromptRow]) -> None:
        for part in self.parts:
            part.prepare(completions, prompts)

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        columns = []
        for index, part in enumerate(self.parts):

            def on_part_rows(done: int, total: int, index: int = index) -> None:
                on_rows((index * total + done) // len(self.parts), total)  # a row is done when all parts judged it

            columns.append(map(finite, part.verdicts(completions, prompts, on_rows=on_part_rows)))
        return [self._combined(verdicts) for verdicts in zip(*columns, strict=True)]

    def _combined(self, verdicts: Sequence[Verdict]) -> Verdict:
        """The combined score with the parts' reasons; where a part cannot judge, its reason comes first."""
        parts = {name: verdict.score for name, verdict in zip(self.names, verdicts, strict=True)}
        scores = [score for score in parts.values() if score is not None]
        if len(scores) < len(parts):
            part_scores = [f"{name} {'none' if score is None else f'{score:.4g}'}" for name, score in parts.items()]
            unscored = [verdict for verdict in verdicts if verdict.score is None]
            reason = f"{unscored[0].reason} [{', '.join(part_scores)}]"
            return Verdict(None, reason, parts, no_answer=all(verdict.no_answer for verdict in unscored))
        reasons = [
            f"{name} {score:.4g}{f' ({verdict.reason})' if verdict.reason else ''}"
            for name, score, verdict in zip(self.names, scores, verdicts, strict=True)
        ]
        if self.config.how == "minimum":
            combined = min(scores)
        elif self.config.how == "product":
            combined = math.prod(scores)
        else:
            weighted = (weight * score for weight, score in zip(self.weights, scores, strict=True))
            combined = math.fsum(weighted) / math.fsum(self.weights)
        return Verdict(combined, "; ".join(reasons), parts)
