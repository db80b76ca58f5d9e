"""How a rank's process ended, as the kernel tells its parent: by which signal, and whether memory ran out meanwhile.

A process that is killed can report nothing, and what its launcher learns is lost with the launcher. So the work of a
rank is done in a child of the process that the launcher started. That process only waits: it passes signals on, has the
end recorded before its launcher can react to it, and then ends in the same way. Reads /proc and the counters of the
memory cgroup. Where the record goes is left to `rank`, and what it means to `failures`.
"""

from __future__ import annotations

import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hir_core.launch.host_memory import cgroup_files
from hir_core.supervisor import die_with_parent

REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""The signals that ask a process to end."""


@dataclass(frozen=True)
class Ending:
    """How a process ended."""

    status: int
    """Its exit code, or minus the number of the signal that ended it."""
    was_asked: bool
    """Whether a signal had asked it to end while it was alive."""
    memory_kills: int | None
    """How many processes the kernel killed meanwhile because memory ran out; None: unknown."""


def continue_in_child(record: Callable[[Ending], None]) -> None:
    """Forks, and returns in the child only; the parent waits for it, records its end, and ends in the same way.

    Call it while this process has one thread. The child is killed when its parent ends.
    """
    kills_before = kernel_memory_kills()
    parent, signals = os.getpid(), signal.valid_signals()
    # Blocked before there is a child, so that no signal is missed: `sigwait` takes them one by one.
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child == 0:
        die_with_parent()
        if os.getppid() != parent:
            os._exit(128 + signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        return
    was_asked = False
    while not _has_ended(child):
        number = signal.sigwait(signals)
        if number != signal.SIGCHLD:
            was_asked |= number in REQUESTS and not _has_ended(child)
            os.kill(child, number)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kills = kernel_memory_kills()
    memory_kills = None if kills is None or kills_before is None else max(0, kills - kills_before)
    with suppress(OSError):  # on a full disk the launcher still sees how this process ends
        record(Ending(status, was_asked, memory_kills))
    _end_as(status)


def _has_ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end_as(status: int) -> NoReturn:
    """Ends this process with an exit code, or by a signal where the status is negative."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the child has left its own core file
        with suppress(OSError):  # SIGKILL, which has no handler
            signal.signal(-status, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -status)
    os._exit(status)


def kernel_memory_kills() -> int | None:
    """How many processes the kernel has killed so far because memory ran out: in this process's cgroup, or anywhere.

    None where no counter can be read.
    """
    for file in _counters():
        with suppress(OSError):
            if count := re.search(r"^oom_kill (\d+)$", file.read_text(), re.MULTILINE):
                return int(count[1])
    return None


def _counters() -> Iterator[Path]:
    """The files that may hold the count, the narrowest first."""
    yield from cgroup_files("memory.events", "memory.oom_control")
    yield Path("/proc/vmstat")
