"""Registry of rewards by the `type` of a config's section `reward`, and the function that builds one."""

from __future__ import annotations

from hir_core.config import CombinedReward, RewardConfig, RewardModelReward
from hir_core.rewards.answer import Answer
from hir_core.rewards.combined import Combined
from hir_core.rewards.constraints import Constraints
from hir_core.rewards.exact_match import ExactMatch
from hir_core.rewards.graded import Graded
from hir_core.rewards.judge import Judge
from hir_core.rewards.math import Math
from hir_core.rewards.numeric import Numeric
from hir_core.rewards.option_choice import OptionChoice
from hir_core.rewards.python import PythonFunction
from hir_core.rewards.reasoning_gym import ReasoningGym
from hir_core.rewards.regex import Regex
from hir_core.rewards.reward import Reward
from hir_core.rewards.reward_model import RewardModel, ScoreInLaunch

REWARDS: dict[str, type[Reward]] = {
    "answer": Answer,
    "exact_match": ExactMatch,
    "option_choice": OptionChoice,
    "numeric": Numeric,
    "regex": Regex,
    "graded": Graded,
    "math": Math,
    "judge": Judge,
    "constraints": Constraints,
    "python": PythonFunction,
    "reasoning_gym": ReasoningGym,
}
"""The rewards that are built from their settings alone: `combined` needs its parts, and `reward_model` a launch."""


def build_reward(config: RewardConfig, score: ScoreInLaunch | None = None) -> Reward:
    """The reward that the config names, with its parts where it has some.

    Args:
        score: how a reward model scores; None where nothing will be judged by one.

    Raises:
        ConfigError: a function of the user's cannot be imported, a judge's key is not set, an extra is not installed,
            or a reward model is not a classifier that can score.
    """
    if isinstance(config, CombinedReward):
        return Combined(config, [build_reward(part.reward, score) for part in config.parts])
    if isinstance(config, RewardModelReward):
        return RewardModel(config, score)
    return REWARDS[config.type](config)
