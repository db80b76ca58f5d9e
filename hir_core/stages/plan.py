"""The plan of one launch: the steps that make those target versions that the store does not hold yet.

Making a plan writes nothing. `write` opens the drafts and writes `job.json` with the files that it names; `commit`
makes the draft of a finished step a version. Leaves what decides a version's id to `identity`, and running the job to
`launch.launcher`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import polars as pl

from hir_core.config import HubModel, LoraConfig, ModelConfig, RunConfig, ScratchModel, TrainingConfig
from hir_core.config.model import rendering
from hir_core.launch.job_spec import Adapter, JobSpec, SampleStep, SaveStep, TrainStep
from hir_core.prompts.mixture import choose_prompts
from hir_core.schemas import as_lines
from hir_core.stages.output_metrics import output_metrics
from hir_core.store.adapters import base_of
from hir_core.store.draft import Draft
from hir_core.store.files import list_parts, write_json, write_table
from hir_core.store.manifest import Identity
from hir_core.store.optimizer_states import delete_earlier_states, optimizer_state
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

COMPLETIONS = ".completions"
"""Folder inside an evaluation's draft for the answers of the evaluate step, which are scored before the commit."""
SAMPLED = ".sampled"
"""Folder inside an evaluation's draft for its sampled answers, of which its manifest has the measurements."""
ANSWERED = ".answered.json"
"""File inside an evaluation's draft with the metrics of the evaluate step: the answers are complete, but not scored."""
TOO_LONG = "too long for the context"
"""Why a prompt has no outputs."""
Metrics = dict[str, Any]


@dataclass(frozen=True)
class Inputs:
    """The versions that a launch starts from."""

    prompts: VersionRef
    triples: VersionRef | None = None
    """What to train on; None where iteration 0 takes the model as it is."""
    samples: VersionRef | None = None
    """What the triples were made from; None for demonstrations."""
    previous_model: VersionRef | None = None
    """The model to train; None in iteration 0."""


@dataclass(frozen=True)
class Targets:
    """The versions that should be there after the launch."""

    model: Identity
    evaluation: Identity
    samples: Identity | None
    """For the next iteration; None after the last one."""

    def __iter__(self) -> Iterator[Identity]:
        yield from (identity for identity in (self.model, self.evaluation, self.samples) if identity is not None)


@dataclass(frozen=True)
class PlannedStep:
    """A step of the job, with the draft that becomes a version when the step is done."""

    step: TrainStep | SaveStep | SampleStep
    draft: Draft | None = None
    """None for training, whose result stays in memory until it is saved, and for sampled answers of an evaluation."""
    rows_in: int | None = None
    """Rows that a sample step is to write."""


@dataclass
class Plan:
    """The steps of one launch, and how the outputs of each are committed.

    Args:
        tokenizer_texts: texts beyond prompts, answers and instructions that a new tokenizer is fitted to.
        prompts: the Prompts table.
        score: commits an evaluation's draft whose answers are complete, given the metrics of the evaluate step.
        part: whether the job makes the model, what is drawn from it, or both; vLLM draws in a job of its own.
    """

    config: RunConfig
    store: Store
    tokenizer_texts: Sequence[str]
    inputs: Inputs
    targets: Targets
    prompts: pl.DataFrame
    score: Callable[[Draft, Metrics], object]
    part: Literal["all", "model", "outputs"] = "all"
    steps: list[PlannedStep] = field(default_factory=list, init=False)
    training_metrics: Metrics = field(default_factory=dict, init=False)

    @property
    def has_model(self) -> bool:
        """Whether the model is made."""
        return self._has(self.targets.model)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to launch for; answers may still have to be scored."""
        targets = self.targets
        return self._is_answered and all(
            identity is None or self._has(identity) for identity in (targets.model, targets.samples)
        )

    def write(self, job_dir: Path) -> None:
        """Opens the drafts, and writes `job.json` and the files that it names."""
        job_dir.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(job_dir / "model", ignore_errors=True)  # left by an earlier attempt, maybe of another model
        model, adapter = self._loaded_model()
        if not self.has_model:
            self._add_training()
        if self.part != "model" and not self._is_answered:
            self._add_evaluation(job_dir)
        if self.part != "model" and self.targets.samples is not None and not self._has(self.targets.samples):
            self._add_sampling(self.targets.samples, job_dir)
        JobSpec(
            model=model,
            adapter=adapter,
            engine=self.config.sampling.vllm if self.part == "outputs" else None,
            texts=self._write_texts(job_dir) if isinstance(model, ScratchModel) else None,
            seed=self.config.seed,
            deepspeed=self.config.deepspeed_settings(),
            steps=tuple(planned.step for planned in self.steps),
        ).write(job_dir)

    def commit(self, number: int, metrics: Metrics) -> None:
        """Makes the outputs of a finished step a version.

        Args:
            number: the step's place in the job, from 0.
            metrics: measured by the step.
        """
        planned = self.steps[number]
        if isinstance(planned.step, TrainStep):
            self.training_metrics = metrics
        elif planned.draft is None:
            pass  # sampled answers, which are committed with the greedy ones
        elif isinstance(planned.step, SaveStep):
            model = planned.draft.commit(metrics={**self.training_metrics, "save": metrics})
            delete_earlier_states(self.store, model)
        elif planned.draft.identity.stage == "evaluations":
            self.score(planned.draft, metrics)
        else:
            measured = output_metrics(list_parts(planned.draft.path), are_distinct=planned.step.distinct)
            rejected = too_long(metrics, planned.step.k)
            planned.draft.commit(rows_in=planned.rows_in, rejected=rejected, metrics={**metrics, **measured})

    def discard_empty_drafts(self) -> None:
        """Removes the drafts that no rank has written to."""
        for planned in self.steps:
            if planned.draft is not None and not any(path.is_file() for path in planned.draft.path.rglob("*")):
                planned.draft.discard()

    # --- steps -------------------------------------------------------------------------------------------------------

    def _add_training(self) -> None:
        inputs, store, draft = self.inputs, self.store, self.store.draft(self.targets.model)
        training: TrainingConfig | None = self.config.training if inputs.previous_model else self.config.warm_start
        if inputs.triples is not None and training is not None:
            state = inputs.previous_model and optimizer_state(store, inputs.previous_model)
            step = TrainStep(
                triples=store.folder(inputs.triples).resolve(),
                samples=None if inputs.samples is None else store.folder(inputs.samples).resolve(),
                prompts=store.folder(inputs.prompts).resolve(),
                training=training,
                optimizer_state=state and state.resolve(),
                iteration=self.targets.model.iteration,
                checkpoints=draft.path.resolve(),
            )
            self.steps.append(PlannedStep(step))
        saved = self.targets.model.config.get("optimizer_state", "none")
        base = None
        if self.config.lora is not None and inputs.previous_model is not None:
            base = f"../{base_of(store, inputs.previous_model).id}"
        self.steps.append(PlannedStep(SaveStep(output=draft.path.resolve(), base=base, optimizer_state=saved), draft))

    def _add_evaluation(self, job_dir: Path) -> None:
        draft, samples = self.store.draft(self.targets.evaluation), self.config.evaluation.samples
        shared = {
            "name": "evaluate",
            "requests": write_requests(job_dir, "evaluate", self.prompts.filter(pl.col("split") == "test")),
            "max_new_tokens": self.config.evaluation_tokens,
        }
        for folder in (COMPLETIONS, *([SAMPLED] if samples else [])):
            (draft.path / folder).mkdir(exist_ok=True)
        if samples is not None:  # first: the evaluation is committed when the greedy answers are there
            output = (draft.path / SAMPLED).resolve()
            step = self._sample_step(draft, output=output, k=samples, **self._drawing(), **shared)
            self.steps.append(PlannedStep(step))
        output, stop = (draft.path / COMPLETIONS).resolve(), self.config.sampling.stop
        step = self._sample_step(draft, output=output, k=1, temperature=0.0, stop=stop, **shared)
        self.steps.append(PlannedStep(step, draft))

    def _add_sampling(self, identity: Identity, job_dir: Path) -> None:
        draft, sampling = self.store.draft(identity), self.config.sampling
        train = self.prompts.filter(pl.col("split") == "train")
        chosen = choose_prompts(train, sampling.prompts, self.config.seed, identity.iteration, sampling.mix)
        step = self._sample_step(
            draft,
            name="sample",
            output=draft.path.resolve(),
            requests=write_requests(job_dir, "sample", chosen),
            k=sampling.k,
            distinct=sampling.distinct,
            max_new_tokens=sampling.max_new_tokens,
            **self._drawing(),
        )
        self.steps.append(PlannedStep(step, draft, rows_in=chosen.height * sampling.k))

    def _drawing(self) -> dict[str, Any]:
        """How samples are drawn, and what ends them."""
        sampling, names = self.config.sampling, ("preset", "temperature", "top_p", "top_k", "min_p", "stop")
        return {name: getattr(sampling, name) for name in names}

    def _sample_step(self, draft: Draft, **settings: Any) -> SampleStep:
        sampling, model = self.config.sampling, self.targets.model
        return SampleStep(
            version=str(draft.ref),
            model=f"{model.stage}/{model.id}",
            instruction=self.config.instructions.correct,
            batch_tokens=sampling.batch_tokens,
            zero3_weights=sampling.zero3_weights,
            write_every_s=sampling.write_every_s,
            iteration=draft.ref.iteration,
            **settings,
        )

    # --- versions and files ------------------------------------------------------------------------------------------

    def _has(self, identity: Identity) -> bool:
        return self.store.find(identity) is not None

    @property
    def _is_answered(self) -> bool:
        """Whether the model has answered the test prompts, though its answers may not be scored yet."""
        evaluation = self.targets.evaluation
        return self._has(evaluation) or (self.store.draft_path(evaluation) / ANSWERED).exists()

    def _loaded_model(self) -> tuple[ModelConfig, Adapter | None]:
        """The model that the job loads: the target where it is there, else the previous one, else the run's own.

        With its adapter, which is a new one where there is none yet to train.
        """
        target = self.store.find(self.targets.model)
        version = target or self.inputs.previous_model
        is_trained = target is None and self.inputs.triples is not None
        new = Adapter(lora=self.config.lora) if is_trained and self.config.lora is not None else None
        if version is None:
            return self.config.model, new
        stored = version_model(self.config, self.store, version)
        return stored.model, stored.adapter or new

    def _write_texts(self, job_dir: Path) -> Path:
        """Writes what a scratch model's tokenizer is fitted to."""
        texts = texts_of_tokenizer(self.config, self.prompts, self.tokenizer_texts)
        return write_table((job_dir / "texts.parquet").resolve(), pl.DataFrame({"text": texts}))


def texts_of_tokenizer(config: RunConfig, prompts: pl.DataFrame, further: Sequence[str]) -> list[str]:
    """What a scratch model's tokenizer is fitted to: train prompts, their answers, the instructions and further texts.

    Args:
        further: those of the relabeler.
    """
    train = prompts.filter(pl.col("split") == "train").sort("prompt_id")
    answers = [reference for references in train["references"].to_list() for reference in references]
    instructions = [config.instructions.correct, config.instructions.wrong, *further]
    turns = [as_lines(history) for history in train["history"].to_list() if history]
    return [*train["query"].to_list(), *answers, *instructions, *turns]


class StoredModel(NamedTuple):
    """A model version as a launch loads it: the whole model, and the adapter where the version is one."""

    model: HubModel
    adapter: Adapter | None = None


def version_model(config: RunConfig, store: Store, ref: VersionRef) -> StoredModel:
    """A model version as a launch loads it; its files are checked against their digests."""
    base, adapter = base_of(store, ref), None
    if base != ref:
        lora = LoraConfig.model_validate(store.manifest(ref).config["lora"])
        adapter = Adapter(lora=lora, folder=store.folder(ref).resolve())
    model = HubModel(source=str(store.folder(base).resolve()), **rendering(config.model)._asdict())
    return StoredModel(model, adapter)


def too_long(metrics: Metrics, outputs: int) -> dict[str, int]:
    """The outputs that a step did not write because their prompts are too long, by that reason.

    Args:
        metrics: measured by the step.
        outputs: of each prompt.
    """
    prompts = metrics.get("too_long", 0)
    return {TOO_LONG: prompts * outputs} if prompts else {}


def set_answers_aside(draft: Draft, metrics: Metrics) -> None:
    """Marks a draft's answers as complete, for a reward that scores after the launch has ended."""
    write_json(draft.path / ANSWERED, metrics)


def write_requests(job_dir: Path, name: str, prompts: pl.DataFrame) -> Path:
    """Writes the prompts that a step of this name completes, and returns the file."""
    path = (job_dir / f"requests-{name}.parquet").resolve()
    return write_table(path, prompts.select("prompt_id", "query", "history").sort("prompt_id"))
