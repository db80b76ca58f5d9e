"""A run on a schedule: the flow as a deployment of the user's Prefect server, for a process work pool or served here.

Every scheduled run continues the run by some iterations. It gets the config as plain settings and checks them again,
in the folder in which it was scheduled: paths and functions of the user's are found as `hir run` finds them. Two that
overlap cannot write together: the run's lock lets one in, and the other one ends as skipped, or waits.
"""

from __future__ import annotations

import shlex
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from flows.hindsight import WhenBusy, hindsight
from flows.orchestration.server import SETTINGS
from hir_core.config import RunConfig
from hir_core.errors import ConfigError

PROCESS = "process"


def parameters(config: RunConfig, further: int, when_busy: WhenBusy) -> dict[str, Any]:
    """What a scheduled flow run is given; of the config what was set only, so that it can be read as it was written."""
    settings = config.model_dump(mode="json", exclude_unset=True)
    return {"config": settings, "further": further, "when_busy": when_busy}


def deployment(
    config: RunConfig,
    further: int,
    when_busy: WhenBusy,
    cron: str | None = None,
    interval: timedelta | None = None,
    pool: str | None = None,
) -> RunnerDeployment:
    """The deployment of a run, named as the run; not sent yet.

    Raises:
        ConfigError: the cron line is none.
    """
    # Given, for a worker that finds a pyproject.toml here would build an environment of its own from it; -P, for a
    # folder `flows` of the user's would be taken for this one.
    command = f"{shlex.quote(sys.executable)} -P -m prefect.engine"
    variables = {"working_dir": str(Path.cwd()), "command": command, "env": SETTINGS, "stream_output": True}
    try:
        made = hindsight.to_deployment(
            config.run,
            cron=cron,
            interval=interval,
            parameters=parameters(config, further, when_busy),
            description=f"{config.run_dir}: {further} further iteration(s) each time",
            entrypoint_type=EntrypointType.MODULE_PATH,
            work_pool_name=pool,
            job_variables=variables if pool else None,
        )
    except ValidationError as error:
        raise ConfigError(
            f"--cron {cron}: {error.errors()[0]['msg']}; for example `0 2 * * *`, nightly at two"
        ) from None
    assert isinstance(made, RunnerDeployment), "a coroutine only inside an event loop"
    return made


def send(sent: RunnerDeployment, pool: str) -> None:
    """Creates or replaces the deployment, and the process work pool where there is none.

    Raises:
        ConfigError: a pool of that name runs flows elsewhere.
    """
    with get_client(sync_client=True) as client:
        try:
            kind = client.read_work_pool(pool).type
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            client.create_work_pool(WorkPoolCreate(name=pool, type=PROCESS, base_job_template=template))
            kind = PROCESS
    if kind != PROCESS:
        raise ConfigError(f"--pool {pool}: expected a work pool of type process, found {kind}; name another")
    sent.apply()


def serve_here(served: RunnerDeployment) -> None:
    """Starts the scheduled runs from this process, until it is interrupted; then its schedule is paused."""
    serve(served, print_starting_message=False)
