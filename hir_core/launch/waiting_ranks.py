"""Ranks that wait between the jobs of a run, so that the next job need not start its own: `launch.resident`.

They are given a job (see `next_job`) and reported to have begun it, or they are ended: ranks of which one has died or
does not answer do no further job. Nothing of a job's results depends on which ranks do it. `launcher` starts the ranks
and follows what they do. Runs in the driver, with which they end.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from hir_core.errors import StoreError
from hir_core.launch.devices import Place
from hir_core.launch.job_folder import set_aside
from hir_core.launch.monitor import launcher_log
from hir_core.launch.next_job import POLL_S, give_next_job
from hir_core.launch.processes import Processes
from hir_core.launch.rank import read_reports
from hir_core.store.files import write_text

logger = logging.getLogger(__name__)

BEGIN_S = 10.0
"""Ranks that have not all begun a job by then are taken for dead."""


@dataclass
class StartedRanks:
    """The ranks of one launch."""

    processes: Processes
    command: list[str]
    place: Place
    job_dir: Path
    """The folder of the latest job."""
    stay: bool
    """Whether they wait for another job after one."""
    jobs: int = 1
    """How many jobs they were given."""

    @property
    def are_alive(self) -> bool:
        """Whether their launch has not ended."""
        return self.processes.poll() is None

    def begin(self, job_dir: Path) -> bool:
        """Gives them another job; whether all of them have begun it.

        Raises:
            StoreError, OSError: the folder of their latest job cannot be written to.
        """
        if not self.are_alive:
            return False
        set_aside(job_dir)
        write_text(launcher_log(job_dir), f"The launcher was started for an earlier job: {self.command[-1]}/logs\n")
        give_next_job(self.job_dir, job_dir, self.jobs)
        self.job_dir, self.jobs = job_dir, self.jobs + 1
        deadline = time.monotonic() + BEGIN_S
        while self.are_alive and time.monotonic() < deadline:
            if len(read_reports(job_dir, "started")) == self.place.ranks:
                return True
            time.sleep(POLL_S)
        return False

    def stop(self) -> None:
        """Ends all of them; returns once they are gone."""
        self.processes.stop()


class WaitingRanks:
    """The ranks of a run that have done a job and wait for the next one; none at first."""

    def __init__(self) -> None:
        self._ranks: StartedRanks | None = None

    @property
    def are_there(self) -> bool:
        """Whether there are any."""
        return self._ranks is not None and self._ranks.are_alive

    def keep(self, ranks: StartedRanks) -> None:
        """Has these ranks wait, which have done a job."""
        self._ranks = ranks

    def begin(self, job_dir: Path) -> StartedRanks | None:
        """The ranks that have waited, at this job now; None where there are none, or they have died meanwhile."""
        ranks, self._ranks = self._ranks, None
        if ranks is None:
            return None
        have_begun = False
        try:
            have_begun = ranks.begin(job_dir)
        except (StoreError, OSError) as error:
            logger.warning("cannot give the ranks that wait another job: %s", error)
        finally:
            if not have_begun:
                ranks.stop()
        if not have_begun:
            logger.warning("the ranks that waited for the next job are gone: others are started")
        return ranks if have_begun else None

    def close(self) -> None:
        """Ends them."""
        ranks, self._ranks = self._ranks, None
        if ranks is not None:
            ranks.stop()
