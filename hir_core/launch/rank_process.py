"""What makes a process a rank: its log, its parent, its end with the launcher, and its reports of each job.

A rank does one job or, where the setting `launch.resident` lets it stay, job after job: in between it waits for the
file `next.json` (see `next_job`), and takes part in nothing. Reads the launcher's `RANK`, `WORLD_SIZE` and
`LOCAL_RANK`, and what `commands` sets. Writes the files that `rank` lists. Imports nothing heavy.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hir_core.errors import HirError
from hir_core.launch.exit_status import Ending, continue_in_child
from hir_core.launch.next_job import wait_for_next_job
from hir_core.launch.rank import Rank, rank_log
from hir_core.launch.stack_traces import RecentStacks, write_stack_on_signal
from hir_core.store.plain_files import open_plain
from hir_core.supervisor import SUPERVISOR, die_with_parent, parent_of

COLLECTIVE_TIMEOUT = "HIR_COLLECTIVE_TIMEOUT_S"
"""The environment variable in which ranks find the setting `launch.collective_timeout_s`."""
NODE_RANK = "HIR_NODE_RANK"
"""The environment variable in which ranks find the number of their host."""
RESIDENT = "HIR_RESIDENT"
"""The environment variable that is 1 where ranks wait for another job after one."""


class RankProcess:
    """This process as a rank: with a log for each job, ended with its launcher, its failure or death reported.

    What follows its creation runs in a child of this process; see `exit_status`. Create it before importing anything
    heavy, so that what the imports print goes to the log too.

    Args:
        job_dir: the folder of the first job.
    """

    def __init__(self, job_dir: Path) -> None:
        defaults = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), (NODE_RANK, 0))
        number, world_size, local_rank, node = (int(os.environ.get(name, default)) for name, default in defaults)
        limit, stays = os.environ.get(COLLECTIVE_TIMEOUT), os.environ.get(RESIDENT) == "1"
        self._rank = Rank(job_dir, number, world_size, local_rank, None if limit is None else float(limit), stays, node)
        self._jobs_done = 0
        self._write_to_logs()
        _die_with_launcher()
        self._reported_in = _SharedPath(job_dir)
        continue_in_child(self._report_death)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a request from outside, as SIGTERM is, and no error
        self._recent_stacks = None if limit is None else RecentStacks(rank_log(job_dir, number), float(limit))

    @contextmanager
    def job(self) -> Iterator[Rank]:
        """A context in which this rank does its job.

        Raises:
            SystemExit: any exception left the block; the traceback is in the rank's log, the exception in its report.
        """
        rank = self._rank
        rank.report("started")
        try:
            yield rank
        except BaseException as error:  # noqa: BLE001 the process boundary: the driver reads the failure from a file
            traceback.print_exception(error)
            rank.report("failed", error)
            raise SystemExit(error.exit_code if isinstance(error, HirError) else 1) from None
        self._jobs_done += 1
        rank.report("ended")

    def wait_for_next_job(self) -> bool:
        """Waits until the driver gives another job, which `job` is then about; False where this rank does not stay."""
        rank = self._rank
        if not rank.stays:
            return False
        self._rank = replace(rank, job_dir=wait_for_next_job(rank.job_dir, self._jobs_done))
        self._reported_in.set(self._rank.job_dir)
        self._write_to_logs()
        if self._recent_stacks is not None:
            self._recent_stacks.log = rank_log(self._rank.job_dir, rank.rank)
        return True

    def _write_to_logs(self) -> None:
        """Has what this process prints, and its stacks, written to the logs of its job."""
        log = rank_log(self._rank.job_dir, self._rank.rank)
        _redirect_output(log)
        write_stack_on_signal(log)

    def _report_death(self, ending: Ending) -> None:
        """Reports in this process's parent, which knows of later jobs by shared memory only, that it has died."""
        replace(self._rank, job_dir=self._reported_in.get()).report_death(ending)


class _SharedPath:
    """A path that this process and those that it forks later read and change alike."""

    def __init__(self, path: Path) -> None:
        self._memory = mmap.mmap(-1, os.pathconf("/", "PC_PATH_MAX"))
        self.set(path)

    def set(self, path: Path) -> None:
        self._memory[:] = os.fsencode(path).ljust(len(self._memory), b"\0")

    def get(self) -> Path:
        return Path(os.fsdecode(self._memory[:].rstrip(b"\0")))


def _redirect_output(log: Path) -> None:
    """Sends everything that this process prints, C++ code included, to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_plain(log, "a") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()  # a segmentation fault leaves its stack in the log


def _die_with_launcher() -> None:
    """Has the kernel kill this process when its launcher ends; kills it now where the supervisor is gone already."""
    die_with_parent()
    supervisor = os.environ.get(SUPERVISOR)
    if supervisor is None:  # started by hand
        return
    ancestor = os.getppid()
    while ancestor not in (0, int(supervisor)):
        ancestor = parent_of(ancestor)
    if ancestor == 0:  # launcher and supervisor were killed while this process started
        os._exit(128 + signal.SIGKILL)
