"""`answers`: work on rows, one by one, in a process of its own that is ended when a row takes too long.

A process, because neither a regular expression nor a C extension lets go when it is told to, and because alarms reach
the main thread only. Rows and answers cross as lines of JSON. Reads and writes no files; `worker` is the other side.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hir_core import errors
from hir_core.errors import HirError, RewardError
from hir_core.progress import OnRows, counted, ignore

TIMED_OUT, ENDED = "timed out", "ended its process"
START_LIMIT_S = 120.0
"""How long imports may take; they do not count as a row's time."""
END_GRACE_S = 2.0
# The same search path as here, so that what can be imported here can be imported there.
_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from hir_core.rewards.time_limit_worker import main; main()"


@dataclass(frozen=True)
class Work:
    """What is done with each row.

    Args:
        maker: `module:function` of hir; called once with the settings, it returns a function of one row.
        settings: plain JSON values.
    """

    maker: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came of a row: a value, or why there is none (`timed out`, or `ended its process`)."""

    value: Any = None
    problem: str = ""


def answers(work: Work, rows: Sequence[Any], limit_s: float, on_rows: OnRows = ignore) -> list[Answer]:
    """Does the work on every row, which are plain JSON values; a row that takes longer than the limit has no value.

    A row that ends the process, by a crash or for want of memory, has no value either; the rows after it go on in a new
    process. None of the processes outlives this call. `on_rows` is told how many rows are done.

    Raises:
        HirError: the work raised it; same class, same message.
        RewardError: the work raised something else, or its process does not start.
    """
    worker: _Worker | None = None
    found = []
    try:
        for row in counted(rows, len(rows), on_rows):
            worker = worker or _Worker(work)
            found.append(worker.answer(row, limit_s))
            if found[-1].problem:
                worker.end(0)
                worker = None
    finally:
        if worker is not None:
            worker.end(END_GRACE_S)
    return found


class _Lost(Exception):
    """No answer will come; its text says why."""


class _Worker:
    """One process and the pipes to it."""

    def __init__(self, work: Work) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # so that what it starts can be ended with it
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._received = b""
        self._poll = select.poll()
        self._poll.register(self._from, select.POLLIN)
        try:
            self._value({"parent": os.getpid(), "maker": work.maker, "settings": work.settings}, START_LIMIT_S)
        except BaseException as error:
            self.end(0)
            if isinstance(error, _Lost):
                raise RewardError(
                    f"the process that does {work.maker} {error} before its first row: see what it wrote above"
                ) from None
            raise

    def answer(self, row: Any, limit_s: float) -> Answer:
        try:
            return Answer(self._value(row, limit_s))
        except _Lost as lost:
            return Answer(problem=str(lost))

    def end(self, grace_s: float) -> None:
        """Lets the process end by itself for a while, and then ends it with all that it has started."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if grace_s:
            self._is_readable(time.monotonic() + grace_s)  # end of file: its exit handlers are done
        try:
            os.killpg(self._process.pid, signal.SIGKILL)  # not reaped yet, so the id is still its own
        except ProcessLookupError:  # it had no time to become a group
            self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _value(self, row: Any, limit_s: float) -> Any:
        self._send(json.dumps(row).encode() + b"\n")
        answer = json.loads(self._line(time.monotonic() + limit_s))
        if "value" in answer:
            return answer["value"]
        kind = getattr(errors, answer["type"], None)
        if isinstance(kind, type) and issubclass(kind, HirError):
            raise kind(answer["message"])
        raise RewardError(f"{answer['type']}: {answer['message']}")

    def _send(self, data: bytes) -> None:
        try:
            while data:  # it reads all of a row before it works on it, so this does not wait for the work
                data = data[os.write(self._to, data) :]
        except BrokenPipeError:
            raise _Lost(ENDED) from None

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._received:
            if not self._is_readable(deadline):
                raise _Lost(TIMED_OUT)
            data = os.read(self._from, 65536)
            if not data:
                raise _Lost(ENDED)
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _is_readable(self, deadline: float) -> bool:
        return bool(self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
