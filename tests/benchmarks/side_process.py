"""What the process of one measurement runs: it calls a side's function, and times the part of it that counts.

Reports on its standard output, as lines of JSON, when the work begins and ends, and at last what it took; whatever else
is printed goes to the log. `measure` starts it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

_DIE_WITH_PARENT, _BECOME_REAPER = 1, 36
"""Options of prctl(2): PR_SET_PDEATHSIG, a signal when the parent ends; and PR_SET_CHILD_SUBREAPER, by which
descendants whose parent has ended become children of this process."""


class Clock:
    """A context in which a side works: `with clock:`, once. Its seconds count, and those of all processes below it.

    Attributes:
        round: of this measurement, from 0; a seed, where a side needs one.
    """

    def __init__(self, reports: int, round: int) -> None:
        self._reports, self.round = reports, round
        self.cpu_s = self.wall_s = 0.0
        self.peak_bytes = 0
        self._is_used = False

    def __enter__(self) -> Clock:
        if self._is_used:
            raise RuntimeError("a side's work is one block `with clock:`")
        self._is_used = True
        self._report({"is_working": True})
        with suppress(OSError):  # the kernel then counts the peak from here on
            Path("/proc/self/clear_refs").write_text("5")
        self._cpu_before, self._wall_before = _cpu_seconds(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wall_s = time.perf_counter() - self._wall_before
        self.cpu_s = self.cpu_so_far()
        self.peak_bytes = _peak_resident_bytes()
        self._report({"is_working": False})

    def cpu_so_far(self) -> float:
        """CPU seconds since the begin of the work."""
        return _cpu_seconds() - self._cpu_before

    def result(self, amount: float, facts: dict[str, Any]) -> None:
        """Reports the end, with what was done and what it took."""
        if not self._is_used:
            raise RuntimeError("the side's function has no block `with clock:`")
        taken = {"cpu_s": self.cpu_s, "wall_s": self.wall_s, "peak_bytes": self.peak_bytes}
        self._report({"amount": amount, "facts": facts, **taken})

    def _report(self, report: dict[str, Any]) -> None:
        os.write(self._reports, (json.dumps(report) + "\n").encode())


def _cpu_seconds() -> float:
    """User and system seconds of this process and of all below it, those that have ended included."""
    own = time.process_time()
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # orphans count only once their end was collected
            pass
    times = os.times()
    total = own + times.children_user + times.children_system
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            used = child.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def _peak_resident_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Calls the function that the command line names, and reports what it returns."""
    reports = os.dup(1)
    os.dup2(2, 1)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))  # the programs that it started too
    prctl(_DIE_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
    prctl(_BECOME_REAPER, 1, 0, 0, 0)
    request = json.loads(sys.argv[1])
    module, _, name = request["function"].partition(":")
    function, inputs = getattr(importlib.import_module(module), name), Path(request["inputs"])
    clock = Clock(reports, request["round"])
    work = function(clock, inputs, **request["settings"])
    clock.result(work.amount, dict(work.facts))
    sys.stdout.flush()
    os._exit(0)  # threads of a library must not hold up the next measurement


if __name__ == "__main__":
    main()
