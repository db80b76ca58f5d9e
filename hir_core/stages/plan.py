"""What one launch has to do: the steps that make every version that is wanted and not there yet.

Making a plan writes nothing. `write` opens the drafts and writes `job.json` with the files that it names; `commit`
makes a finished step's draft a version. Leaves what decides a version to `identities`, running the job to `launch`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.config import HubModel, LearnedRelabel, RunConfig, ScratchModel, TrainingConfig
from hir_core.launch.job_spec import JobSpec, SampleStep, SaveStep, TrainStep
from hir_core.prompts.mixture import choose_prompts
from hir_core.schemas import as_lines
from hir_core.store.draft import Draft
from hir_core.store.files import write_json, write_table
from hir_core.store.manifest import Identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

COMPLETIONS = ".completions"
"""Where the evaluate step leaves its answers inside the draft: they are scored before anything is committed."""
ANSWERED = ".answered.json"
"""What the evaluate step measured, in a draft whose answers are complete and wait to be scored."""
Facts = dict[str, Any]


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
        yield from (named for named in (self.model, self.evaluation, self.samples) if named is not None)


@dataclass
class Plan:
    """The steps of one launch, and how each one's outputs are committed.

    Args:
        prompts: the table of prompts.
        score: commits a draft whose answers are complete, given what the evaluate step measured.
    """

    config: RunConfig
    store: Store
    inputs: Inputs
    targets: Targets
    prompts: pl.DataFrame
    score: Callable[[Draft, Facts], object]
    steps: list[TrainStep | SaveStep | SampleStep] = field(default_factory=list)
    commits: list[Callable[[Facts], object]] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    training_facts: Facts = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to launch for."""
        targets = self.targets
        return self._is_answered and all(
            named is None or self._has(named) for named in (targets.model, targets.samples)
        )

    def write(self, job_dir: Path) -> None:
        """Opens the drafts, and writes `job.json` and the files that it names."""
        job_dir.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(job_dir / "model", ignore_errors=True)  # of an earlier attempt, maybe of another model
        model = self._loaded()
        if not self._has(self.targets.model):
            self._train()
            self._save()
        if not self._is_answered:
            self._evaluate(job_dir)
        if self.targets.samples is not None and not self._has(self.targets.samples):
            self._sample(self.targets.samples, job_dir)
        JobSpec(
            model=model,
            texts=self._write_texts(job_dir) if isinstance(model, ScratchModel) else None,
            seed=self.config.seed,
            deepspeed=self.config.deepspeed_settings(),
            steps=tuple(self.steps),
        ).write(job_dir)

    def commit(self, number: int, facts: Facts) -> None:
        """Makes the outputs of a finished step a version."""
        self.commits[number](facts)

    def discard_empty_drafts(self) -> None:
        """Removes the drafts that no rank has written to."""
        for draft in self.drafts:
            if not any(path.is_file() for path in draft.path.rglob("*")):
                draft.discard()

    # --- steps -------------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        inputs, store = self.inputs, self.store
        training: TrainingConfig | None = self.config.training if inputs.previous_model else self.config.warm_start
        if inputs.triples is None or training is None:
            return
        drawn = None if inputs.samples is None else store.folder(inputs.samples).resolve()
        folder, iteration = store.folder(inputs.triples).resolve(), self.targets.model.iteration
        asked = store.folder(inputs.prompts).resolve()
        step = TrainStep(triples=folder, samples=drawn, prompts=asked, training=training, iteration=iteration)
        self._add(step, self.training_facts.update)

    def _save(self) -> None:
        draft = self._draft(self.targets.model)
        step = SaveStep(output=draft.path.resolve())
        self._add(step, lambda facts: draft.commit(metrics={**self.training_facts, "save": facts}))

    def _evaluate(self, job_dir: Path) -> None:
        draft = self._draft(self.targets.evaluation)
        answers = draft.path / COMPLETIONS
        answers.mkdir(exist_ok=True)
        step = self._sample_step(
            draft,
            name="evaluate",
            output=answers.resolve(),
            requests=write_requests(job_dir, "evaluate", self.prompts.filter(pl.col("split") == "test")),
            k=1,
            temperature=0.0,
            guidance=self.config.evaluation_guidance,
            max_new_tokens=self.config.evaluation_tokens,
        )
        self._add(step, lambda facts: self.score(draft, facts))

    def _sample(self, named: Identity, job_dir: Path) -> None:
        draft, sampling = self._draft(named), self.config.sampling
        train = self.prompts.filter(pl.col("split") == "train")
        chosen = choose_prompts(train, sampling.prompts, self.config.seed, named.iteration, sampling.mix)
        step = self._sample_step(
            draft,
            name="sample",
            output=draft.path.resolve(),
            requests=write_requests(job_dir, "sample", chosen),
            k=sampling.k,
            temperature=sampling.temperature,
            guidance=sampling.guidance,
            max_new_tokens=sampling.max_new_tokens,
        )
        self._add(step, lambda facts: draft.commit(rows_in=chosen.height * sampling.k, metrics=facts))

    def _sample_step(self, draft: Draft, **drawing: Any) -> SampleStep:
        sampling = self.config.sampling
        return SampleStep(
            version=str(draft.ref),
            model=_name(self.targets.model),
            instruction=self.config.instructions.correct,
            against=self.config.instructions.wrong,
            batch_tokens=sampling.batch_tokens,
            zero3_weights=sampling.zero3_weights,
            write_every_s=sampling.write_every_s,
            iteration=draft.ref.iteration,
            **drawing,
        )

    # --- versions and files ------------------------------------------------------------------------------------------

    def _has(self, named: Identity) -> bool:
        return self.store.find(named) is not None

    @property
    def _is_answered(self) -> bool:
        """Whether the model was evaluated, be it that its answers are not scored yet."""
        named = self.targets.evaluation
        return self._has(named) or (self.store.draft_path(named) / ANSWERED).exists()

    def _loaded(self) -> Any:
        """The model that the job loads: the wanted one where it is there, else the one before, else the run's own."""
        source = self.store.find(self.targets.model) or self.inputs.previous_model
        if source is None:
            return self.config.model
        return version_model(self.config, self.store, source)

    def _draft(self, named: Identity) -> Draft:
        self.drafts.append(self.store.draft(named))
        return self.drafts[-1]

    def _add(self, step: TrainStep | SaveStep | SampleStep, commit: Callable[[Facts], object]) -> None:
        self.steps.append(step)
        self.commits.append(commit)

    def _write_texts(self, job_dir: Path) -> Path:
        """Writes what a scratch model's tokenizer is fitted to: train prompts, their answers, the instructions."""
        train = self.prompts.filter(pl.col("split") == "train").sort("prompt_id")
        answers = [reference for references in train["references"].to_list() for reference in references]
        instructions = [self.config.instructions.correct, self.config.instructions.wrong]
        if isinstance(learned := self.config.relabel, LearnedRelabel) and learned.shown:
            instructions += [learned.instruction, learned.query]
        turns = [as_lines(history) for history in train["history"].to_list() if history]
        path = (job_dir / "texts.parquet").resolve()
        return write_table(path, pl.DataFrame({"text": [*train["query"].to_list(), *answers, *instructions, *turns]}))


def version_model(config: RunConfig, store: Store, ref: VersionRef) -> HubModel:
    """A model version as a launch loads it."""
    return HubModel(source=str(store.folder(ref).resolve()), template=config.model.template)


def set_answers_aside(draft: Draft, facts: Facts) -> None:
    """Notes that a draft's answers are complete, for a reward that has to wait until the launch has ended."""
    write_json(draft.path / ANSWERED, facts)


def _name(named: Identity) -> str:
    return f"{named.stage}/{named.id}"


def write_requests(job_dir: Path, name: str, prompts: pl.DataFrame) -> Path:
    """Writes what a step of this name asks of the model, and returns the file."""
    path = (job_dir / f"requests-{name}.parquet").resolve()
    return write_table(path, prompts.select("prompt_id", "query", "history").sort("prompt_id"))
