"""The reward `reasoning_gym`: the score from 0 to 1 that a reasoning-gym task gives to an answer.

Needs hir's extra `reasoning-gym`. The scorers are the library's own: its release is part of the reward's fingerprint.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from hir_core.config import ReasoningGymReward
from hir_core.dynamic_imports import import_extra
from hir_core.prompts.reasoning_gym import from_tagged
from hir_core.rewards.reward import PromptRow, RowReward, Verdict

PACKAGE = "reasoning-gym"
RUN_ANSWERS = {
    *("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24"),
    *("simple_integration", "spiral_matrix", "string_insertion"),
}
"""Tasks whose scorers evaluate an answer as Python, themselves or through sympy; read from release 0.1.25."""


class ReasoningGym(RowReward):
    """Scores each completion by the task that its prompt was drawn from (Stojanovski et al. 2025, arXiv 2505.24760).

    For prompts of the source `reasoning_gym`, which keep the task, its settings and its entry in their metadata. Most
    tasks give a low score to a wrong answer of the right form, so leave `relabel.threshold` at 1.

    Raises:
        ConfigError: the library is not installed.
    """

    name = "reasoning_gym"
    config: ReasoningGymReward

    def __init__(self, config: ReasoningGymReward) -> None:
        super().__init__(config)
        self._library = import_extra("reasoning_gym", PACKAGE, "reward: the type reasoning_gym")
        self._tasks: dict[str, Any] = {}

    def fingerprint(self) -> dict[str, Any]:
        return {"type": self.name, "release": importlib.metadata.version(PACKAGE)}

    def unusable(self, prompt: PromptRow) -> str | None:
        item = prompt["metadata"].get("reasoning_gym")
        if item is None:
            return "it is not a prompt of reasoning-gym: choose another reward"
        if item["task"] in RUN_ANSWERS and not self.config.run_answers:
            return (
                "its scorer runs answers as Python code, so whatever the model writes: choose another task, or set "
                "reward.run_answers=true where that can do no harm"
            )
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        item = prompt["metadata"]["reasoning_gym"]
        try:
            task = self._task(item["task"], item["dials"])
            score = float(task.score_answer(completion.strip(), from_tagged(item["entry"])))
        except Exception as error:  # noqa: BLE001 - a scorer that fails on an odd text cannot judge it
            return Verdict(None, f"the scorer of {item['task']} failed: {type(error).__name__}: {error}")
        return Verdict(score, f"{score:g} of 1 by {item['task']}")

    def _task(self, name: str, dials: dict[str, Any]) -> Any:
        """The task with the settings that the prompt was drawn with, because some scorers depend on them."""
        key = json.dumps([name, dials], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = self._library.create_dataset(name, **dials, seed=0, size=1)
        return self._tasks[key]
