"""The configuration of a run: `RunConfig`, its sections, and `load_config`, which reads it from a YAML file.

Here the types and ranges of settings are checked; other packages implement what they mean. Beside `flows` this is the
only package whose `__init__` re-exports names.
"""

from hir_core.config.evaluation import EvaluationConfig
from hir_core.config.instructions import Instructions
from hir_core.config.launch import LaunchConfig
from hir_core.config.load import load_config
from hir_core.config.lora import LoraConfig
from hir_core.config.model import GgufModel, HubModel, ModelConfig, ScratchModel
from hir_core.config.prompts import (
    BigBenchHardPrompts,
    BigBenchPrompts,
    DatasetsPrompts,
    FilePrompts,
    IFEvalPrompts,
    PromptSource,
    ReasoningGymPrompts,
    SyntheticPrompts,
)
from hir_core.config.relabel import (
    AttributesRelabel,
    BestOfKRelabel,
    ChainRelabel,
    ConstraintsRelabel,
    DemonstrationsRelabel,
    ExcludeWrongRelabel,
    HindsightRelabel,
    KeepCorrectRelabel,
    LearnedRelabel,
    PythonRelabel,
    QuantilesRelabel,
    Relabel,
    RelabelConfig,
)
from hir_core.config.retention import RetentionConfig
from hir_core.config.reward import (
    WITH_ATTRIBUTES,
    AnswerReward,
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
from hir_core.config.run import RunConfig
from hir_core.config.sampling import SamplingConfig, VllmEngine
from hir_core.config.section import ExcludedFromId, Section, folder_name
from hir_core.config.select import SelectConfig
from hir_core.config.training import TrainingConfig
from hir_core.config.warm_start import WarmStartConfig

__all__ = [
    "WITH_ATTRIBUTES",
    "AnswerReward",
    "AttributesRelabel",
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
    "ExcludeWrongRelabel",
    "ExcludedFromId",
    "FilePrompts",
    "GgufModel",
    "GradedReward",
    "HindsightRelabel",
    "HubModel",
    "IFEvalPrompts",
    "Instructions",
    "JudgeReward",
    "KeepCorrectRelabel",
    "LaunchConfig",
    "LearnedRelabel",
    "LoraConfig",
    "MathReward",
    "ModelConfig",
    "NumericReward",
    "OptionChoiceReward",
    "PromptSource",
    "PythonRelabel",
    "PythonReward",
    "QuantilesRelabel",
    "ReasoningGymPrompts",
    "ReasoningGymReward",
    "RegexReward",
    "Relabel",
    "RelabelConfig",
    "RetentionConfig",
    "RewardConfig",
    "RewardModelReward",
    "RunConfig",
    "SamplingConfig",
    "ScratchModel",
    "Section",
    "SelectConfig",
    "SyntheticPrompts",
    "TrainingConfig",
    "VllmEngine",
    "WarmStartConfig",
    "folder_name",
    "has_reward_model",
    "load_config",
]
