"""The driver's view of a running launch: progress, finished steps, ranks that end, and why a launch failed.

`LaunchMonitor.follow` waits until the supervisor ends, or until ranks that stay have ended the job, and raises one
exception where a step's outputs are missing.
Reads the files that ranks write (see `rank`) and, after a time limit, their stacks (see `stack_traces`). That a rank of
this machine has ended is noticed by `rank_watch`, what its failure means is left to `failures`; `launcher` starts the
processes.
"""

from __future__ import annotations

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from hir_core import errors
from hir_core.config import LaunchConfig
from hir_core.errors import HirError, JobFailed
from hir_core.launch.devices import Place
from hir_core.launch.failures import explain, first_cause, has_timed_out, read_tail, was_asked
from hir_core.launch.memory_advice import MemoryAdvice
from hir_core.launch.processes import Processes
from hir_core.launch.rank import (
    RankReport,
    done_file,
    rank_log,
    read_progress,
    read_reports,
)
from hir_core.launch.rank_watch import RankWatch
from hir_core.launch.stack_traces import RankPosition, recent_positions, stragglers
from hir_core.progress import Progress

logger = logging.getLogger(__name__)

POLL_S = 0.05
FAILURE_GRACE_S = 3.0
"""How long the other ranks may live on after one has failed: they may wait for it in a collective for ever."""
END_GRACE_S = 60.0
"""How long the ranks may take to end once every step is done."""
LATE_S = 30.0
"""How long the files of ranks on other hosts may take to be seen here, through the caches of a network file system."""
TELL_AFTER_S = 1.0
"""An interrupt that is obeyed within this time needs no words."""
TAIL_LINES = 20


def launcher_log(job_dir: Path) -> Path:
    """The log of launcher and supervisor."""
    return job_dir / "logs" / "launcher.log"


class LaunchMonitor:
    """One launch as its driver follows it.

    Args:
        job_dir: the job's folder, with `job.json`.
        command: the launcher's argument list, for messages.
        config: with the time limit of collectives.
        place: where the ranks run.
        on_progress: called with each new progress report, and with `end` once every step is done.
        on_step: called once for each finished step, in order.
    """

    def __init__(
        self,
        job_dir: Path,
        command: Sequence[str],
        config: LaunchConfig,
        place: Place,
        on_progress: Callable[[Progress], None],
        on_step: Callable[[int], None],
    ) -> None:
        self._watch = RankWatch(job_dir, is_active=not place.is_remote)
        self._processes: Processes | None = None
        self._job_dir, self._command, self._place = job_dir, command, place
        self._collective_timeout_s = config.collective_timeout_s
        self._on_progress, self._on_step = on_progress, on_step
        self._job = json.loads((job_dir / "job.json").read_text())
        self._steps = self._job["steps"]
        self._steps_done = 0
        self._progress: Progress | None = None
        self._was_stopped = False

    def close(self) -> None:
        """Closes the descriptors with which ranks are watched."""
        self._watch.close()

    def follow(self, processes: Processes, timeout_s: float | None, *, stay: bool = False) -> bool:
        """Calls back for what the ranks report until their processes end; returns if every step is done.

        Args:
            processes: those of the launch.
            stay: whether the ranks wait for another job after this one, which is then its end.

        Returns:
            Whether they do wait.

        Raises:
            HirError: a rank raised it.
            JobFailed: the launch failed in another way, or took longer than `timeout_s`.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        stop_at = math.inf
        self._processes = processes
        while processes.poll() is None:
            self._watch.wait(POLL_S)
            self._relay()
            if stay and self._is_done and self._have_all_ended:
                return True
            now = time.monotonic()
            if now > deadline and not self._is_done:
                raise self._timed_out(f"the launch took longer than launch.timeout_s = {timeout_s:g} s")
            stop_at = min(stop_at, now + self._grace_s())
            if now >= stop_at:
                self._was_stopped = True
                processes.stop()
        self._watch.wait(0)
        code = processes.poll() or 0
        self._wait_for_late_files(code)
        self._relay()
        if not self._is_done:
            raise self._failure(code)
        if code and not self._was_stopped:  # the outputs are complete; a rank failed while it ended
            log = launcher_log(self._job_dir)
            logger.warning("every step is done, but the launcher ended with %s; log: %s", _status(code), log)
        return False

    def let_ranks_finish(self, processes: Processes, grace_s: float) -> None:
        """Asks the ranks to end, and waits at most `grace_s` seconds for what those that train have to save.

        Args:
            processes: those of the launch.
        """
        if self._place.is_remote:
            processes.ask_to_end()
        begun, is_told = time.monotonic(), False
        while processes.poll() is None and time.monotonic() < begun + grace_s and not self._cannot_finish:
            self._watch.ask_to_end()
            self._watch.wait(POLL_S)
            if not (self._watch.is_watching or self._place.is_remote):
                break
            if self._progress is not None and not is_told and time.monotonic() > begun + TELL_AFTER_S:
                note = f"has {grace_s:g} s to save its work; a second Ctrl-C ends it at once"
                self._on_progress(replace(self._progress, note=note))
                is_told = True
        self._relay()

    def _wait_for_late_files(self, code: int) -> None:
        """Waits until this machine sees what ranks on other hosts wrote before they ended: their outputs or failures.

        Args:
            code: how they ended.
        """
        deadline = time.monotonic() + (LATE_S if self._place.is_remote else 0)
        while time.monotonic() < deadline and not self._is_done:
            self._relay()
            if self._was_stopped or self._has_lost_host or (code and self._failures()):
                return
            time.sleep(POLL_S)

    @property
    def _has_lost_host(self) -> bool:
        return self._processes is not None and self._processes.loss() is not None

    @property
    def _cannot_finish(self) -> bool:
        """Whether a rank is lost, for which the others would wait."""
        cause = first_cause(self._failures())
        return cause is not None and not was_asked(cause)

    @property
    def _is_done(self) -> bool:
        return self._steps_done == len(self._steps)

    def _grace_s(self) -> float:
        """Seconds until the launch is stopped: limited once every step is done, or a rank has failed or died."""
        if self._is_done:  # the deepspeed launcher alone would stay for seconds
            return 0 if self._have_all_ended and not self._watch.is_watching else END_GRACE_S
        has_failed = self._processes is not None and self._processes.has_failed()
        return FAILURE_GRACE_S if has_failed or self._failures() or self._watch.vanished() else math.inf

    @property
    def _have_all_ended(self) -> bool:
        """Whether every rank has reported that its share of the job is done."""
        return len(read_reports(self._job_dir, "ended")) == self._place.ranks

    def _failures(self) -> list[RankReport]:
        """The reports of ranks that failed or died, with times of this machine's clock."""
        reports = [*read_reports(self._job_dir, "failed"), *read_reports(self._job_dir, "died")]
        if self._processes is None:
            return reports
        return [replace(one, time=one.time - self._processes.clock_lead_s(one.node)) for one in reports]

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
        """The first cause of a failed launch: what happened to a rank, or to the launcher, or outputs that are missing.

        Args:
            code: the supervisor's exit code.
        """
        cause = first_cause(self._failures())
        loss = None if self._processes is None else self._processes.loss()
        if loss is not None and (cause is None or was_asked(cause) or cause.node != loss.node):
            return self._job_failed(loss.reason, is_lost=True)
        if cause is None or was_asked(cause):
            killer = "" if self._was_stopped else _signal_from_outside(code)
            if killer:
                return self._job_failed(f"the launcher was ended from outside by {killer}", code=code, is_lost=True)
            cause = first_cause(self._watch.vanished()) or cause
        if cause is None:
            started, ended = (len(read_reports(self._job_dir, event)) for event in ("started", "ended"))
            reason = f"the launch ended but step {self._steps_done} ({self._step_name}) has no outputs"
            return self._job_failed(reason, code=code, is_lost=started > ended)  # a rank on another host vanished
        raised = getattr(errors, cause.type, None)
        if isinstance(raised, type) and issubclass(raised, HirError) and raised is not JobFailed:
            return raised(*cause.message.split("\n"))
        log = rank_log(self._job_dir, cause.rank)
        if has_timed_out(cause, log):
            return self._collective_timed_out()
        step = self._steps[self._steps_done]
        advice = MemoryAdvice(self._job, step, self._place.ranks, bool(self._place.devices.gpus))
        explanation = explain(cause, log, advice)
        return self._job_failed(explanation.reason, code=code, rank=cause.rank, is_lost=explanation.is_lost)

    @property
    def _step_name(self) -> str:
        step = self._steps[self._steps_done]
        return str(step.get("name") or step.get("type"))

    def _collective_timed_out(self) -> JobFailed:
        """The failure after ranks have waited too long in a collective: those that gave up were waiting as well."""
        limit_s = self._collective_timeout_s
        logs = {rank: rank_log(self._job_dir, rank) for rank in range(self._place.ranks)}
        gave_up = {failure.rank for failure in self._failures() if has_timed_out(failure, logs[failure.rank])}
        positions = [
            replace(position, waits=position.waits or position.rank in gave_up)
            for position in recent_positions(logs, limit_s)
        ]
        step = f"step {self._steps_done} ({self._step_name})"
        reason = f"{step}: ranks waited for others longer than launch.collective_timeout_s = {limit_s:g} s"
        return self._hung(reason, positions)

    def _timed_out(self, reason: str) -> JobFailed:
        """The failure after the time limit of the launch."""
        return self._hung(reason, self._watch.positions())

    def _hung(self, reason: str, positions: Sequence[RankPosition]) -> JobFailed:
        """A failure with where the ranks are that the others wait for, else where all are."""
        suspects = stragglers(positions)
        rank = suspects[0].rank if len(suspects) == 1 else None
        return self._job_failed("; ".join([reason, *map(str, suspects or positions)]), rank=rank)

    def _job_failed(
        self, reason: str, *, code: int | None = None, rank: int | None = None, is_lost: bool = False
    ) -> JobFailed:
        """A failure with the log to read and its last lines: the rank's, or the launcher's where no rank is known."""
        log = launcher_log(self._job_dir) if rank is None else rank_log(self._job_dir, rank)
        tail = read_tail(log).splitlines()[-TAIL_LINES:]
        status = "" if code is None or self._was_stopped else _status(code)
        return JobFailed(reason, command=self._command, status=status, rank=rank, log=log, tail=tail, is_lost=is_lost)


def _status(code: int) -> str:
    """How the launcher ended, in words, from the supervisor's exit code."""
    if code > 192:  # the deepspeed launcher exits with the negative status of its child
        return f"exit code {code} (signal {256 - code} in a rank)"
    if code > 128:
        return f"signal {code - 128}"
    return f"exit code {code}" if code >= 0 else f"signal {-code} in its supervisor"


def _signal_from_outside(code: int) -> str:
    """The signal that ended the launcher or the supervisor itself; empty where none did."""
    number = -code if code < 0 else code - 128
    return f"signal {number} ({signal.strsignal(number)})" if 0 < number < signal.NSIG and code < 192 else ""
