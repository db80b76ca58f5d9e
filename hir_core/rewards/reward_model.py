"""The reward `reward_model`: what a sequence classifier of Hugging Face's library says of a query and its completion.

The classifier is a model like the policy: it is loaded, sharded and run in a launch. Says which model, label and
template decide a score, and refuses what cannot be one before anything is sampled; leaves the launch, and keeping its
scores, to whoever made it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hir_core.config import HubModel, RewardModelReward
from hir_core.config.model_files import classifier_labels, model_fingerprint
from hir_core.errors import ConfigError, did_you_mean
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import Reward, Verdict
from hir_core.schemas import as_text


class RewardModel(Reward):
    """Asks a classifier.

    Args:
        score: scores completions of queries in a launch.

    Raises:
        ConfigError: the model is none that can score, or its label is not said.
    """

    name = "reward_model"
    config: RewardModelReward
    launches = True
    compares = False

    def __init__(self, config: RewardModelReward, score: ScoreInLaunch | None) -> None:
        super().__init__(config)
        self.model = HubModel(source=config.source, revision=config.revision)
        self.label = _place(config, classifier_labels(self.model))
        self._score = score

    def fingerprint(self) -> dict[str, Any]:
        """The model by its files where they are local; the label by its place, however it was named."""
        fingerprint = {
            name: value for name, value in super().fingerprint().items() if name not in ("source", "revision")
        }
        return {**fingerprint, "model": model_fingerprint(self.model), "label": self.label}

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        del on_rows  # the launch reports its own progress
        assert self._score is not None, "made without a launch to score in"
        return self._score(self, completions, [as_text(prompt["history"], prompt["query"]) for prompt in prompts])

    def prepare(self, completions: Sequence[str], prompts: Sequence[dict[str, Any]]) -> None:
        self.verdicts(completions, prompts)


ScoreInLaunch = Callable[[RewardModel, Sequence[str], Sequence[str]], list[Verdict]]
"""Verdicts on completions of queries; equal texts are scored once."""


def _place(config: RewardModelReward, labels: Sequence[str]) -> int:
    """The number of the label whose output is the score."""
    there = f"{config.source} has the labels {', '.join(f'{n} {label}' for n, label in enumerate(labels))}"
    if config.activation == "softmax" and len(labels) == 1:
        raise ConfigError(f"reward.activation: a softmax over one label is always 1, and {there}: use sigmoid or none")
    if config.label is None:
        if len(labels) == 1:
            return 0
        raise ConfigError(f"reward.label: {there}: say which one is the score, by number or name")
    if config.label in labels:
        return labels.index(str(config.label))
    if isinstance(config.label, int) and 0 <= config.label < len(labels):
        return config.label
    hint = did_you_mean(str(config.label), labels)
    raise ConfigError(f"reward.label: no label {config.label!r}{hint or ';'} {there}")
