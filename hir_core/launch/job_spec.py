"""The content of `job.json` and `done-<n>.json`: what a launch shall do, and the result of each of its steps.

A job loads one model and does its steps in order, on the weights in memory. The driver writes `job.json`; `worker`
reads it and writes a done file with the result of each finished step, whose numbers the driver puts into manifests.
The steps' outputs go to draft folders that the driver commits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from pydantic import Field

from hir_core.config import LoraConfig, ModelConfig, Section, TrainingConfig, VllmEngine, WarmStartConfig
from hir_core.store.files import read_json, write_json

# --- steps -----------------------------------------------------------------------------------------------------------


class TrainStep(Section):
    """Trains the model on a table of triples."""

    type: Literal["train"] = "train"
    triples: Path
    """Folder of a Triples table."""
    samples: Path | None
    """Folder of the Samples that the triples come from, to test the weights against; None for demonstrations."""
    prompts: Path
    """Folder of the Prompts that the samples answer."""
    training: WarmStartConfig | TrainingConfig
    optimizer_state: Path | None = None
    """Folder of the model that is trained, if the state of its optimizer lies there, to continue from."""
    iteration: int
    checkpoints: Path | None = None
    """Draft folder of the model, in which the checkpoints of its training lie; None: there are none."""


class SaveStep(Section):
    """Writes the model as a plain `transformers` folder, or its adapter as a folder of `peft`."""

    type: Literal["save"] = "save"
    output: Path
    base: str | None = None
    """Where the model without its adapter is, seen from `output`: then only the adapter is written. None: the model is
    written whole, with its adapter merged into it, if it has one."""
    optimizer_state: Literal["none", "masters", "all"] = "none"
    """What of the optimizer's state is written beside a model that was trained, as in the section `training`."""


class SampleStep(Section):
    """Completes prompts and writes Samples; a prompt that leaves no room for an output gets none."""

    type: Literal["sample"] = "sample"
    name: Literal["sample", "evaluate", "write"]
    """The step's name in the progress display."""
    requests: Path
    """Parquet file of `prompt_id`, `query` and `history`: the prompts to complete."""
    output: Path
    """Draft folder; prompts whose samples are already in a finished part are left out."""
    version: str
    """The version that these samples will be; the rows' ids are derived from it."""
    model: str
    """Version of the model that samples."""
    instruction: str
    k: int
    """Samples per prompt."""
    distinct: bool = False
    """Whether no sample of a prompt may repeat an earlier one."""
    preset: Literal["model"] | None = None
    """Whether what the next four leave unset is taken from the model's own settings."""
    temperature: float | None
    """0: greedy."""
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    """Texts that end an output."""
    max_new_tokens: int
    batch_tokens: int | Literal["auto"]
    zero3_weights: Literal["auto", "gather", "stream"]
    write_every_s: float
    iteration: int
    keeps_thinking: bool = True
    """Whether the text of an output holds the model's thinking."""


class LogprobStep(Section):
    """Computes the log-probability of outputs under instructions that were written for them, and writes Logprobs."""

    type: Literal["logprobs"] = "logprobs"
    requests: Path
    """Parquet file of `sample_id`, `query`, `history` and `completion_ids`: the outputs to score."""
    written: Path
    """Folder of Samples whose completions are the instructions; `prompt_id` names the output's sample."""
    output: Path
    """Draft folder; outputs that are already in a finished part are left out."""
    batch_tokens: int
    logits_chunk: int
    write_every_s: float


class ScoreStep(Section):
    """Scores texts with the job's model, which is a sequence classifier, and writes Scores."""

    type: Literal["score"] = "score"
    requests: Path
    """Parquet file of `key`, `query` and `completion`: the texts to score."""
    output: Path
    """Folder of Scores; texts that are already in a finished part are left out."""
    template: str | None
    label: int
    activation: Literal["none", "sigmoid", "softmax"]
    batch_tokens: int
    write_every_s: float


Step = TrainStep | SaveStep | SampleStep | LogprobStep | ScoreStep


class Adapter(Section):
    """An adapter to add to a model; its matrices alone are then trained."""

    lora: LoraConfig
    folder: Path | None = None
    """Folder of a saved one; None: a new one."""


class JobSpec(Section):
    """One launch."""

    model: ModelConfig
    """The model to load: the run's own, the folder of a version, or a classifier."""
    adapter: Adapter | None = None
    engine: VllmEngine | None = None
    """vLLM, if it draws what the steps sample, from a model that is a folder; None: the ranks load the model."""
    texts: Path | None = None
    """Parquet file with a column `text`, on which a scratch model's tokenizer is fitted."""
    seed: int
    deepspeed: dict[str, Any]
    """Content of the DeepSpeed file."""
    steps: tuple[Step, ...] = Field(min_length=1)

    def write(self, job_dir: Path) -> None:
        """Writes `job.json`."""
        write_json(job_dir / "job.json", self.model_dump(mode="json"))

    @classmethod
    def read(cls, job_dir: Path) -> JobSpec:
        """Reads `job.json`."""
        return cls.model_validate(read_json(job_dir / "job.json"))


# --- results ---------------------------------------------------------------------------------------------------------


class TrainResult(TypedDict):
    """Result of a TrainStep."""

    loss: float
    """This and the next four: means over the optimizer steps of the last epoch."""
    supervised: float
    contrastive: float
    entropy: float
    exclusion: float
    grad_norm: float
    steps: int
    """Optimizer steps."""
    target_tokens: int
    tokens: int
    seconds: float
    tokens_per_s: float
    too_long: NotRequired[int]
    """Triples that were left out, because they are longer than the model's context."""
    logprob_gap: NotRequired[float]
    """Gap between the model's and the sampler's log-probabilities, in nats per token; none for demonstrations."""


class SaveResult(TypedDict):
    """Result of a SaveStep."""

    weight_bytes: int
    """Of what was written, the whole model or its adapter."""
    optimizer_state_bytes: int
    parameters: int
    """Of the model without its adapter."""
    made_with: dict[str, Any]
    """Versions of the software, the kind of device, and the number of ranks."""


class RowsResult(TypedDict):
    """Result of a LogprobStep or a ScoreStep: what all ranks did together."""

    rows: int
    tokens: int
    seconds: float
    tokens_per_s: float | None
    """None where no token was read or written."""


class SampleResult(RowsResult):
    """Result of a SampleStep."""

    too_long: int
    """Prompts that were left out, because they leave no room for an output in the model's context."""
    weights: str
    """How the weights were held while sampling, and why."""
    preset: dict[str, float] | None
    """The settings for drawing tokens that were taken from the model; None without a preset."""
    smaller_batches: str | None
    """To how many rows batches were halved because memory ran out, and what to set; None where it did not."""
