"""`RunConfig`: the whole configuration of a run, with the checks that involve more than one section.

Each section is defined in the module of its key. Reads the DeepSpeed file once, when it is built; YAML files are read
by `config.load`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from hir_core.config.deepspeed import DeepSpeedSetting
from hir_core.config.evaluation import EvaluationConfig
from hir_core.config.instructions import Instructions
from hir_core.config.launch import LaunchConfig
from hir_core.config.lora import LoraConfig
from hir_core.config.model import ModelConfig, ScratchModel
from hir_core.config.prompts import PromptSource
from hir_core.config.relabel import AttributesRelabel, ExcludeWrongRelabel, LearnedRelabel, RelabelConfig
from hir_core.config.retention import RetentionConfig
from hir_core.config.reward import WITH_ATTRIBUTES, AnswerReward, RewardConfig, has_reward_model
from hir_core.config.sampling import SamplingConfig
from hir_core.config.section import ExcludedFromId, Section, folder_name
from hir_core.config.select import SelectConfig
from hir_core.config.training import TrainingConfig
from hir_core.config.warm_start import WarmStartConfig

Tracker = Literal["tensorboard", "wandb"]


class RunConfig(Section):
    """The whole configuration of a run. It is an immutable value: later changes on disk do not change it."""

    run: str
    """Name of the run, and of its folder in `runs_dir`."""
    runs_dir: Annotated[Path, ExcludedFromId] = Path("runs")
    """Folder that contains the folders of all runs."""
    iterations: Annotated[int, ExcludedFromId] = Field(ge=0)
    """Number of iterations of the outer loop: sample, score, relabel and train. A larger number later continues the
    run."""
    seed: int = 0
    """Seed of the run's random numbers: initial weights, choice of prompts, sampling and order of triples."""
    model: ModelConfig
    """The model to train: by its `type` from the hub or a folder (`hub`), a GGUF file (`gguf`) or built from `scratch`.
    """
    prompts: tuple[PromptSource, ...] = Field(min_length=1)
    """One or more sources of prompts, which are used together."""
    instructions: Instructions = Instructions()
    """The correct and the wrong instruction."""
    warm_start: WarmStartConfig | None = None
    """Supervised training on reference answers before the first iteration. Unset: none."""
    sampling: SamplingConfig = SamplingConfig()
    """How completions are sampled in each iteration."""
    reward: RewardConfig = AnswerReward()
    """How completions are scored, by its `type`."""
    relabel: RelabelConfig = ExcludeWrongRelabel()
    """How scored samples get their instructions, by its `type`."""
    select: SelectConfig = SelectConfig()
    """Which relabeled samples are trained on."""
    training: TrainingConfig = TrainingConfig()
    """How the model is trained in each iteration."""
    lora: LoraConfig | None = None
    """Training of a LoRA adapter in place of all weights. Unset: all weights are trained."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """How every model version is evaluated."""
    deepspeed: Annotated[DeepSpeedSetting, ExcludedFromId] = Field(Path("ds_configs/zero2.json"), validate_default=True)
    """Path of a DeepSpeed JSON file (ZeRO stage, offloading, communication buckets, bf16), or the name of one that
    comes with hir. It is read once, when the config is loaded."""
    launch: Annotated[LaunchConfig, ExcludedFromId] = LaunchConfig()
    """How the rank processes are started."""
    branch: Annotated[str, ExcludedFromId] = "main"
    """Name of the branch: the versions that this config uses. When a run with another config ends on the same branch,
    the branch then holds that run's versions, and `hir gc` may remove the earlier ones."""
    trackers: Annotated[tuple[Tracker, ...], ExcludedFromId] = ()
    """What else shows the curves of the run while it goes on: `tensorboard` or `wandb`, which has to be installed. A
    tracker that is missing or fails is one line, and the run goes on."""
    retention: Annotated[RetentionConfig | None, ExcludedFromId] = None
    """Which model weights `hir gc` keeps. Unset: everything is kept."""

    _run_is_a_folder_name = field_validator("run")(folder_name)

    @field_validator("relabel")
    @classmethod
    def _attributes_have_scores(cls, relabel: Section, fields: ValidationInfo) -> Section:
        reward = fields.data.get("reward")  # absent if it is wrong itself
        if isinstance(relabel, AttributesRelabel) and reward is not None and not isinstance(reward, WITH_ATTRIBUTES):
            raise ValueError(
                f"attributes come from a reward that scores several: set reward.type to combined, constraints or "
                f"python, found {reward.type}"
            )
        return relabel

    @model_validator(mode="after")
    def _reward_models_have_a_threshold(self) -> RunConfig:
        if has_reward_model(self.reward) and "threshold" not in self.relabel.model_fields_set:
            raise ValueError(
                "relabel.threshold: required with a reward model, whose scores are seldom exactly 1: set the lowest "
                "score at which an output counts as correct"
            )
        return self

    @model_validator(mode="after")
    def _excluded_outputs_are_learned_from(self) -> RunConfig:
        if isinstance(self.relabel, ExcludeWrongRelabel):
            if self.training.exclusion == 0:
                raise ValueError(
                    "training.exclusion: at 0 nothing is learned from the outputs that relabel.type=exclude_wrong rules"
                    " out: set it above 0, or relabel.type=keep_correct"
                )
            if self.training.contrastive > 0 and self.training.contrast == "batch":
                raise ValueError(
                    "training.contrast: `batch` does not go with relabel.type=exclude_wrong: set training.contrastive=0"
                )
        return self

    @model_validator(mode="after")
    def _a_model_can_write_both_instructions(self) -> RunConfig:
        if isinstance(self.relabel, LearnedRelabel) and not self.instructions.correct:
            raise ValueError(
                "instructions.correct is empty, which relabel.type=learned cannot learn to write: give it a text"
            )
        return self

    @model_validator(mode="after")
    def _vllm_can_sample(self) -> RunConfig:
        problem = ""
        if isinstance(self.model, ScratchModel) and self.model.architecture == "t5":
            problem = "vLLM has no encoder-decoder models"
        elif self.lora is not None:
            problem = "vLLM samples from whole models, and with `lora` a version is an adapter"
        elif self.launch.hostfile is not None:
            problem = "vLLM samples on one machine, and launch.hostfile names others"
        if problem and self.sampling.vllm:
            raise ValueError(f"sampling.engine: {problem}: set it to transformers")
        return self

    @model_validator(mode="after")
    def _flash_attention_has_bf16(self) -> RunConfig:
        if self.model.attention == "flash_attention_2" and not self.is_bf16:
            raise ValueError(
                "model.attention: flash_attention_2 computes in bf16, and the DeepSpeed file sets fp32: set deepspeed "
                "to a file with bf16, or model.attention to sdpa"
            )
        return self

    @model_validator(mode="after")
    def _saved_states_are_in_memory(self) -> RunConfig:
        offload = self.deepspeed_settings().get("zero_optimization", {}).get("offload_optimizer")
        is_on_nvme = isinstance(offload, dict) and offload.get("device") == "nvme"
        for name, training in (("warm_start", self.warm_start), ("training", self.training)):
            if is_on_nvme and training is not None and training.saved_state(self.is_bf16) != "none":
                raise ValueError(
                    f"{name}.optimizer_state: what the DeepSpeed file offloads to NVMe is not saved: set it to none, "
                    "or offload_optimizer.device to cpu"
                )
        return self

    @property
    def run_dir(self) -> Path:
        """The folder that holds every version of this run."""
        return self.runs_dir / self.run

    @property
    def evaluation_tokens(self) -> int:
        """Longest completion in evaluation, in tokens."""
        return self.evaluation.max_new_tokens or self.sampling.max_new_tokens

    @property
    def is_bf16(self) -> bool:
        """Whether models are held in bf16, which changes what they learn, sample and score."""
        return bool(self.deepspeed_settings().get("bf16", {}).get("enabled"))

    @property
    def zero_stage(self) -> int:
        """How far DeepSpeed partitions what training needs over the ranks: not at all, or stage 1, 2 or 3."""
        return int(self.deepspeed_settings().get("zero_optimization", {}).get("stage", 0))

    def deepspeed_settings(self) -> dict[str, Any]:
        """The settings of the DeepSpeed file, as a new dict for each caller."""
        return self.deepspeed.settings
