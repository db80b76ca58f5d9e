"""The flow `hindsight`: the loop of a run (see `flows.loop`) as a Prefect flow.

`hir run` calls it in its own process, a schedule starts it in another. Prefect shows and schedules runs; the store is
the record of what was done. Called as a plain function, outside of a flow run, it does the same without Prefect.
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled

from flows.loop import Loop, Observer
from flows.orchestration.cancellation import cancellable
from flows.orchestration.flow_runs import sign
from flows.orchestration.observer import PrefectObserver
from flows.terminal.run_table import RunTable
from hir_core.config import RunConfig
from hir_core.config.load import parse_config
from hir_core.errors import RunCancelled, RunLocked
from hir_core.stages.prompts import check
from hir_core.stages.resume import last_completed_iteration
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.store import Store

WhenBusy = Literal["refuse", "skip", "wait"]
"""What a flow run does while another process writes to its run: it fails, ends as skipped, or waits."""


def flow_run_name() -> str:
    """The run's name, and how many iterations this flow run goes to or adds."""
    parameters = flow_run.get_parameters()
    config, further = parameters["config"], parameters.get("further")
    settings = config if isinstance(config, dict) else config.model_dump()
    return f"{settings.get('run')} " + (f"to {settings.get('iterations')}" if further is None else f"{further} further")


@flow(name="hindsight", flow_run_name=flow_run_name, persist_result=False, validate_parameters=False)
def hindsight(
    config: RunConfig | dict[str, Any], further: int | None = None, when_busy: WhenBusy = "refuse"
) -> list[Outputs] | State[Any]:
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
            is_shown = FlowRunContext.get() is not None
            observer = PrefectObserver(run, table.status_line.print_above) if is_shown else Observer()
            return Loop(run, loaded, table, observer).iterate()
    except RunLocked as error:
        if when_busy != "skip":
            raise
        return Cancelled(name="Skipped", message=str(error))
    except RunCancelled as error:
        return Cancelled(message=str(error))
