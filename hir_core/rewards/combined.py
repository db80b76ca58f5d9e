"""The reward `combined`: several rewards as one score, by weighted mean, minimum or product, and each as an attribute.

Where one part cannot judge, the whole cannot: a score made of the other parts would not be on the same scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from hir_core.config import CombinedReward
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import Reward, Verdict, finite


class Combined(Reward):
    """Asks each part about all completions, and joins their verdicts."""

    name = "combined"
    config: CombinedReward

    def __init__(self, config: CombinedReward, parts: Sequence[Reward]) -> None:
        super().__init__(config)
        self.parts = parts
        self.launches = any(part.launches for part in parts)
        self.compares = all(part.compares for part in parts)
        self.weights = [part.weight for part in config.parts]
        self.names = [part.attribute for part in config.parts]

    def fingerprint(self) -> dict[str, Any]:
        parts = zip(self.config.parts, self.parts, strict=True)
        return {
            **super().fingerprint(),
            "parts": [{**given.fingerprint(), "reward": part.fingerprint()} for given, part in parts],
        }

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        found = ((name, part.unusable(prompt)) for name, part in zip(self.names, self.parts, strict=True))
        return next((f"{name}: {reason}" for name, reason in found if reason), None)

    def prepare(self, completions: Sequence[str], prompts: Sequence[dict[str, Any]]) -> None:
        for part in self.parts:
            part.prepare(completions, prompts)

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        columns = []
        for number, part in enumerate(self.parts):
            part_on_rows = partial(self._tell, on_rows, number)
            columns.append(map(finite, part.verdicts(completions, prompts, on_rows=part_on_rows)))
        return [self._joined(row) for row in zip(*columns, strict=True)]

    def _tell(self, on_rows: OnRows, number: int, done: int, total: int) -> None:
        """A part that has judged all completions has done its share of each."""
        on_rows((number * total + done) // len(self.parts), total)

    def _joined(self, verdicts: Sequence[Verdict]) -> Verdict:
        """The joint score, and the parts' reasons; the reason of a part that cannot judge stands first."""
        parts = {name: verdict.score for name, verdict in zip(self.names, verdicts, strict=True)}
        scores = [score for score in parts.values() if score is not None]
        if len(scores) < len(parts):
            told = [f"{name} {'none' if score is None else f'{score:.4g}'}" for name, score in parts.items()]
            unjudged = next(verdict.reason for verdict in verdicts if verdict.score is None)
            return Verdict(None, f"{unjudged} [{', '.join(told)}]", parts)
        named = zip(self.names, verdicts, strict=True)
        told = [f"{name} {score:.4g}{f' ({reason})' if reason else ''}" for name, (score, reason, _) in named]
        return Verdict(self._score(scores), "; ".join(told), parts)

    def _score(self, scores: Sequence[float]) -> float:
        if self.config.how == "minimum":
            return min(scores)
        if self.config.how == "product":
            return math.prod(scores)
        shares = zip(self.weights, scores, strict=True)
        return math.fsum(weight * score for weight, score in shares) / math.fsum(self.weights)
