"""Why a launch failed, in one sentence: which rank came to grief first, what its end means, and what helps.

A rank that fails takes the others with it: they fail because they have lost it, or their launcher ends them.
`first_cause` tells them apart, and `explain` says what a rank's report means. Reads `job.json` and the logs of ranks;
`monitor` collects the reports and raises the exception.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hir_core.launch.exit_status import REQUESTS
from hir_core.launch.memory_advice import MemoryAdvice
from hir_core.launch.rank import RankReport
from hir_core.launch.stack_traces import position

TAIL_BYTES = 65536
STOPPED = 128 + signal.SIGTERM
"""The exit code of a rank that has found the file `stop`."""
_TIMED_OUT = re.compile(
    r"Timed out waiting \d+ms for (recv|send) operation"  # gloo
    r"|Watchdog caught collective operation timeout"  # NCCL
    r"|Timed out after \d+ seconds waiting for clients|wait timeout after \d+ms"  # while the ranks meet
)
NO_MEMORY = re.compile(r"out of memory|not enough memory|can(no|')t allocate memory|alloc_failed", re.IGNORECASE)
"""What messages say of a lack of memory."""
_CRASHES: dict[int, str] = {
    signal.SIGSEGV: "crashed in native code with signal 11, a segmentation fault",
    signal.SIGFPE: "crashed in native code with signal 8, an arithmetic error",
    signal.SIGABRT: "was aborted by native code with signal 6",
    signal.SIGBUS: "died of signal 7, a bus error: shared memory is full (see `df -h /dev/shm`; a container gets more "
    "with --shm-size), or a file was cut while it was read,",
    signal.SIGILL: "died of signal 4, an instruction that this processor lacks: a package or an operator in "
    "~/.cache/torch_extensions was built for another one; reinstall or delete it,",
}


@dataclass(frozen=True)
class Explanation:
    """What the end of a rank means."""

    reason: str
    """One line."""
    is_lost: bool = False
    """Whether a second try may end better: see `JobFailed`."""


def first_cause(reports: Iterable[RankReport]) -> RankReport | None:
    """The report of the rank that failed first; the others may have failed because of it.

    Ranks that were asked to end come last, since the launcher asks the rest as soon as one rank has gone. Before them
    come those that had lost another rank when they failed, since what they report is what that loss led to.
    """
    return min(reports, key=lambda report: (was_asked(report), report.has_lost_rank, report.time), default=None)


def was_asked(report: RankReport) -> bool:
    """Whether a rank ended because it was asked to."""
    return report.was_asked or report.status == STOPPED or -report.status in REQUESTS


def has_timed_out(report: RankReport, log: Path) -> bool:
    """Whether a rank failed because it had waited too long for the others in a collective."""
    text = read_tail(log) if report.status == -signal.SIGABRT else report.message
    return _TIMED_OUT.search(text) is not None


def explain(report: RankReport, log: Path, advice: MemoryAdvice) -> Explanation:
    """What a rank's report of its failure or its death means."""
    name = f"rank {report.rank}"
    if report.type:
        message = " ".join(next(filter(str.strip, report.message.splitlines()), "").split())
        lacks_memory = report.type in ("MemoryError", "OutOfMemoryError") or NO_MEMORY.search(report.message)
        helps = f"; {advice.sentence(report.type, message)}" if lacks_memory else ""
        return Explanation(f"{name} raised {report.type}: {message}{helps}")
    number = int(signal.SIGTERM) if report.status == STOPPED else -report.status
    if number <= 0:
        return Explanation(f"{name} ended with exit code {report.status} and without an error of its own")
    if number in _CRASHES:
        return Explanation(f"{name} {_CRASHES[number]}{_crash_site(log)}")
    if number == signal.SIGKILL:
        return Explanation(f"{name} was killed: signal 9, {_killer(report, advice)}", is_lost=True)
    description = f"signal {number} ({signal.strsignal(number)})"
    if number in REQUESTS:
        return Explanation(f"{name} was asked to end with {description}, by somebody or by the cluster", is_lost=True)
    return Explanation(f"{name} was ended by {description}")


def _killer(report: RankReport, advice: MemoryAdvice) -> str:
    """Who sent signal 9, as far as the kernel's counters tell."""
    if report.memory_kills:
        return f"by the kernel because memory ran out; {advice.sentence()}"
    if report.memory_kills == 0:
        return "from outside, as with `kill -9`; the kernel has killed no process for lack of memory meanwhile"
    return "from outside, as with `kill -9`, or by the kernel because memory ran out, which `dmesg` would show"


def _crash_site(log: Path) -> str:
    """Where a rank crashed, by the stack that the interpreter wrote into its log, and the line before that."""
    before, crashed, stacks = read_tail(log).rpartition("Fatal Python error: ")
    if not crashed:
        return ""
    place = position(0, stacks).place
    said = before.strip().splitlines()[-1:]
    return (f" at {place}" if place else "") + "".join(f": {line.strip()[:200]}" for line in said)


def read_tail(log: Path) -> str:
    """The end of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace")
