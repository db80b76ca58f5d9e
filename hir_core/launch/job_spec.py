"""What the driver asks of a launch: the content of `job.json`, the one thing that both sides read.

A job loads one model and does its steps in order on the weights in memory. Written by `launch`'s caller, read by
`job`; the steps' outputs go to draft folders that the driver commits.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hir_core.config import ModelConfig, Section, TrainingConfig, WarmStartConfig
from hir_core.store.files import read_json, write_json


class TrainStep(Section):
    """Trains the model on a table of triples."""

    type: Literal["train"] = "train"
    triples: Path
    """Folder of a Triples table."""
    samples: Path | None
    """Folder of the Samples that the triples come from, to test the weights against; None for demonstrations."""
    prompts: Path
    """Folder of the Prompts that they answer."""
    training: WarmStartConfig | TrainingConfig
    iteration: int


class SaveStep(Section):
    """Writes the model as a plain `transformers` folder."""

    type: Literal["save"] = "save"
    output: Path


class SampleStep(Section):
    """Completes prompts and writes Samples."""

    type: Literal["sample"] = "sample"
    name: Literal["sample", "evaluate", "write"]
    """What a person sees while it runs."""
    requests: Path
    """Parquet file of `prompt_id`, `query` and `history`, the prompts to complete."""
    output: Path
    """Draft folder; prompts that finished parts in it already hold are left out."""
    version: str
    """The version that these samples will be; names the rows' ids."""
    model: str
    """Version of the model that writes."""
    instruction: str
    against: str
    """The instruction that guidance pushes away from."""
    guidance: float
    k: int
    temperature: float
    max_new_tokens: int
    batch_tokens: int
    zero3_weights: Literal["auto", "gather", "stream"]
    write_every_s: float
    iteration: int
    too_long: Literal["refuse", "leave out"] = "refuse"
    """What becomes of a prompt that leaves no room for an output: it ends the job, or nothing is written for it."""


class LogprobStep(Section):
    """Weighs outputs under instructions that were written for them, and writes Weights."""

    type: Literal["logprobs"] = "logprobs"
    requests: Path
    """Parquet file of `sample_id`, `query` and `completion_ids`, the outputs to score."""
    written: Path
    """Folder of Samples: what was written for the sample that `prompt_id` names."""
    output: Path
    """Draft folder; outputs that finished parts in it already hold are left out."""
    batch_tokens: int
    logits_chunk: int
    write_every_s: float


class ScoreStep(Section):
    """Scores texts with the job's model, which is a classifier, and writes Scores."""

    type: Literal["score"] = "score"
    requests: Path
    """Parquet file of `key`, `query` and `completion`, the texts to score."""
    output: Path
    """Folder of Scores; texts that finished parts in it already hold are left out."""
    template: str | None
    label: int
    activation: Literal["none", "sigmoid", "softmax"]
    batch_tokens: int
    write_every_s: float


Step = TrainStep | SaveStep | SampleStep | LogprobStep | ScoreStep


class JobSpec(Section):
    """One launch."""

    model: ModelConfig
    """Where the weights come from: the run's own model, the folder of a version, or a classifier."""
    texts: Path | None = None
    """Parquet file with a column `text`, which a scratch model's tokenizer is fitted to."""
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
