"""The reward `reasoning_gym`: the score that the prompt's own task gives to an answer, from 0 to 1.

For prompts of the source of that name, which keep the task's entry in their metadata. The scorers are the library's:
their release is part of the reward's law. Most give a little for a wrong answer of the right form, so leave the
threshold at 1.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from hir_core.config import ReasoningGymReward
from hir_core.dynamic_imports import import_extra
from hir_core.prompts.reasoning_gym import from_tagged
from hir_core.rewards.reward import RowReward, Verdict

PACKAGE = "reasoning-gym"
RUN_ANSWERS = {
    *("binary_matrix", "countdown", "intermediate_integration", "n_queens", "polynomial_multiplication", "puzzle24"),
    *("simple_integration", "spiral_matrix", "string_insertion"),
}
"""Tasks whose scorers evaluate an answer as Python, themselves or through sympy; read from release 0.1.25."""


class ReasoningGym(RowReward):
    """Asks the task that a prompt was drawn from.

    Raises:
        ConfigError: the extra is missing.
    """

    name = "reasoning_gym"

    config: ReasoningGymReward

    def __init__(self, config: ReasoningGymReward) -> None:
        super().__init__(config)
        self._library = import_extra("reasoning_gym", PACKAGE, "reward: the type reasoning_gym")
        self._tasks: dict[str, Any] = {}

    def fingerprint(self) -> dict[str, Any]:
        return {"type": self.name, "release": importlib.metadata.version(PACKAGE)}

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        kept = json.loads(prompt["metadata"] or "{}").get("reasoning_gym")
        if kept is None:
            return "it is not a prompt of reasoning-gym: choose another reward"
        if kept["task"] in RUN_ANSWERS and not self.config.run_answers:
            return (
                "its scorer runs answers as Python code, so whatever the model writes: choose another task, or set "
                "reward.run_answers=true where that can do no harm"
            )
        return None

    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        kept = prompt["metadata"]["reasoning_gym"]
        try:
            score = float(self._task(kept).score_answer(completion.strip(), from_tagged(kept["entry"])))
        except Exception as error:  # noqa: BLE001 - a scorer that fails on an odd text cannot judge it
            return Verdict(None, f"the scorer of {kept['task']} failed: {type(error).__name__}: {error}")
        return Verdict(score, f"{score:g} of 1 by {kept['task']}")

    def _task(self, kept: dict[str, Any]) -> Any:
        """The task with the dials that the prompt was drawn with: some scorers look at them."""
        key = json.dumps([kept["task"], kept["dials"]], sort_keys=True)
        if key not in self._tasks:
            self._tasks[key] = self._library.create_dataset(kept["task"], **kept["dials"], seed=0, size=1)
        return self._tasks[key]
