"""Runs one job over N ranks, and leaves nothing behind.

`launch` starts the launcher below a supervisor (see `supervisor`), hands on the ranks' progress and finished steps
while it runs, and turns whatever went wrong into one exception. The launcher's exit code alone proves nothing: success
is that every step of `job.json` has its done file.

Reads in the job's folder: `job.json` (the caller's; only its list `steps` matters here) and the ranks' files (see
`rank`). Writes there: `logs/launcher.log`, and `attempt-N/` for the traces of an earlier launch from the same folder.
Driver side: no torch, no deepspeed. Linux only, as are DeepSpeed and the supervisor. Leaves the work to `job`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from hir_core import supervisor
from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError
from hir_core.launch.build_locks import clear_build_locks
from hir_core.launch.commands import is_free, launcher_command, launcher_env
from hir_core.launch.devices import Place, find_place
from hir_core.launch.monitor import _launcher_log, _Run, _stop
from hir_core.progress import Progress


def check_launch(config: LaunchConfig) -> Place:
    """Finds what would stop a launch, before anything is started, and returns where it will run.

    Raises:
        ConfigError: more ranks than devices, a missing or malformed hostfile, no pdsh for other hosts, a taken port.
    """
    place = find_place(config)
    if place.is_remote:
        if shutil.which("pdsh") is None:
            raise ConfigError(f"launch.hostfile {config.hostfile} names other hosts: install pdsh, which reaches them")
        return place
    devices = place.devices
    if place.ranks > devices.slots:
        asked = f"launch.hostfile {config.hostfile}" if config.hostfile else "launch.processes"
        found = f"{devices.slots} {devices.word}"
        raise ConfigError(f"{asked} asks for {place.ranks} ranks, and this machine has {found}: lower it")
    if config.port is not None and not is_free(config.port):
        raise ConfigError(f"launch.port {config.port} is taken on this machine: choose another, or leave it out")
    return place


def launch(
    job_dir: Path,
    config: LaunchConfig,
    *,
    module: str = "hir_core.worker",
    on_progress: Callable[[Progress], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Runs the job in `job_dir` to its end; whatever happens, none of its processes outlives this call by 10 s.

    Args:
        job_dir: holds `job.json`; on a file system that every host sees.
        config: launcher, ranks, hosts, port, time limit.
        module: what each rank runs, with `job_dir` as its only argument.
        on_progress: called with the latest progress report, a few times per second at most; at last with `end`.
        on_step: called once for each finished step, in order, as soon as it is seen; also before a failure is raised.

    Raises:
        ConfigError: the launch cannot work here; nothing was started.
        HirError: a rank raised it; same class, same message.
        JobFailed: a rank broke or was killed, the time ran out, where the rank that held up the others is named, or the
            launch ended without a step's outputs.
    """
    place, job_dir = check_launch(config), job_dir.resolve()
    _set_aside(job_dir)
    if not place.is_remote:  # a builder on another host would not be seen
        clear_build_locks()
    command = launcher_command(job_dir, config, place, module)
    run = _Run(job_dir, command, place.ranks, on_progress or _ignore, on_step or _ignore)
    process = _start(job_dir, command, launcher_env(job_dir, place))
    try:
        run.follow(process, config.timeout_s)
    finally:
        _stop(process)
        run.watch.close()
        _sweep(job_dir)


def _ignore(_: object) -> None:
    """Stands in for a callback that nobody asked for."""


def _set_aside(job_dir: Path) -> None:
    """Moves the traces of an earlier launch into a folder: a stale done file would pass for success."""
    patterns = ("logs", "rank-*.json", "done-*.json", "progress.json", "stop")
    traces = [path for pattern in patterns for path in job_dir.glob(pattern)]
    if traces:
        attempt = job_dir / f"attempt-{len([*job_dir.glob('attempt-*')]) + 1}"
        attempt.mkdir()
        for path in traces:
            path.rename(attempt / path.name)
    _sweep(job_dir)
    (job_dir / "logs").mkdir()


def _sweep(job_dir: Path) -> None:
    """Deletes what ranks were writing when they were killed."""
    for path in job_dir.glob(".*.json.*"):
        path.unlink(missing_ok=True)


def _start(job_dir: Path, command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    # By path and isolated: the supervisor must start whatever the user's folder or environment does to imports.
    watched = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(job_dir / "stop"), *command]
    with _launcher_log(job_dir).open("ab") as log:
        return subprocess.Popen(
            watched, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
