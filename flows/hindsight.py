"""The loop: sample, score, relabel, train, evaluate, iteration after iteration, as a Prefect flow.

Every task returns versions that lie in the run's store; a version that is there already costs one look-up, so the same
call again continues where the last one ended. The store is the record of truth: Prefect shows and schedules.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import TaskRun
from prefect.runtime import flow_run
from prefect.states import Cancelled, State

from flows.orchestration.artifacts import PrefectArtifacts
from flows.orchestration.cancellation import cancellable
from flows.orchestration.flow_runs import sign
from flows.report.write import redraw
from flows.terminal.run_table import RunTable
from hir_core.config import RunConfig
from hir_core.config.load import parse_config
from hir_core.errors import JobFailed, RunCancelled, RunLocked
from hir_core.stages.identity import Scored
from hir_core.stages.resume import last_completed_iteration
from hir_core.stages.run import Outputs, Run
from hir_core.store.version import VersionRef

WhenBusy = Literal["refuse", "skip", "wait"]
"""What a flow run does while another process writes to its run: it fails, ends as skipped, or waits."""


def flow_run_name() -> str:
    """The run, and how far this flow run takes it."""
    told = flow_run.get_parameters()
    config, further = told["config"], told.get("further")
    run = config if isinstance(config, dict) else config.model_dump()
    return f"{run.get('run')} " + (f"to {run.get('iterations')}" if further is None else f"{further} further")


def was_lost(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a task may end well if it is done again: its launch was lost, and nothing else was wrong."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, JobFailed) and error.is_lost


stage = partial(task, cache_policy=NO_CACHE, persist_result=False)
# Called, never submitted: a signal must reach the thread that waits for the ranks.
launching = partial(stage, retries=1, retry_condition_fn=was_lost)


@flow(name="hindsight", flow_run_name=flow_run_name, persist_result=False, validate_parameters=False)
def hindsight(
    config: RunConfig | dict[str, Any], further: int | None = None, when_busy: WhenBusy = "refuse"
) -> list[Outputs] | State[Any]:
    """Runs every iteration that is asked for and the store does not hold yet; returns what each one left.

    Args:
        config: the run; as plain settings, which are checked here, where Prefect starts it.
        further: so many iterations more than there are; left out: up to the config's `iterations`.
        when_busy: what to do while another process writes to the run.

    Raises:
        HirError: the config is wrong, the run has another writer, or a stage failed.
    """
    sign()
    run = Run(config if isinstance(config, RunConfig) else parse_config(config, "config"))
    prompts = run.check()
    try:
        with cancellable(), run.store.lock(wait=when_busy == "wait"):
            if further is not None:
                there = last_completed_iteration(run, prompts)
                run = Run(run.config.model_copy(update={"iterations": further + (there or 0)}))
            return iterate(run)
    except RunLocked as busy:
        if when_busy != "skip":
            raise
        return Cancelled(name="Skipped", message=str(busy))
    except RunCancelled as told:
        return Cancelled(message=str(told))


def iterate(run: Run) -> list[Outputs]:
    """The loop itself; the run's lock is held."""
    with RunTable(run) as table, PrefectArtifacts(run) as shown:
        run.on_progress = table.show_progress
        prompts = read_prompts(run)
        demonstrations = demonstrate(run, prompts)
        models = [train_iteration(run, prompts, demonstrations)]
        shown.iteration(models[-1], prompts, demonstrations)
        scored: list[Scored] = []
        for _ in range(run.config.iterations):
            previous_model = models[-1]
            rewards = score(run, prompts, previous_model.samples)
            scored.append(
                Scored(previous_model.samples, rewards, instruct(run, prompts, previous_model.samples, rewards))
            )
            table.add_row(previous_model, rewards)
            redraw(run.store, previous_model.model, table.status_line.print_above)
            triples = relabel(run, prompts, scored)
            models.append(train_iteration(run, prompts, triples, previous_model.samples, previous_model.model))
            shown.iteration(models[-1], *scored[-1], triples)
        table.add_row(models[-1])
        run.line.complete()
        redraw(run.store, models[-1].model, table.status_line.print_above)
    return models


@stage(name="prompts", task_run_name="prompts of {run.config.run}")
def read_prompts(run: Run) -> VersionRef:
    """The run's prompts, train and test."""
    return run.prompts()


@stage(name="demonstrations", task_run_name="demonstrations of {run.config.run}")
def demonstrate(run: Run, prompts: VersionRef) -> VersionRef | None:
    """Triples for the warm start, where there is one."""
    return run.demonstrations(prompts)


@launching(name="score", task_run_name="score {samples}")
def score(run: Run, prompts: VersionRef, samples: VersionRef) -> VersionRef:
    """Judges the samples."""
    return run.score(prompts, samples)


@launching(name="instruct", task_run_name="instruct {samples}")
def instruct(run: Run, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> VersionRef | None:
    """Instructions that a model writes for the samples, checked; none where rules relabel."""
    return run.instruct(prompts, samples, rewards)


def relabel_name(parameters: dict[str, Any]) -> str:
    """What this task relabels."""
    return f"relabel {parameters['scored'][-1].samples}"


@stage(name="relabel", task_run_name=relabel_name)
def relabel(run: Run, prompts: VersionRef, scored: Sequence[Scored]) -> VersionRef:
    """Gives every sample the instruction that it is right under."""
    return run.relabel(prompts, scored)


def launch_name(parameters: dict[str, Any]) -> str:
    """The model that this launch makes."""
    run, *parents = (parameters[name] for name in ("run", "prompts", "triples", "previous_model"))
    return f"launch models/{run.identities.model(*parents).id}"


@launching(name="launch", task_run_name=launch_name)
def train_iteration(
    run: Run,
    prompts: VersionRef,
    triples: VersionRef | None,
    samples: VersionRef | None = None,
    previous_model: VersionRef | None = None,
) -> Outputs:
    """One DeepSpeed launch: train, evaluate, sample for the next iteration; one more where the reward is a model."""
    return run.train_iteration(prompts, triples, samples, previous_model)
