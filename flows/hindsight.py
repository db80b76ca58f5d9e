"""The loop: sample, score, relabel, train, evaluate, iteration after iteration, as a Prefect flow.

Every task returns versions that lie in the run's store; a version that is there already costs one look-up, so the same
call again continues where the last one ended. The store is the record of truth: Prefect shows and schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.display import Display
from flows.report import keep_drawn
from hir_core.config import RunConfig
from hir_core.identities import Scored
from hir_core.stages import Outputs, Run
from hir_core.versions import StageRef

stage = partial(task, cache_policy=NO_CACHE, persist_result=False)


@flow(name="hindsight", flow_run_name="{config.run}", persist_result=False)
def hindsight(config: RunConfig) -> list[Outputs]:
    """Runs every iteration that the config asks for and the store does not hold yet; returns what each one left."""
    run = Run(config)
    run.check()
    with run.store.lock(), Display(run) as display:
        run.on_progress = display.progress
        prompts = read_prompts(run)
        demonstrations = demonstrate(run, prompts)
        models = [advance(run, prompts, demonstrations)]
        scored: list[Scored] = []
        for _ in range(config.iterations):
            before = models[-1]
            rewards = score(run, prompts, before.samples)
            scored.append(Scored(before.samples, rewards, instruct(run, prompts, before.samples, rewards)))
            display.row(before, rewards)
            keep_drawn(run.store, before.model, display.bar.say)
            triples = relabel(run, prompts, scored)
            models.append(advance(run, prompts, triples, before.samples, before.model))
        display.row(models[-1])
        run.line.complete()
        keep_drawn(run.store, models[-1].model, display.bar.say)
    return models


@stage(name="prompts")
def read_prompts(run: Run) -> StageRef:
    """The run's prompts, train and test."""
    return run.prompts()


@stage(name="demonstrations")
def demonstrate(run: Run, prompts: StageRef) -> StageRef | None:
    """Triples for the warm start, where there is one."""
    return run.demonstrations(prompts)


@stage(name="score")  # called, never submitted, as `advance`
def score(run: Run, prompts: StageRef, samples: StageRef) -> StageRef:
    """Judges the samples."""
    return run.score(prompts, samples)


@stage(name="instruct")  # called, never submitted, as `advance`
def instruct(run: Run, prompts: StageRef, samples: StageRef, rewards: StageRef) -> StageRef | None:
    """Instructions that a model writes for the samples, checked; none where rules relabel."""
    return run.instruct(prompts, samples, rewards)


@stage(name="relabel")
def relabel(run: Run, prompts: StageRef, scored: Sequence[Scored]) -> StageRef:
    """Gives every sample the instruction that it is right under."""
    return run.relabel(prompts, scored)


@stage(name="launch")  # called, never submitted: a signal must reach the thread that waits for the ranks
def advance(
    run: Run,
    prompts: StageRef,
    triples: StageRef | None,
    samples: StageRef | None = None,
    before: StageRef | None = None,
) -> Outputs:
    """One DeepSpeed launch: train, evaluate, sample for the next iteration; one more where the reward is a model."""
    return run.advance(prompts, triples, samples, before)
