"""The processes of a launch, as the driver follows them: on this machine, or on several hosts.

On this machine they run below a supervisor, which ends every one of them when the pipe to its standard input closes;
several hosts are in `hosts`. What the ranks report is read by `monitor`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hir_core import supervisor
from hir_core.store.plain_files import open_plain

STOP_S = supervisor.TERM_GRACE_S + supervisor.KILL_GRACE_S + 2.0
"""How long a supervisor may take to end all processes below it."""


@dataclass(frozen=True)
class Loss:
    """How a host was lost."""

    node: int
    reason: str
    """One line that names the host."""
    time: float
    """By this machine's monotonic clock."""


class Processes(Protocol):
    """The processes of a launch."""

    def poll(self) -> int | None:
        """None while one is alive, else how they ended: the exit code of a supervisor, minus a signal's number."""

    def ask_to_end(self) -> None:
        """Asks them to save their work and end."""

    def stop(self) -> None:
        """Ends all of them; returns once they are gone."""

    def loss(self) -> Loss | None:
        """The host that was lost first, where one was."""

    def has_failed(self) -> bool:
        """Whether a part of them has ended with an error, or is lost, while others may be alive."""

    def clock_lead_s(self, node: int) -> float:
        """By how many seconds the clock of a host is ahead of this machine's."""


class LocalProcesses:
    """The processes of a launch on this machine.

    Args:
        supervisor: their supervisor, with a pipe as its standard input.
    """

    def __init__(self, supervisor: subprocess.Popen[bytes]) -> None:
        self._supervisor = supervisor
        self._stop_by = 0.0
        self._was_asked = False

    def poll(self) -> int | None:
        """See `Processes`."""
        code = self._supervisor.poll()
        if code is None and self._stop_by and time.monotonic() > self._stop_by:
            self._supervisor.kill()  # launcher and ranks are set to die with their parent
            code = self._supervisor.wait()
        return code

    def ask_to_end(self) -> None:
        """See `Processes`; a second time changes nothing."""
        if not self._was_asked:
            self._was_asked = True
            self._supervisor.terminate()

    def begin_to_stop(self) -> None:
        """Has the supervisor end every process; `poll` tells when they are gone."""
        assert self._supervisor.stdin is not None
        self._supervisor.stdin.close()
        self._stop_by = self._stop_by or time.monotonic() + STOP_S

    def stop(self) -> None:
        """See `Processes`."""
        self.begin_to_stop()
        while self.poll() is None:
            time.sleep(0.02)

    def loss(self) -> Loss | None:
        """See `Processes`."""
        return None

    def has_failed(self) -> bool:
        """See `Processes`."""
        return False

    def clock_lead_s(self, node: int) -> float:
        """See `Processes`."""
        del node
        return 0.0


def start_supervised(
    log: Path, command: Sequence[str], env: dict[str, str], grace_s: float, input_file: Path = Path(os.devnull)
) -> LocalProcesses:
    """Starts a command below a supervisor.

    Args:
        log: what the command prints is appended to it.
        grace_s: seconds that its processes have to save their work where they are asked to end.
        input_file: its standard input.
    """
    # By path and isolated: the supervisor must start whatever the user's folder or environment does to imports.
    start = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(input_file), str(grace_s)]
    with open_plain(log, "a") as file:
        process = subprocess.Popen(
            [*start, *command],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    return LocalProcesses(process)
