"""`RunConfig`: everything that one run does, with the checks that need more than one section.

Reads no YAML (see `load`); each section stands in the file of its key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
from hir_core.config.launch import LaunchConfig
from hir_core.config.model import ModelConfig
from hir_core.config.prompts import Instructions, PromptSource
from hir_core.config.relabel import AttributesRelabel, HindsightRelabel, RelabelConfig, SelectConfig
from hir_core.config.retention import RetentionConfig
from hir_core.config.reward import WITH_ATTRIBUTES, ExactMatchReward, RewardConfig, has_reward_model
from hir_core.config.sampling import EvaluationConfig, SamplingConfig
from hir_core.config.section import ExcludedFromId, Section, folder_name
from hir_core.config.training import TrainingConfig, WarmStartConfig

P = TypeVar("P", bound=Section)


class RunConfig(Section):
    """Everything that one run does."""

    run: str
    """Name of the run: its folder under `runs_dir`."""
    runs_dir: Annotated[Path, ExcludedFromId] = Path("runs")
    iterations: Annotated[int, ExcludedFromId] = Field(ge=0)
    """Rounds of sample, score, relabel and train."""
    seed: int = 0
    model: ModelConfig
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    instructions: Instructions = Instructions()
    warm_start: WarmStartConfig | None = None
    sampling: SamplingConfig = SamplingConfig()
    reward: RewardConfig = ExactMatchReward()
    relabel: RelabelConfig = HindsightRelabel()
    select: SelectConfig = SelectConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    deepspeed: Annotated[Path, ExcludedFromId] = Field(Path("ds_configs/zero2.json"), validate_default=True)
    """A DeepSpeed JSON file (ZeRO stage, offload, buckets, dtype): a path, or the name of one that comes with hir."""
    launch: Annotated[LaunchConfig, ExcludedFromId] = LaunchConfig()
    branch: Annotated[str, ExcludedFromId] = "main"
    """Name of the line of versions that this config makes; one of the same name forgets those it does not use."""
    retention: Annotated[RetentionConfig | None, ExcludedFromId] = None
    """What `hir gc` leaves of the run; left out: everything."""

    _run_names_a_folder = field_validator("run")(folder_name)

    @field_validator("relabel")
    @classmethod
    def _attributes_are_judged(cls, relabel: Section, others: ValidationInfo) -> Section:
        reward = others.data.get("reward")  # absent where it is wrong itself
        if isinstance(relabel, AttributesRelabel) and reward is not None and not isinstance(reward, WITH_ATTRIBUTES):
            raise ValueError(
                f"attributes come from a reward that judges several: set reward.type to combined, constraints or "
                f"python, found {reward.type}"
            )
        return relabel

    @model_validator(mode="after")
    def _threshold_is_said(self) -> RunConfig:
        if has_reward_model(self.reward) and "threshold" not in self.relabel.model_fields_set:
            raise ValueError(
                "relabel.threshold: required with a reward model, whose scores are seldom exactly 1: say from which "
                "score on an output counts as correct"
            )
        return self

    @field_validator("deepspeed")
    @classmethod
    def _find_deepspeed(cls, path: Path) -> Path:
        shipped = SHIPPED_DS_CONFIGS / path.name
        is_shipped = path.parent in (Path("ds_configs"), Path()) and shipped.is_file()
        return shipped if is_shipped and not path.exists() else path

    @property
    def run_dir(self) -> Path:
        """The folder that holds every version of this run."""
        return self.runs_dir / self.run

    @property
    def evaluation_tokens(self) -> int:
        """New tokens that an evaluated answer may have."""
        return self.evaluation.max_new_tokens or self.sampling.max_new_tokens

    @property
    def evaluation_guidance(self) -> float:
        """Guidance towards the correct instruction in evaluation."""
        own = self.evaluation.guidance
        return self.sampling.guidance if own is None else own

    @property
    def is_bf16(self) -> bool:
        """Whether models are held in bf16, which decides what they learn, write and score."""
        return bool(self.deepspeed_settings().get("bf16", {}).get("enabled"))

    def deepspeed_settings(self) -> dict[str, Any]:
        """The DeepSpeed file's content, checked: see `read_deepspeed`."""
        return read_deepspeed(self.deepspeed)
