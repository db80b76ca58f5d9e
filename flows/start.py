"""A run from its config to its end, for `hir run` and for Python, and what is checked before it starts.

Prefect is imported only after the input was checked: the import takes seconds, and an error in a config should not wait
for it. The loop itself is in `flows.loop`, its flow in `flows.hindsight`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hir_core.config import RunConfig
    from hir_core.stages.prompts import LoadedPrompts
    from hir_core.stages.run import Run
    from hir_core.stages.train import Outputs

CONFIGS = Path(__file__).resolve().parent / "configs"
"""The folder of the shipped recipes."""


def run_to_end(config: RunConfig) -> list[Outputs]:
    """Runs every iteration that a config asks for and the store does not hold; returns the outputs of each.

    Prints what `hir run` prints. Reports to Prefect, unless there is nothing to do.

    Raises:
        HirError: the config cannot be run, another process writes to the run, or a stage failed.
    """
    return started(config)()


def started(config: RunConfig) -> Callable[[], list[Outputs]]:
    """The rest of `run_to_end`, once the config was checked and everything is imported."""
    from flows.orchestration import server

    if lacks_an_evaluation(config):
        server.prepare()
    run, loaded = checked_run(config)
    from flows.loop import Loop
    from flows.terminal.run_table import RunTable, headline

    print(headline(config), flush=True)
    if is_complete(run, loaded):

        def look_up() -> list[Outputs]:
            with run.store.lock():
                return Loop(run, loaded, RunTable(run.store)).iterate()

        return look_up
    connect()
    from flows.hindsight import hindsight

    return partial(server.call, hindsight, config)


def lacks_an_evaluation(config: RunConfig) -> bool:
    """Whether a run has work to do for certain: it has no evaluation of the last iteration, by any config."""
    from hir_core.store.store import Store

    return all(ref.iteration < config.iterations for ref in Store(config.run_dir).versions("evaluations"))


def checked_run(config: RunConfig) -> tuple[Run, LoadedPrompts]:
    """The run and its prompts, after checking that it can start; writes nothing.

    Raises:
        HirError: the prompts, the model's folder, the reward or the launch settings are wrong.
        RunLocked: another process writes to the run.
    """
    from flows.terminal.progress_bar import StatusLine

    with StatusLine() as status_line:
        status_line.update("reading the prompts")
        return open_checked(config)


def open_checked(config: RunConfig) -> tuple[Run, LoadedPrompts]:
    """The run and its prompts, as `checked_run`, without a line that says what is being done."""
    from hir_core.stages.prompts import check as check_run
    from hir_core.stages.run import Run

    run = Run(config)
    loaded = check_run(run)
    if config.run_dir.exists():
        with run.store.lock():
            pass  # the flow takes it later; a second process should not have to wait for Prefect first
    return run, loaded


def is_complete(run: Run, loaded: LoadedPrompts) -> bool:
    """Whether the store holds everything that a run is to make."""
    from hir_core.stages.resume import completed_iterations

    return len(completed_iterations(run, loaded.rows)) > run.config.iterations


def connect() -> None:
    """Connects to Prefect, which takes seconds; a run goes on without it where it does not answer."""
    from flows.orchestration import server
    from flows.terminal.progress_bar import StatusLine

    with StatusLine() as status_line:
        status_line.update("starting Prefect")
        server.connect(status_line.print_above)
