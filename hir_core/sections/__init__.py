"""The sections of a run's configuration: model, prompts, sampling, reward, relabeling, training, launch.

Reads nothing; `config` puts the sections together and reads files.
"""

from hir_core.sections.launch import LaunchConfig
from hir_core.sections.model import GgufModel, HubModel, ModelConfig, ScratchModel
from hir_core.sections.part import Part, Performance, folder_name
from hir_core.sections.prompts import (
    BigBenchHardPrompts,
    BigBenchPrompts,
    DatasetsPrompts,
    FilePrompts,
    Instructions,
    PromptSource,
    ReasoningGymPrompts,
    SyntheticPrompts,
)
from hir_core.sections.relabeling import (
    BestOfKRelabel,
    ChainRelabel,
    ConstraintsRelabel,
    DemonstrationsRelabel,
    HindsightRelabel,
    KeepCorrectRelabel,
    LearnedRelabel,
    PythonRelabel,
    QuantilesRelabel,
    Relabel,
    RelabelConfig,
    SelectConfig,
)
from hir_core.sections.rewards import (
    CombinedReward,
    ConstraintsReward,
    ExactMatchReward,
    GradedReward,
    JudgeReward,
    MathReward,
    NumericReward,
    OptionChoiceReward,
    PythonReward,
    ReasoningGymReward,
    RegexReward,
    RewardConfig,
    RewardModelReward,
    has_reward_model,
)
from hir_core.sections.sampling import EvaluationConfig, SamplingConfig
from hir_core.sections.training import TrainingConfig, WarmStartConfig

__all__ = [
    "BestOfKRelabel",
    "BigBenchHardPrompts",
    "BigBenchPrompts",
    "ChainRelabel",
    "CombinedReward",
    "ConstraintsRelabel",
    "ConstraintsReward",
    "DatasetsPrompts",
    "DemonstrationsRelabel",
    "EvaluationConfig",
    "ExactMatchReward",
    "FilePrompts",
    "GgufModel",
    "GradedReward",
    "HindsightRelabel",
    "HubModel",
    "Instructions",
    "JudgeReward",
    "KeepCorrectRelabel",
    "LaunchConfig",
    "LearnedRelabel",
    "MathReward",
    "ModelConfig",
    "NumericReward",
    "OptionChoiceReward",
    "Part",
    "Performance",
    "PromptSource",
    "PythonRelabel",
    "PythonReward",
    "QuantilesRelabel",
    "ReasoningGymPrompts",
    "ReasoningGymReward",
    "RegexReward",
    "Relabel",
    "RelabelConfig",
    "RewardConfig",
    "RewardModelReward",
    "SamplingConfig",
    "ScratchModel",
    "SelectConfig",
    "SyntheticPrompts",
    "TrainingConfig",
    "WarmStartConfig",
    "folder_name",
    "has_reward_model",
]
