"""The stages `train`, `evaluate` and `sample`: steps of one DeepSpeed launch, which share the weights in memory.

Where vLLM draws, it does so in a second launch, from the model that the first one has saved.
Iteration 0 makes the initial model; iteration i >= 1 trains it on `triples@i`. Writes the versions `models@i`,
`evaluations@i` and `samples@(i+1)`. What the launch has to do is up to `plan`, the launch itself to `launch.launcher`.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hir_core.launch.launcher import check_launch
from hir_core.launch.rank import done_file
from hir_core.stages.plan import Inputs, Plan, Targets, set_answers_aside
from hir_core.stages.run import Run
from hir_core.stages.score import score_after_launch, score_evaluation
from hir_core.store.files import read_json
from hir_core.store.manifest import Identity
from hir_core.store.version import VersionRef


@dataclass(frozen=True)
class Outputs:
    """The model of an iteration, its evaluation, and its samples for the next iteration, where there is one."""

    model: VersionRef
    evaluation: VersionRef
    samples: VersionRef | None


def train_iteration(
    run: Run,
    prompts: VersionRef,
    triples: VersionRef | None,
    samples: VersionRef | None,
    previous_model: VersionRef | None,
) -> Outputs:
    """Trains, evaluates and samples in one launch, with vLLM in two; steps whose version is there are left out.

    A reward that is a model scores in a launch of its own afterwards: there is no room for a second model beside the
    one that still samples.

    Args:
        triples: what to train on; None where iteration 0 takes the model as it is.
        samples: what the triples were made from; None for demonstrations.
        previous_model: the model to train; None in iteration 0.

    Raises:
        ConfigError: the launch cannot work here; nothing was written.
        JobFailed: the launch failed; what its steps had finished is kept.
    """
    targets = _targets(run, prompts, triples, previous_model)
    return _make(run, targets, Inputs(prompts, triples, samples, previous_model))


def draw_from(run: Run, prompts: VersionRef, model: VersionRef, *, with_samples: bool) -> Outputs:
    """Evaluates a model that is there, and samples from it where asked, as the run's config says; trains nothing.

    Args:
        model: of any config of the run.

    Raises:
        ConfigError, JobFailed: as `train_iteration`.
    """
    name, iteration = str(model), model.iteration
    targets = Targets(
        model=run.store.manifest(model).identity,
        evaluation=run.identities.evaluation(prompts, name, iteration),
        samples=run.identities.samples(prompts, name, iteration + 1) if with_samples else None,
    )
    return _make(run, targets, Inputs(prompts))


def _make(run: Run, targets: Targets, inputs: Inputs) -> Outputs:
    """The versions that should be there; makes those that the store does not hold."""
    plan = Plan(
        config=run.config,
        store=run.store,
        tokenizer_texts=run.relabeler.tokenizer_texts(),
        inputs=inputs,
        targets=targets,
        prompts=run.table(inputs.prompts),
        score=set_answers_aside if run.reward.launches else partial(score_evaluation, run),
    )
    if not plan.is_done:
        _launch(run, plan)
    if run.store.find(targets.evaluation) is None:
        score_after_launch(run, plan)
    return Outputs(
        model=_made(run, targets.model),
        evaluation=_made(run, targets.evaluation),
        samples=None if targets.samples is None else _made(run, targets.samples),
    )


def _targets(run: Run, prompts: VersionRef, triples: VersionRef | None, previous_model: VersionRef | None) -> Targets:
    model = run.model_identity(prompts, triples, previous_model)
    name, iteration = f"{model.stage}/{model.id}", model.iteration
    is_last = iteration >= run.config.iterations
    return Targets(
        model=model,
        evaluation=run.identities.evaluation(prompts, name, iteration),
        samples=None if is_last else run.identities.samples(prompts, name, iteration + 1),
    )


def _launch(run: Run, plan: Plan) -> None:
    if not run.waiting_ranks.are_there:  # theirs was checked, and a port that it names is theirs
        check_launch(run.config.launch)  # before anything is written
    for identity in plan.targets:
        run.branch.record(identity)  # before the first of them is committed
    folder = run.config.run_dir / "launches" / f"{plan.targets.model.iteration:04d}"
    if run.config.sampling.vllm is None:
        _run_job(run, plan, folder)
        return
    if not plan.has_model:
        _run_job(run, replace(plan, part="model"), folder)
    if not plan.is_done:
        _run_job(run, replace(plan, part="outputs"), folder.with_name(f"{folder.name}-vllm"))


def _run_job(run: Run, plan: Plan, job_dir: Path) -> None:
    on_device = plan.part != "outputs"
    try:
        plan.write(job_dir)
        run.run_job(job_dir, lambda number: plan.commit(number, read_json(done_file(job_dir, number))), on_device)
    finally:
        plan.discard_empty_drafts()
        shutil.rmtree(job_dir / "model", ignore_errors=True)  # it is a version now, or is made again


def _made(run: Run, identity: Identity) -> VersionRef:
    version = run.find(identity)
    assert version is not None
    return version
