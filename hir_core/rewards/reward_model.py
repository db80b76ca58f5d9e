"""The reward `reward_model`: the output of a Hugging Face sequence classifier for a query and its completion.

Decides which model, label and template make a score, and refuses before anything is sampled what cannot make one.
Reads the classifier's config files. Running the classifier, and keeping its scores, is left to the `score` function
that it is built with (`stages/reward_launch.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hir_core.config import HubModel, RewardModelReward
from hir_core.config.model_files import classifier_labels, model_fingerprint
from hir_core.errors import ConfigError, did_you_mean
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import PromptRow, Reward, Verdict
from hir_core.schemas import as_text


class RewardModel(Reward):
    """Scores by a learned reward model, as in Ouyang et al. 2022 (arXiv 2203.02155): R = activation(z)_label.

    z are the classifier's outputs for the query and its completion. The classifier is loaded, sharded and run in a
    launch, like the policy. A text that is too long for it cannot be judged.

    Args:
        score: scores completions of queries in a launch; None where nothing will be judged.

    Raises:
        ConfigError: the model is not a classifier with safetensors, or it is not clear which label is the score.
    """

    name = "reward_model"
    config: RewardModelReward
    launches = True
    uses_references = False

    def __init__(self, config: RewardModelReward, score: ScoreInLaunch | None) -> None:
        super().__init__(config)
        self.model = HubModel(source=config.source, revision=config.revision)
        self.label = _label_index(config, classifier_labels(self.model))
        self._score = score

    def fingerprint(self) -> dict[str, Any]:
        """The settings, with the model identified by its files where they are local, and the label by its index."""
        fingerprint = {
            name: value for name, value in super().fingerprint().items() if name not in ("source", "revision")
        }
        return {**fingerprint, "model": model_fingerprint(self.model), "label": self.label}

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        del on_rows  # the launch reports its own progress
        assert self._score is not None, "built without a launch to score in"
        return self._score(self, completions, [as_text(prompt["history"], prompt["query"]) for prompt in prompts])

    def prepare(self, completions: Sequence[str], prompts: Sequence[PromptRow]) -> None:
        self.verdicts(completions, prompts)


ScoreInLaunch = Callable[[RewardModel, Sequence[str], Sequence[str]], list[Verdict]]
"""Scores completions (second argument) of queries (third) by a reward model; equal texts are scored once."""


def _label_index(config: RewardModelReward, labels: Sequence[str]) -> int:
    """The index of the label whose output is the score."""
    choices = f"{config.source} has the labels {', '.join(f'{n} {label}' for n, label in enumerate(labels))}"
    if config.activation == "softmax" and len(labels) == 1:
        raise ConfigError(
            f"reward.activation: a softmax over one label is always 1, and {choices}: use sigmoid or none"
        )
    if config.label is None:
        if len(labels) == 1:
            return 0
        raise ConfigError(f"reward.label: {choices}: say which one is the score, by number or name")
    if config.label in labels:
        return labels.index(str(config.label))
    if isinstance(config.label, int) and 0 <= config.label < len(labels):
        return config.label
    hint = did_you_mean(str(config.label), labels)
    raise ConfigError(f"reward.label: no label {config.label!r}{hint or ';'} {choices}")
