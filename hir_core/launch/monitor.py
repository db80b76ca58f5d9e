"""Watching the ranks of a launch: who ended first, which steps are done, and the one exception that explains a failure.

Reads the files that ranks write (see `rank`) and sends them signals; the launch itself is started by `launcher`.
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
from hir_core.launch.rank import RankReport, done_file, rank_log, read_progress, read_reports, report_file
from hir_core.launch.stack_traces import ASK, RankPosition, rank_positions, stragglers
from hir_core.progress import Progress

logger = logging.getLogger(__name__)

POLL_S = 0.25
FAILURE_GRACE_S = 3.0
"""How long the other ranks may live on after one has failed: they may wait for it in a collective for ever."""
END_GRACE_S = 60.0
"""How long the ranks may take to end once every step is done."""
STOP_S = supervisor.TERM_GRACE_S + supervisor.KILL_GRACE_S + 2.0
TAIL_LINES, TAIL_BYTES = 20, 65536


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Closes the pipe, upon which the supervisor ends everything, and waits until it has."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # launcher and ranks are set to die with their parent
        process.wait()


def _launcher_log(job_dir: Path) -> Path:
    return job_dir / "logs" / "launcher.log"


class _RankWatch:
    """Sees the ranks of this machine end, in the order in which they do.

    A rank that was killed leaves no word, and its launcher ends the others within moments: who went first can only be
    seen at once, so a descriptor per process wakes the driver (pidfd).
    """

    def __init__(self, job_dir: Path) -> None:
        self.lost: dict[int, float] = {}
        """Ranks that are gone without a word, by the time when that was seen."""
        self._job_dir = job_dir
        self._known: set[int] = set()
        self._handles: dict[int, int] = {}

    def wait(self, seconds: float) -> None:
        """Sleeps until a rank ends, at most the time given."""
        self._find_ranks()
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle, select.POLLIN)
        for handle, _ in poll.poll(seconds * 1000):
            os.close(handle)
            self._note_end(self._handles.pop(handle))

    @property
    def is_watching(self) -> bool:
        """Whether a rank of this machine is known to be alive."""
        return bool(self._handles)

    def rank_positions(self) -> list[RankPosition]:
        """Asks the ranks of this machine that are alive."""
        for handle in self._handles:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, ASK)
        return rank_positions([(rank, rank_log(self._job_dir, rank)) for rank in self._handles.values()])

    def close(self) -> None:
        """Gives back the descriptors."""
        while self._handles:
            os.close(self._handles.popitem()[0])

    def _find_ranks(self) -> None:
        for word in read_reports(self._job_dir, "started", self._known):
            self._known.add(word.rank)
            if word.host != socket.gethostname():
                continue
            try:
                self._handles[os.pidfd_open(word.pid)] = word.rank
            except ProcessLookupError:
                self._note_end(word.rank)
            except OSError:  # an old kernel or a sandbox: who was killed first stays unknown
                logger.debug("cannot watch rank %d", word.rank, exc_info=True)

    def _note_end(self, rank: int) -> None:
        if not any(report_file(self._job_dir, rank, event).exists() for event in ("ended", "failed")):
            self.lost[rank] = time.time()


class _Run:
    """One launch, as its driver follows it."""

    def __init__(
        self,
        job_dir: Path,
        command: Sequence[str],
        ranks: int,
        on_progress: Callable[[Progress], None],
        on_step: Callable[[int], None],
    ) -> None:
        self.watch = _RankWatch(job_dir)
        self._job_dir, self._command, self._ranks = job_dir, command, ranks
        self._on_progress, self._on_step = on_progress, on_step
        self._steps = json.loads((job_dir / "job.json").read_text())["steps"]
        self._steps_done = 0
        self._progress: Progress | None = None
        self._was_stopped = False

    def follow(self, process: subprocess.Popen[bytes], timeout_s: float | None) -> None:
        """Hands on what the ranks report until the supervisor ends; returns if every step is done."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        patience_ends = math.inf
        while process.poll() is None:
            self.watch.wait(POLL_S)
            self._relay()
            now = time.monotonic()
            if now > deadline and not self._is_done:
                raise self._late(f"the launch took longer than launch.timeout_s = {timeout_s:g} s")
            patience_ends = min(patience_ends, now + self._patience_s())
            if now >= patience_ends:
                self._was_stopped = True
                _stop(process)
        self.watch.wait(0)
        self._relay()
        self._judge(process.returncode)

    @property
    def _is_done(self) -> bool:
        return self._steps_done == len(self._steps)

    def _patience_s(self) -> float:
        if self._is_done:  # the deepspeed launcher alone would stay for seconds
            have_all_ended = len(read_reports(self._job_dir, "ended")) == self._ranks and not self.watch.is_watching
            return 0 if have_all_ended else END_GRACE_S
        return FAILURE_GRACE_S if self.watch.lost or read_reports(self._job_dir, "failed") else math.inf

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

    def _judge(self, code: int) -> None:
        if not self._is_done:
            raise self._failure(code)
        if code and not self._was_stopped:  # the outputs are whole; a rank stumbled on its way out
            log = _launcher_log(self._job_dir)
            logger.warning("every step is done, but the launcher ended with %s; log: %s", _status(code), log)

    def _failure(self, code: int) -> HirError:
        """What the user is told: the first rank's own error, or which rank was killed, or what is missing."""
        failed = min(read_reports(self._job_dir, "failed"), key=lambda word: word.time, default=None)
        lost, lost_at = min(self.watch.lost.items(), key=lambda item: item[1], default=(None, math.inf))
        if failed is not None and failed.time <= lost_at:
            return self._raised(failed, code)
        if lost is not None:
            reason = f"rank {lost} was killed; where nobody did it, memory had run out (`dmesg` tells)"
            return self._broken(reason, code=code, rank=lost, is_lost=True)
        step = self._steps[self._steps_done]
        name = step.get("name") or step.get("type")
        vanished = len(read_reports(self._job_dir, "started")) > len(
            read_reports(self._job_dir, "ended")
        )  # on another host
        reason = f"the launch ended but step {self._steps_done} ({name}) has no outputs"
        return self._broken(reason, code=code, is_lost=vanished)

    def _late(self, reason: str) -> JobFailed:
        found = self.watch.rank_positions()
        suspects = stragglers(found)
        rank = suspects[0].rank if len(suspects) == 1 else None
        return self._broken("; ".join([reason, *map(str, suspects or found)]), rank=rank)

    def _raised(self, word: RankReport, code: int) -> HirError:
        kind = getattr(errors, word.type, None)
        if isinstance(kind, type) and issubclass(kind, HirError) and kind is not JobFailed:
            return kind(word.message)
        return self._broken(f"rank {word.rank} raised {word.type}: {word.message}", code=code, rank=word.rank)

    def _broken(
        self, reason: str, *, code: int | None = None, rank: int | None = None, is_lost: bool = False
    ) -> JobFailed:
        log = _launcher_log(self._job_dir) if rank is None else rank_log(self._job_dir, rank)
        status = "" if code is None or self._was_stopped else _status(code)
        tail = _tail(log)
        return JobFailed(reason, command=self._command, status=status, rank=rank, log=log, tail=tail, is_lost=is_lost)


def _status(code: int) -> str:
    if code > 192:  # the deepspeed launcher exits with the negative status of its child
        return f"exit code {code} (signal {256 - code} in a rank)"
    if code > 128:
        return f"signal {code - 128}"
    return f"exit code {code}" if code >= 0 else f"signal {-code} in its supervisor"


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
