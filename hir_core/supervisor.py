"""The supervisor: a process that runs one command and ends every process below it, whatever happens to its parent.

    python -I -S supervisor.py INPUT GRACE_S COMMAND...

The parent holds the other end of this process's standard input. The command and all processes below it are ended
(SIGTERM, a few seconds, SIGKILL) when that pipe closes because the parent closed it or died, even by SIGKILL; and when
the parent changes. At SIGTERM or SIGINT they first get SIGTERM and GRACE_S seconds, for what they have to save, unless
the signal comes again. Processes that are still alive after the command has ended are ended like in the first case.
Those that left their session or lost their parent are found as well: the supervisor is a subreaper (Linux), so orphans
become its children. It exits with the command's status, or 128 + n for signal n. INPUT is the file that the command
gets as its standard input: /dev/null, or one that holds what must not be on a command line.

Reads /proc. Imports only the standard library: it must start fast, and work where the environment is broken.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

TERM_GRACE_S = 3.0
KILL_GRACE_S = 4.0
POLL_S = 0.05
SUPERVISOR = "HIR_SUPERVISOR"
"""The environment variable in which the command and all processes below it find this process's id."""
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(input_file: Path, grace_s: float, command: Sequence[str]) -> int:
    """Runs the command until it or the parent ends, and returns its status once no process below it is alive."""
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _frame: received.append(number))
    parent = os.getppid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    env = os.environ | {SUPERVISOR: str(os.getpid())}
    with input_file.open("rb") as command_input:
        # preexec_fn is safe here: this process has one thread.
        launcher = subprocess.Popen(command, stdin=command_input, env=env, preexec_fn=die_with_parent)
    statuses: dict[int, int] = {}
    while launcher.pid not in statuses and not received and not _has_left(parent):
        _reap(statuses)
    if received and not _has_left(parent):
        _signal_until_gone(signal.SIGTERM, grace_s, statuses, lambda: len(received) > 1 or _has_left(parent))
    _signal_until_gone(signal.SIGTERM, TERM_GRACE_S, statuses)
    _signal_until_gone(signal.SIGKILL, KILL_GRACE_S, statuses)
    return statuses.get(launcher.pid, 128 + signal.SIGKILL)


def _has_left(parent: int) -> bool:
    """Waits for POLL_S; whether the parent has closed the pipe or is gone.

    The parent's id is compared as well because a process that the parent forked may hold the pipe open.
    """
    readable, _, _ = select.select([0], [], [], POLL_S)
    return os.getppid() != parent or (bool(readable) and os.read(0, 1024) == b"")


def _reap(statuses: dict[int, int]) -> None:
    """Collects ended children, adopted ones included: `Popen.poll` would see only the launcher."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        code = os.waitstatus_to_exitcode(status)
        statuses[pid] = code if code >= 0 else 128 - code


def _signal_until_gone(
    number: signal.Signals, grace_s: float, statuses: dict[int, int], is_over: Callable[[], bool] = bool
) -> None:
    """Sends the signal once to every process below this one, and waits until none is left or the time is over."""
    deadline, signalled = time.monotonic() + grace_s, set[int]()
    while (alive := _descendants()) and time.monotonic() < deadline and not is_over():
        for pid in alive - signalled:  # listed anew each time: a process may fork before the signal ends it
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        signalled |= alive
        time.sleep(POLL_S)
        _reap(statuses)


def _descendants() -> set[int]:
    """Process ids below this one, ended but unreaped ones included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(parent_of(int(entry.name)), []).append(int(entry.name))
    descendants: set[int] = set()
    unvisited = [os.getpid()]
    while unvisited:
        below = children.get(unvisited.pop(), [])
        descendants.update(below)
        unvisited.extend(below)
    return descendants


def parent_of(pid: int) -> int:
    """Id of the process that started or has adopted the given one; 0 where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(b")")[2].split()[1])  # the name before it may hold blanks and brackets


def die_with_parent() -> None:
    """Has the kernel kill this process as soon as its parent ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
