"""The driver's view of a running launch: progress, finished steps, ranks that end, and why a launch failed.

`LaunchMonitor.follow` waits until the supervisor ends and raises one exception where a step's outputs are missing.
`RankWatch` notes which rank of this machine was killed first. Reads the files that ranks write (see `rank`) and, after
a time limit, their stacks (see `stack_traces`). `launcher` starts the processes.
"""

from __future__ import annotations

import json
import logging
import math
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from hir_core import errors, supervisor
from hir_core.errors import HirError, JobFailed
from hir_core.launch.rank import done_file, rank_log, read_progress, read_reports, report_file
from hir_core.launch.stack_traces import STACK_SIGNAL, RankPosition, read_positions, stragglers
from hir_core.progress import Progress

logger = logging.getLogger(__name__)

POLL_S = 0.25
FAILURE_GRACE_S = 3.0
"""How long the other ranks may live on after one has failed: they may wait for it in a collective for ever."""
END_GRACE_S = 60.0
"""How long the ranks may take to end once every step is done."""
STOP_S = supervisor.TERM_GRACE_S + supervisor.KILL_GRACE_S + 2.0
TAIL_LINES, TAIL_BYTES = 20, 65536


def launcher_log(job_dir: Path) -> Path:
    """The log of launcher and supervisor."""
    return job_dir / "logs" / "launcher.log"


def stop_launch(process: subprocess.Popen[bytes]) -> None:
    """Closes the pipe to the supervisor, upon which it ends every process of the launch, and waits for it."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # launcher and ranks are set to die with their parent
        process.wait()


class LaunchMonitor:
    """One launch as its driver follows it.

    Args:
        job_dir: the job's folder, with `job.json`.
        command: the launcher's argument list, for messages.
        ranks: how many ranks there are.
        on_progress: called with each new progress report, and with `end` once every step is done.
        on_step: called once for each finished step, in order.
    """

    def __init__(
        self,
        job_dir: Path,
        command: Sequence[str],
        ranks: int,
        on_progress: Callable[[Progress], None],
        on_step: Callable[[int], None],
    ) -> None:
        self._watch = RankWatch(job_dir)
        self._job_dir, self._command, self._ranks = job_dir, command, ranks
        self._on_progress, self._on_step = on_progress, on_step
        self._steps = json.loads((job_dir / "job.json").read_text())["steps"]
        self._steps_done = 0
        self._progress: Progress | None = None
        self._was_stopped = False

    def close(self) -> None:
        """Closes the descriptors with which ranks are watched."""
        self._watch.close()

    def follow(self, process: subprocess.Popen[bytes], timeout_s: float | None) -> None:
        """Calls back for what the ranks report until the supervisor ends; returns if every step is done.

        Args:
            process: the supervisor.

        Raises:
            HirError: a rank raised it.
            JobFailed: the launch failed in another way, or took longer than `timeout_s`.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        stop_at = math.inf
        while process.poll() is None:
            self._watch.wait(POLL_S)
            self._relay()
            now = time.monotonic()
            if now > deadline and not self._is_done:
                raise self._timed_out(f"the launch took longer than launch.timeout_s = {timeout_s:g} s")
            stop_at = min(stop_at, now + self._grace_s())
            if now >= stop_at:
                self._was_stopped = True
                stop_launch(process)
        self._watch.wait(0)
        self._relay()
        code = process.returncode
        if not self._is_done:
            raise self._failure(code)
        if code and not self._was_stopped:  # the outputs are complete; a rank failed while it ended
            log = launcher_log(self._job_dir)
            logger.warning("every step is done, but the launcher ended with %s; log: %s", _status(code), log)

    @property
    def _is_done(self) -> bool:
        return self._steps_done == len(self._steps)

    def _grace_s(self) -> float:
        """Seconds until the launch is stopped: limited once every step is done, or a rank has failed or was killed."""
        if self._is_done:  # the deepspeed launcher alone would stay for seconds
            have_all_ended = len(read_reports(self._job_dir, "ended")) == self._ranks and not self._watch.is_watching
            return 0 if have_all_ended else END_GRACE_S
        return FAILURE_GRACE_S if self._watch.killed or read_reports(self._job_dir, "failed") else math.inf

    def _relay(self) -> None:
        """Calls back for what is new: the latest progress, each finished step once, in order, and then the end."""
        progress = read_progress(self._job_dir)
        if progress is not None and progress != self._progress:
            self._progress = progress
            self._on_progress(progress)
        steps_done = self._steps_done
        while not self._is_done and done_file(self._job_dir, self._steps_done).exists():
            self._steps_done += 1
            self._on_step(self._steps_done - 1)
        if self._steps_done == len(self._steps) > steps_done:
            self._on_progress(Progress("end"))

    def _failure(self, code: int) -> HirError:
        """The first cause of a failed launch: a rank's own error, a rank that was killed, or outputs that are missing.

        Args:
            code: the supervisor's exit code.
        """
        # A killed rank makes others fail, and the driver may be late to see it: what they saw tells the cause.
        reports = read_reports(self._job_dir, "failed")
        failed = min(reports, key=lambda report: (report.has_lost_rank, report.time), default=None)
        killed, killed_at = min(self._watch.killed.items(), key=lambda item: item[1], default=(None, math.inf))
        if failed is not None and (killed is None or (failed.time <= killed_at and not failed.has_lost_rank)):
            raised = getattr(errors, failed.type, None)
            if isinstance(raised, type) and issubclass(raised, HirError) and raised is not JobFailed:
                return raised(failed.message)
            reason = f"rank {failed.rank} raised {failed.type}: {failed.message}"
            return self._job_failed(reason, code=code, rank=failed.rank)
        if killed is not None:
            reason = f"rank {killed} was killed: by somebody, or because memory ran out, which `dmesg` would show"
            return self._job_failed(reason, code=code, rank=killed, is_lost=True)
        started, ended = (len(read_reports(self._job_dir, event)) for event in ("started", "ended"))
        step = self._steps[self._steps_done]
        name = step.get("name") or step.get("type")
        reason = f"the launch ended but step {self._steps_done} ({name}) has no outputs"
        return self._job_failed(reason, code=code, is_lost=started > ended)  # a rank on another host vanished

    def _timed_out(self, reason: str) -> JobFailed:
        """The failure after the time limit, with where the ranks are that the others wait for, else where all are."""
        positions = self._watch.positions()
        suspects = stragglers(positions)
        rank = suspects[0].rank if len(suspects) == 1 else None
        return self._job_failed("; ".join([reason, *map(str, suspects or positions)]), rank=rank)

    def _job_failed(
        self, reason: str, *, code: int | None = None, rank: int | None = None, is_lost: bool = False
    ) -> JobFailed:
        """A failure with the log to read and its last lines: the rank's, or the launcher's where no rank is known."""
        log = launcher_log(self._job_dir) if rank is None else rank_log(self._job_dir, rank)
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            tail = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        status = "" if code is None or self._was_stopped else _status(code)
        return JobFailed(reason, command=self._command, status=status, rank=rank, log=log, tail=tail, is_lost=is_lost)


def _status(code: int) -> str:
    """How the launcher ended, in words, from the supervisor's exit code."""
    if code > 192:  # the deepspeed launcher exits with the negative status of its child
        return f"exit code {code} (signal {256 - code} in a rank)"
    if code > 128:
        return f"signal {code - 128}"
    return f"exit code {code}" if code >= 0 else f"signal {-code} in its supervisor"


class RankWatch:
    """The ranks of this machine, and the order in which they were killed.

    A rank that was killed leaves no report, and its launcher ends the others within moments. Which one ended first can
    only be seen at that moment, so one descriptor per process (pidfd) wakes the driver.
    """

    def __init__(self, job_dir: Path) -> None:
        self.killed: dict[int, float] = {}
        """Ranks that have ended without a report, and when that was seen, in seconds since the epoch."""
        self._job_dir = job_dir
        self._known: set[int] = set()
        self._pidfds: dict[int, int] = {}

    def wait(self, seconds: float) -> None:
        """Sleeps until a rank ends, at most the time given."""
        self._find_ranks()
        poll = select.poll()
        for pidfd in self._pidfds:
            poll.register(pidfd, select.POLLIN)
        for pidfd, _ in poll.poll(seconds * 1000):
            os.close(pidfd)
            self._note_end(self._pidfds.pop(pidfd))

    @property
    def is_watching(self) -> bool:
        """Whether a rank of this machine is known to be alive."""
        return bool(self._pidfds)

    def positions(self) -> list[RankPosition]:
        """Where the ranks of this machine are that are alive, by the stacks that a signal makes them write."""
        for pidfd in self._pidfds:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
        return read_positions([(rank, rank_log(self._job_dir, rank)) for rank in self._pidfds.values()])

    def close(self) -> None:
        """Closes the descriptors."""
        while self._pidfds:
            os.close(self._pidfds.popitem()[0])

    def _find_ranks(self) -> None:
        """Opens a descriptor for every rank of this machine that has started since the last call."""
        for report in read_reports(self._job_dir, "started", self._known):
            self._known.add(report.rank)
            if report.host != socket.gethostname():
                continue
            try:
                self._pidfds[os.pidfd_open(report.pid)] = report.rank
            except ProcessLookupError:
                self._note_end(report.rank)
            except OSError:  # an old kernel or a sandbox: which rank was killed first stays unknown
                logger.debug("cannot watch rank %d", report.rank, exc_info=True)

    def _note_end(self, rank: int) -> None:
        if not any(report_file(self._job_dir, rank, event).exists() for event in ("ended", "failed")):
            self.killed[rank] = time.time()
