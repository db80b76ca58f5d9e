"""The flow `hindsight`: sample, score, relabel, train and evaluate, iteration after iteration.

Every task returns versions in the run's store. A version that is there already costs one look-up, so the same call
continues where the last one ended. The store is the record of what was done; Prefect shows and schedules it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

from prefect import Task, flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.orchestration.artifacts import PrefectArtifacts
from flows.orchestration.cancellation import cancellable
from flows.orchestration.flow_runs import sign
from flows.report.write import update_report
from flows.terminal.run_table import RunTable
from hir_core.config import RunConfig
from hir_core.config.load import parse_config
from hir_core.errors import JobFailed, RunCancelled, RunLocked
from hir_core.stages import train
from hir_core.stages.identity import Scored
from hir_core.stages.instruct import write_instructions
from hir_core.stages.prompts import LoadedPrompts, check, make_demonstrations, save_prompts
from hir_core.stages.relabel import relabel_samples
from hir_core.stages.resume import last_completed_iteration
from hir_core.stages.run import Run
from hir_core.stages.score import score_samples
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

P = ParamSpec("P")
R = TypeVar("R")
WhenBusy = Literal["refuse", "skip", "wait"]
"""What a flow run does while another process writes to its run: it fails, ends as skipped, or waits."""


def flow_run_name() -> str:
    """The run's name, and how many iterations this flow run goes to or adds."""
    parameters = flow_run.get_parameters()
    config, further = parameters["config"], parameters.get("further")
    settings = config if isinstance(config, dict) else config.model_dump()
    return f"{settings.get('run')} " + (f"to {settings.get('iterations')}" if further is None else f"{further} further")


def was_lost(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a task is worth a second try: its launch was killed from outside, and no error was found."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, JobFailed) and error.is_lost


def stage(
    name: str, task_run_name: str | Callable[[dict[str, Any]], str], *, launches: bool = False
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A stage as a Prefect task, to be called and never submitted: signals must reach the thread that waits for ranks.

    Args:
        launches: the stage may launch ranks; a launch that was killed from outside is tried once more.
    """
    options: dict[str, Any] = {"name": name, "task_run_name": task_run_name}
    if launches:
        options |= {"retries": 1, "retry_condition_fn": was_lost}
    return task(cache_policy=NO_CACHE, persist_result=False, **options)


@flow(name="hindsight", flow_run_name=flow_run_name, persist_result=False, validate_parameters=False)
def hindsight(
    config: RunConfig | dict[str, Any], further: int | None = None, when_busy: WhenBusy = "refuse"
) -> list[train.Outputs] | State[Any]:
    """Runs every iteration that is asked for and that the store does not hold yet; returns the outputs of each.

    Args:
        config: the run; plain settings, as Prefect passes them to a scheduled run, are checked here.
        further: iterations to add to those that are there; left out: up to the config's `iterations`.
        when_busy: what to do while another process writes to the run.

    Raises:
        HirError: the config is wrong, another process writes to the run, or a stage failed.
    """
    sign()
    config = config if isinstance(config, RunConfig) else parse_config(config, "config")
    table = RunTable(Store(config.run_dir))
    run = Run(config, table.show_progress)
    loaded = check(run)
    try:
        with cancellable(), run.store.lock(wait=when_busy == "wait"):
            if further is not None:
                completed = last_completed_iteration(run, loaded.rows) or 0
                run = Run(config.model_copy(update={"iterations": completed + further}), table.show_progress)
            return iterate(run, loaded, table)
    except RunLocked as error:
        if when_busy != "skip":
            raise
        return Cancelled(name="Skipped", message=str(error))
    except RunCancelled as error:
        return Cancelled(message=str(error))


def iterate(run: Run, loaded: LoadedPrompts, table: RunTable) -> list[train.Outputs]:
    """The loop itself; the caller holds the run's lock."""
    with table, PrefectArtifacts(run) as artifacts:
        prompts = read_prompts(run, loaded)
        demonstrations = demonstrate(run, prompts)
        models = [train_iteration(run, prompts, demonstrations)]
        artifacts.iteration(models[-1], prompts, demonstrations)
        scored: list[Scored] = []
        for _ in range(run.config.iterations):
            previous, samples = models[-1], models[-1].samples
            assert samples is not None, "the last iteration alone has no samples"
            rewards = score(run, prompts, samples)
            scored.append(Scored(samples, rewards, instruct(run, prompts, samples, rewards)))
            table.add_row(previous, rewards)
            update_report(run.store, previous.model, table.status_line.print_above)
            triples = relabel(run, prompts, scored)
            models.append(train_iteration(run, prompts, triples, samples, previous.model))
            artifacts.iteration(models[-1], *scored[-1], triples)
        table.add_row(models[-1])
        run.branch.complete()
        update_report(run.store, models[-1].model, table.status_line.print_above)
    return models


@stage("prompts", "prompts of {run.config.run}")
def read_prompts(run: Run, loaded: LoadedPrompts) -> VersionRef:
    """The run's prompts, train and test."""
    return save_prompts(run, loaded)


@stage("demonstrations", "demonstrations of {run.config.run}")
def demonstrate(run: Run, prompts: VersionRef) -> VersionRef | None:
    """Triples for the warm start, where there is one."""
    return make_demonstrations(run, prompts)


@stage("score", "score {samples}", launches=True)
def score(run: Run, prompts: VersionRef, samples: VersionRef) -> VersionRef:
    """Rewards of the samples."""
    return score_samples(run, prompts, samples)


@stage("instruct", "instruct {samples}", launches=True)
def instruct(run: Run, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> VersionRef | None:
    """Instructions that a model writes for the samples, verified; None where rules relabel."""
    return write_instructions(run, prompts, samples, rewards)


def relabel_name(parameters: dict[str, Any]) -> str:
    """The task's name: the samples that it relabels."""
    return f"relabel {parameters['scored'][-1].samples}"


@stage("relabel", relabel_name)
def relabel(run: Run, prompts: VersionRef, scored: Sequence[Scored]) -> VersionRef:
    """Triples: every sample with the instruction that it is a correct demonstration of."""
    return relabel_samples(run, prompts, scored)


def launch_name(parameters: dict[str, Any]) -> str:
    """The task's name: the model that the launch makes."""
    run, *parents = (parameters[name] for name in ("run", "prompts", "triples", "previous_model"))
    return f"launch models/{run.identities.model(*parents).id}"


@stage("launch", launch_name, launches=True)
def train_iteration(
    run: Run,
    prompts: VersionRef,
    triples: VersionRef | None,
    samples: VersionRef | None = None,
    previous_model: VersionRef | None = None,
) -> train.Outputs:
    """One DeepSpeed launch: train, evaluate, sample for the next iteration; one more where the reward is a model."""
    return train.train_iteration(run, prompts, triples, samples, previous_model)
