"""Row-by-row work in separate processes that are ended when a row takes too long: for rewards, and for chat templates.

It takes a process, because neither a regular expression nor a C extension can be interrupted from within, and because
alarms reach the main thread only. Rows and results are sent through pipes as lines of JSON; `time_limit_worker` is what
the process runs. Reads and writes no files.

Work that only computes is limited in seconds of processor time, so that it is cut off at the same row on a busy
machine as on an idle one, and may be shared by several processes. Work that may wait, for a network or a file, is
limited in seconds on the clock, and done by one process, which sees all rows in their order.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from hir_core import errors
from hir_core.errors import HirError, RewardError
from hir_core.progress import EVERY_S, OnRows, counted, ignore

TIMED_OUT, ENDED = "timed out", "ended its process"
START_LIMIT_S = 120.0
"""Seconds that imports may take; they do not count as a row's time."""
END_GRACE_S = 2.0
CLOCK_PER_CPU_SECOND = 60.0
"""Seconds on the clock that a process may take for one of processor time, so that one that hangs is ended as well."""
# With the search path of this process, so that the worker can import what can be imported here.
_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from hir_core.time_limit_worker import main; main()"


@dataclass(frozen=True)
class Work:
    """What is done with each row.

    Args:
        maker: `module:function`; called once with the settings, it returns the function that is called on each row.
        settings: plain JSON values.
        only_computes: whether a row's limit counts processor time; for work that never waits for anything.
    """

    maker: str
    settings: dict[str, Any] = field(default_factory=dict)
    only_computes: bool = False


@dataclass(frozen=True)
class RowResult:
    """The value for a row, or the problem that left it without one: `timed out`, or `ended its process`."""

    value: Any = None
    problem: str = ""


def usable_cores() -> int:
    """How many processes may compute at once: as many as this process may use cores, or threads by OMP_NUM_THREADS."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0))
    return min(cores, int(threads)) if threads.isdecimal() and int(threads) else cores


def process_rows(
    work: Work, rows: Sequence[Any], limit_s: float, on_rows: OnRows = ignore, *, rows_per_process: int = 1000
) -> list[RowResult]:
    """The result of the work for every row, in order; rows and values are plain JSON values.

    A row that takes longer than the limit has no value, and neither has one that ends the process, by a crash or for
    lack of memory; the rows after it are processed in a new process. No process outlives this call.

    Args:
        limit_s: seconds for one row: of processor time for work that only computes, else on the clock.
        on_rows: called with how many rows are done, and of how many.
        rows_per_process: so many rows are worth another process, of work that only computes.

    Raises:
        HirError: the work raised it; same class, same message.
        RewardError: the work raised something else, or its process does not start.
    """
    processes = min(usable_cores(), len(rows) // rows_per_process) if work.only_computes else 1
    if processes <= 1:
        return _process_block(work, counted(rows, len(rows), on_rows), limit_s)
    ends = [len(rows) * (number + 1) // processes for number in range(processes)]
    done, is_given_up = [0] * processes, threading.Event()

    def block(number: int) -> Iterator[Any]:
        for row in rows[ends[number - 1] if number else 0 : ends[number]]:
            if is_given_up.is_set():
                return
            yield row
            done[number] += 1

    with ThreadPoolExecutor(processes) as threads:
        try:
            # Each thread lasts longer than the processes that it starts: they are killed when it ends.
            blocks = [threads.submit(_process_block, work, block(number), limit_s) for number in range(processes)]
            while wait(blocks, EVERY_S, FIRST_EXCEPTION).not_done and not _has_failed(blocks):
                on_rows(sum(done), len(rows))
        finally:  # of no effect where all rows are done
            is_given_up.set()
    return [result for finished in blocks for result in finished.result()]


def _has_failed(blocks: Sequence[Future[Any]]) -> bool:
    return any(block.done() and block.exception() is not None for block in blocks)


def _process_block(work: Work, rows: Iterable[Any], limit_s: float) -> list[RowResult]:
    """The results of the work for rows, by one process after another."""
    worker: LimitedProcess | None = None
    results = []
    clock_limit_s = limit_s * CLOCK_PER_CPU_SECOND if work.only_computes else limit_s
    try:
        for row in rows:
            worker = worker or LimitedProcess(work, cpu_limit_s=limit_s if work.only_computes else 0.0)
            results.append(worker.process(row, clock_limit_s))
            if results[-1].problem:
                worker = None
    finally:
        if worker is not None:
            worker.end(END_GRACE_S)
    return results


class _NoReply(Exception):
    """The process will not reply; the message says why."""


class LimitedProcess:
    """The process that works on rows, and the pipes to it; it ends with this one at the latest.

    Args:
        cpu_limit_s: seconds of processor time for one row; 0 for no such limit.

    Raises:
        HirError: the work cannot be made, or its process does not start: see `process_rows`.
    """

    def __init__(self, work: Work, cpu_limit_s: float = 0.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # so that the processes that it starts can be ended with it
            env={"PYTHONHASHSEED": "0", **os.environ},  # so that sets are walked in the same order in every process
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._received = b""
        self._poll = select.poll()
        self._poll.register(self._stdout, select.POLLIN)
        try:
            first = {"maker": work.maker, "settings": work.settings, "cpu_limit_s": cpu_limit_s}
            self._exchange({"parent": os.getpid(), **first}, START_LIMIT_S)
        except BaseException as error:
            self.end(0)
            if isinstance(error, _NoReply):
                raise RewardError(
                    f"the process for {work.maker} did not start ({error}): see its output above"
                ) from None
            raise

    def process(self, row: Any, limit_s: float) -> RowResult:
        """The result for a row, within seconds on the clock; one with a problem ends the process."""
        try:
            return RowResult(self._exchange(row, limit_s))
        except _NoReply as error:
            self.end(0)
            out_of_cpu_time = self._process.returncode == -signal.SIGPROF
            return RowResult(problem=TIMED_OUT if out_of_cpu_time else str(error))

    def end(self, grace_s: float) -> None:
        """Gives the process some seconds to end by itself, then kills it and every process that it has started.

        Does nothing once it has ended.
        """
        if self._process.returncode is not None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if grace_s:
            self._is_readable(time.monotonic() + grace_s)  # end of file: its exit handlers are done
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # it was not waited for, so no other process has its id
        except ProcessLookupError:  # it has not become a process group yet
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _exchange(self, message: Any, limit_s: float) -> Any:
        """Sends a message, and returns the value of the reply or raises its error."""
        data = json.dumps(message).encode() + b"\n"
        try:
            while data:  # the worker reads a whole line before it works on it, so writing does not wait for the work
                data = data[os.write(self._stdin, data) :]
        except BrokenPipeError:
            raise _NoReply(ENDED) from None
        deadline = time.monotonic() + limit_s
        while b"\n" not in self._received:
            if not self._is_readable(deadline):
                raise _NoReply(TIMED_OUT)
            chunk = os.read(self._stdout, 65536)
            if not chunk:
                raise _NoReply(ENDED)
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        reply = json.loads(line)
        if "value" in reply:
            return reply["value"]
        kind = getattr(errors, reply["type"], None)
        if isinstance(kind, type) and issubclass(kind, HirError):
            raise kind(reply["message"])
        raise RewardError(f"{reply['type']}: {reply['message']}")

    def _is_readable(self, deadline: float) -> bool:
        return bool(self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
