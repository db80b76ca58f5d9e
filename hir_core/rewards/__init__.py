"""Rewards: how well a completion answers its prompt. `build_reward` returns the one that the config names.

Reads Samples and Prompts, returns Rewards; writes nothing. What a score means for training is left to the relabelers.
"""

from hir_core.rewards.registry import REWARDS, build_reward
from hir_core.rewards.reward import Reward, Verdict, attribute_means, not_judged_reasons
from hir_core.rewards.reward_model import RewardModel

__all__ = ["REWARDS", "Reward", "RewardModel", "Verdict", "attribute_means", "build_reward", "not_judged_reasons"]
