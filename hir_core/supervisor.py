"""Runs one command and leaves none of its processes behind, whatever happens to the process that asked for it.

    python -I -S supervisor.py STOP_FILE COMMAND...

The parent holds the other end of standard input. End of file there (the parent closed it, or died, even by SIGKILL), a
changed parent, SIGTERM or SIGINT ends the command and everything below it: SIGTERM to all, a few seconds, SIGKILL. The
same is done to whatever is left after the command has ended by itself. Processes that left their session or lost their
parent are found as well: the supervisor is their subreaper, so orphans become its children (Linux). Exits with the
command's status, 128 + n for signal n. STOP_FILE is created first, for processes on other hosts.

Reads /proc. Only the standard library is imported: this must start fast, and outlive a broken environment.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

TERM_GRACE_S = 3.0
KILL_GRACE_S = 4.0
POLL_S = 0.05
SUPERVISOR = "HIR_SUPERVISOR"
"""The variable in which the command and all below it find this process's id."""
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(stop_file: Path, command: Sequence[str]) -> int:
    """Runs the command to its end or the parent's, and returns its status once nothing below it is alive."""
    told_to_stop = _Flag()
    signal.signal(signal.SIGTERM, told_to_stop.set)
    signal.signal(signal.SIGINT, told_to_stop.set)
    parent = os.getppid()
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    env = os.environ | {SUPERVISOR: str(os.getpid())}
    # preexec_fn is safe here: this process has one thread.
    launcher = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=env, preexec_fn=_die_with_supervisor)
    statuses: dict[int, int] = {}
    while launcher.pid not in statuses and not told_to_stop and not _has_left(parent):
        _reap(statuses)
    stop_file.touch()
    _end_descendants(statuses)
    return statuses.get(launcher.pid, 128 + signal.SIGKILL)


class _Flag:
    def __init__(self) -> None:
        self._is_set = False

    def set(self, _signal: int, _frame: FrameType | None) -> None:
        self._is_set = True

    def __bool__(self) -> bool:
        return self._is_set


def _has_left(parent: int) -> bool:
    """Waits a moment; true once the parent has closed the pipe or is gone.

    Its death is looked at as well because a process that the parent forked may hold the pipe open.
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


def _end_descendants(statuses: dict[int, int]) -> None:
    _signal_until_gone(signal.SIGTERM, TERM_GRACE_S, statuses)
    _signal_until_gone(signal.SIGKILL, KILL_GRACE_S, statuses)


def _signal_until_gone(number: signal.Signals, grace_s: float, statuses: dict[int, int]) -> None:
    deadline, told = time.monotonic() + grace_s, set[int]()
    while (alive := _descendants()) and time.monotonic() < deadline:
        for pid in alive - told:  # the walk is repeated: a process may fork while it is told to end
            _send(pid, number)
        told |= alive
        time.sleep(POLL_S)
        _reap(statuses)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _descendants() -> set[int]:
    """Process ids below this one, ended but unreaped ones included."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(parent_of(int(entry.name)), []).append(int(entry.name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.update(below)
        waiting.extend(below)
    return found


def parent_of(pid: int) -> int:
    """The process that started another one, or has adopted it; 0 where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(stat.rpartition(b")")[2].split()[1])  # the name before it may hold blanks and brackets


def _die_with_supervisor() -> None:
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
