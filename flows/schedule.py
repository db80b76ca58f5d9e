"""Scheduled runs for `hir schedule`: a Prefect deployment, run by a process work pool or served by this process.

Every scheduled flow run adds some iterations to the run. It gets the config as plain settings and checks them again, in
the folder in which it was scheduled, so that relative paths and the user's own functions are found as by `hir run`. Two
that overlap cannot write at the same time: the run's lock admits one, and the other is skipped, or waits.
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
    """The parameters of a scheduled flow run; of the config only what the user has set, so that it reads as written."""
    settings = config.model_dump(mode="json", exclude_unset=True)
    return {"config": settings, "further": further, "when_busy": when_busy}


def build_deployment(
    config: RunConfig,
    further: int,
    when_busy: WhenBusy,
    cron: str | None = None,
    interval: timedelta | None = None,
    pool: str | None = None,
) -> RunnerDeployment:
    """The deployment of a run, named as the run; not created on the server yet.

    Raises:
        ConfigError: the cron line is invalid.
    """
    # The command is given because a worker that finds a pyproject.toml here would build an environment from it; -P
    # because a folder `flows` of the user's would be imported instead of this package.
    command = f"{shlex.quote(sys.executable)} -P -m prefect.engine"
    variables = {"working_dir": str(Path.cwd()), "command": command, "env": SETTINGS, "stream_output": True}
    try:
        deployment = hindsight.to_deployment(
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
    assert isinstance(deployment, RunnerDeployment), "a coroutine only inside an event loop"
    return deployment


def create(deployment: RunnerDeployment, pool: str) -> None:
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
    deployment.apply()


def serve_here(deployment: RunnerDeployment) -> None:
    """Starts the scheduled runs from this process, until it is interrupted; then its schedule is paused."""
    serve(deployment, print_starting_message=False)
