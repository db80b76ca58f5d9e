"""The launch of one job over N ranks: checked, started, followed to its end, and without a process left behind.

`launch` starts the launcher below a supervisor (see `supervisor`), passes on the ranks' progress and finished steps
(see `monitor`), and turns every failure into one exception. Where ranks wait for another job (see `waiting_ranks`), it
gives them this one, and starts none. Success means that every step of `job.json` has its done file; the launcher's exit
code alone proves nothing.

Reads in the job's folder: `job.json`, which the caller writes and of which only the list `steps` matters here, and the
ranks' files (see `rank`). Writes there: `logs/launcher.log`. Runs in the driver: no torch, no
deepspeed. Linux only, as are DeepSpeed and the supervisor.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from hir_core import supervisor
from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError
from hir_core.launch.build_locks import clear_build_locks
from hir_core.launch.commands import launcher_command, launcher_env
from hir_core.launch.devices import Place, find_place
from hir_core.launch.job_folder import set_aside
from hir_core.launch.monitor import LaunchMonitor, launcher_log
from hir_core.launch.ports import is_free
from hir_core.launch.rank_process import RESIDENT
from hir_core.launch.waiting_ranks import StartedRanks, WaitingRanks
from hir_core.progress import Progress, ignore
from hir_core.store.plain_files import delete_half_written, open_plain

logger = logging.getLogger(__name__)


def check_launch(config: LaunchConfig) -> Place:
    """Where a launch will run, after checking what would make it fail; starts nothing.

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
        setting = f"launch.hostfile {config.hostfile}" if config.hostfile else "launch.processes"
        slots = f"{devices.slots} {devices.slot_name}"
        raise ConfigError(f"{setting} asks for {place.ranks} ranks, and this machine has {slots}: lower it")
    if config.port is not None and not is_free(config.port):
        raise ConfigError(f"launch.port {config.port} is taken on this machine: choose another, or leave it out")
    return place


def launch(
    job_dir: Path,
    config: LaunchConfig,
    *,
    module: str = "hir_core.worker",
    waiting: WaitingRanks | None = None,
    on_progress: Callable[[Progress], None] = ignore,
    on_step: Callable[[int], None] = ignore,
) -> None:
    """Runs the job in `job_dir` to its end; whatever happens, none of its processes outlives this call by 10 s.

    The one exception are ranks that wait for another job, which is up to `launch.resident`. Where the call is
    interrupted, ranks that train have `launch.grace_s` to save a checkpoint; a second interrupt ends them at once.

    Args:
        job_dir: holds `job.json`; on a file system that every host sees.
        config: launcher, ranks, hosts, port, time limits.
        module: the module that each rank runs, with `job_dir` as its only argument.
        waiting: the ranks that wait between the jobs of the caller, who ends them; None: they end with their job.
        on_progress: called with the latest progress report, several times per second at most; at last with `end`.
        on_step: called once for each finished step, in order, as soon as it is seen; also before a failure is raised.

    Raises:
        ConfigError: the launch cannot work here; nothing was started.
        HirError: a rank raised it; same class, same message.
        JobFailed: a rank failed or was killed; a time limit passed, that of the job or of a collective, where the
            message names the rank that the others waited for; or the launch ended without a step's outputs.
    """
    job_dir = job_dir.resolve()
    ranks = None if waiting is None else waiting.begin(job_dir)
    if ranks is None:
        ranks = _start(job_dir, config, module, stay=waiting is not None and config.resident)
    monitor = LaunchMonitor(job_dir, ranks.command, config, ranks.place, on_progress, on_step)
    wait_on = False
    try:
        wait_on = monitor.follow(ranks.process, config.timeout_s, stay=ranks.stay)
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C, or a request to end that Prefect makes an exception of
            monitor.let_ranks_finish(ranks.process, config.grace_s)
        raise
    finally:
        if waiting is not None and wait_on:
            waiting.keep(ranks)
        else:
            ranks.stop()
        monitor.close()
        delete_half_written(job_dir)


def _start(job_dir: Path, config: LaunchConfig, module: str, *, stay: bool) -> StartedRanks:
    """Starts ranks that do the job.

    Args:
        stay: whether they wait for another job afterwards, if they can.
    """
    place = check_launch(config)
    set_aside(job_dir)
    if not place.is_remote:  # locks that a build on another host holds cannot be told from stale ones
        clear_build_locks()
    stay &= not place.is_remote
    if config.resident and not stay:
        _tell_that_they_do_not_stay()
    command = launcher_command(job_dir, config, place, module)
    env = launcher_env(job_dir, config, place) | {RESIDENT: str(int(stay))}
    return StartedRanks(_start_supervised(job_dir, config, command, env), command, place, job_dir, stay)


@cache  # once
def _tell_that_they_do_not_stay() -> None:
    logger.warning("launch.resident: ranks on other hosts and under ZeRO-3 do not wait: each job starts its own")


def _start_supervised(
    job_dir: Path, config: LaunchConfig, command: Sequence[str], env: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Starts the launcher below a supervisor, which ends it when the pipe to its standard input closes."""
    # By path and isolated: the supervisor must start whatever the user's folder or environment does to imports.
    start = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(job_dir / "stop"), str(config.grace_s)]
    with open_plain(launcher_log(job_dir), "a") as log:
        return subprocess.Popen(
            [*start, *command],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
