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
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError
from hir_core.launch.build_locks import clear_build_locks
from hir_core.launch.commands import launcher_command, launcher_env
from hir_core.launch.devices import Place, find_place
from hir_core.launch.hosts import Hosts
from hir_core.launch.job_folder import set_aside
from hir_core.launch.monitor import LaunchMonitor, launcher_log
from hir_core.launch.ports import is_free
from hir_core.launch.processes import start_supervised
from hir_core.launch.rank_process import RESIDENT
from hir_core.launch.waiting_ranks import StartedRanks, WaitingRanks
from hir_core.progress import Progress, ignore
from hir_core.store.plain_files import delete_half_written

logger = logging.getLogger(__name__)


def check_launch(config: LaunchConfig) -> Place:
    """Where a launch will run, after checking what would make it fail; starts nothing.

    Raises:
        ConfigError: more ranks than devices, a missing or malformed hostfile, no program to start other hosts with, or
            a taken port.
    """
    place = find_place(config)
    if place.is_remote:
        program = {"slurm": "srun", "deepspeed": "ssh"}.get(config.launcher)
        if program is not None and shutil.which(program) is None:
            setting = "launch.launcher slurm" if program == "srun" else f"launch.hostfile {config.hostfile}"
            raise ConfigError(f"{setting}: the program {program}, which starts the other hosts, is not on PATH")
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
    hosts: Hosts | None = None,
    on_begun: Callable[[], None] = ignore,
    on_progress: Callable[[Progress], None] = ignore,
    on_step: Callable[[int], None] = ignore,
) -> None:
    """Runs the job in `job_dir` to its end; none of its processes outlives this call by 10 s, or 30 s on a lost host.

    Only ranks that wait for another job do (`launch.resident`). Where the call is interrupted, ranks that train have
    `launch.grace_s` to save a checkpoint; a second interrupt ends them at once.

    Args:
        job_dir: holds `job.json`; on a file system that every host sees.
        module: the module that each rank runs, with `job_dir` as its only argument.
        waiting: the ranks that wait between the jobs of the caller, who ends them; None: they end with their job.
        hosts: those of the caller's run, who ends them.
        on_begun: called once the ranks are started or have begun the job; nothing they do is noticed until it returns.
        on_progress: called with the latest progress report, several times per second at most; at last with `end`.
        on_step: called once for each finished step, in order, as soon as it is seen; also before a failure is raised.

    Raises:
        ConfigError: the launch cannot work here; nothing was started.
        HirError: a rank raised it; same class, same message.
        JobFailed: a rank failed or was killed, a time limit passed (job or collective), or a step has no outputs.
    """
    job_dir = job_dir.resolve()
    ranks = None if waiting is None else waiting.begin(job_dir)
    if ranks is None:
        ranks = _start(job_dir, config, module, hosts, on_progress, can_stay=waiting is not None)
    monitor = LaunchMonitor(job_dir, ranks.command, config, ranks.place, on_progress, on_step)
    wait_on = False
    try:
        on_begun()
        wait_on = monitor.follow(ranks.processes, config.timeout_s, stay=ranks.stay)
    except BaseException as error:
        if not isinstance(error, Exception):  # Ctrl-C, or a request to end that Prefect makes an exception of
            monitor.let_ranks_finish(ranks.processes, config.grace_s)
        raise
    finally:
        if waiting is not None and wait_on:
            waiting.keep(ranks)
        else:
            ranks.stop()
        monitor.close()
        delete_half_written(job_dir)


def _start(
    job_dir: Path,
    config: LaunchConfig,
    module: str,
    hosts: Hosts | None,
    on_progress: Callable[[Progress], None],
    *,
    can_stay: bool,
) -> StartedRanks:
    """Starts ranks that do the job, on this machine or on several hosts.

    Args:
        can_stay: whether they may wait for another job afterwards, if they can.
    """
    place = check_launch(config)
    set_aside(job_dir)
    if place.is_remote:
        return _start_on_hosts(job_dir, config, module, place, hosts, on_progress)
    clear_build_locks()
    stay = can_stay and config.resident
    if config.resident and not stay:
        _tell_that_they_do_not_stay()
    command = launcher_command(job_dir, config, place, module)
    env = launcher_env(config, place) | {RESIDENT: str(int(stay))}
    processes = start_supervised(launcher_log(job_dir), command, env, config.grace_s)
    return StartedRanks(processes, command, place, job_dir, stay)


def _start_on_hosts(
    job_dir: Path,
    config: LaunchConfig,
    module: str,
    place: Place,
    hosts: Hosts | None,
    on_progress: Callable[[Progress], None],
) -> StartedRanks:
    """Starts ranks on several hosts that do the job; build locks of theirs cannot be told from those in use."""
    if hosts is None:
        raise ConfigError(f"launch.launcher {config.launcher}: this launch runs on this machine only")
    if config.resident:
        _tell_that_they_do_not_stay()
    processes = hosts.start(job_dir, module, lambda note: on_progress(Progress("launch", note=note)))
    command = [sys.executable, "-m", module, str(job_dir)]
    return StartedRanks(processes, command, replace(place, ranks=processes.ranks), job_dir, stay=False)


@cache  # once
def _tell_that_they_do_not_stay() -> None:
    logger.warning("launch.resident: ranks on other hosts and under ZeRO-3 do not wait: each job starts its own")
