"""The ranks of this machine, watched by the driver: it is woken at once when one of them ends.

Reads the reports of ranks that have begun the job (see `rank`), and sends signals. What an end means is left to
`failures`, and what to do about it to `monitor`.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hir_core.launch.rank import RankReport, has_reported_end, rank_log, read_reports
from hir_core.launch.stack_traces import STACK_SIGNAL, RankPosition, read_positions

logger = logging.getLogger(__name__)


class RankWatch:
    """The ranks of this machine: one descriptor per process (pidfd) wakes the driver when a rank ends.

    Args:
        job_dir: the job's folder.
        is_active: whether it watches any; where there are several hosts, each of them watches its own.
    """

    def __init__(self, job_dir: Path, *, is_active: bool = True) -> None:
        self._job_dir, self._is_active = job_dir, is_active
        self._known: set[int] = set()
        self._alive: dict[int, RankReport] = {}
        self._gone: list[RankReport] = []
        self._asked: set[int] = set()
        self._poll = select.epoll()  # lists what has happened in the order in which it did

    def wait(self, seconds: float) -> None:
        """Sleeps until a rank ends, at most the time given."""
        self._find_ranks()
        for pidfd, _ in self._poll.poll(seconds):
            self._note_end(self._alive.pop(pidfd))
            os.close(pidfd)

    @property
    def is_watching(self) -> bool:
        """Whether a rank of this machine is known to be alive."""
        return bool(self._alive)

    def ask_to_end(self) -> None:
        """Asks the ranks of this machine to end, each of them once."""
        for pidfd, report in self._alive.items():
            if report.rank not in self._asked:
                self._asked.add(report.rank)
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGTERM)

    def vanished(self) -> list[RankReport]:
        """The ranks that have ended without a report of it, as when they are killed together with their parent."""
        return [report for report in self._gone if not has_reported_end(self._job_dir, report.rank)]

    def positions(self) -> list[RankPosition]:
        """Where the ranks of this machine are that are alive, by the stacks that a signal makes them write."""
        for pidfd in self._alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
        return read_positions([(report.rank, rank_log(self._job_dir, report.rank)) for report in self._alive.values()])

    def close(self) -> None:
        """Closes the descriptors."""
        while self._alive:
            os.close(self._alive.popitem()[0])
        self._poll.close()

    def _find_ranks(self) -> None:
        """Opens a descriptor for every rank of this machine that has started since the last call."""
        if not self._is_active:
            return
        for report in read_reports(self._job_dir, "started", self._known):
            self._known.add(report.rank)
            try:
                pidfd = os.pidfd_open(report.pid)
            except ProcessLookupError:
                self._note_end(report)
            except OSError:  # an old kernel or a sandbox: the end of this rank is seen when its launcher ends
                logger.debug("cannot watch rank %d", report.rank, exc_info=True)
            else:
                self._alive[pidfd] = report
                self._poll.register(pidfd, select.EPOLLIN)

    def _note_end(self, started: RankReport) -> None:
        self._gone.append(replace(started, time=time.time(), status=-signal.SIGKILL))
