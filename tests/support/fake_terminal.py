"""A real terminal without a screen: a program runs in a pseudo-terminal, and an emulator says what a person would see.

What each test of terminal output uses; the program has the terminal to itself, so that Ctrl-C reaches it as a key does.
"""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
from cli_run import PATIENCE_S

BRANCHES = 40


class Terminal:
    """A terminal with a program in it.

    Attributes:
        frames: the last line on the screen, each time that it had changed.
        written: all bytes that the program wrote.
    """

    def __init__(self, columns: int, command: list[str], folder: Path, **environment: str) -> None:
        self.columns = columns
        self.screen = pyte.Screen(columns, BRANCHES)
        self._stream = pyte.ByteStream(self.screen)
        self._end, program_end = pty.openpty()
        fcntl.ioctl(program_end, termios.TIOCSWINSZ, struct.pack("HHHH", BRANCHES, columns, 0, 0))
        given = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "CI", "NO_COLOR")}
        self.program = subprocess.Popen(
            command,
            cwd=folder,
            env=given | {"TERM": "xterm-256color"} | environment,
            stdin=program_end,
            stdout=program_end,
            stderr=program_end,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C becomes a signal
        )
        os.close(program_end)
        self.frames: list[str] = []
        self.written = b""

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.wait()
        os.close(self._end)

    @property
    def lines(self) -> list[str]:
        """What stands on the screen, without empty lines."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def press(self, key: bytes) -> None:
        os.write(self._end, key)

    def wait_for(self, is_there: Callable[[], bool]) -> None:
        """Follows the program until something is to be seen."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_there():
            assert time.monotonic() < deadline, f"it never came:\n{self.lines}"
            assert self._read(), f"the program ended before it came:\n{self.lines}"

    def end(self) -> int:
        """Follows the program to its end, and returns its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, f"it never ended:\n{self.lines}"
        return self.program.wait(PATIENCE_S)

    def _read(self) -> bool:
        """Takes what the program has written; false once nothing more can come."""
        if not select.select([self._end], [], [], 1)[0]:
            return True
        try:
            found = os.read(self._end, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.written += found
        self._stream.feed(found)
        if self.lines and self.lines[-1] not in self.frames[-1:]:
            self.frames.append(self.lines[-1])
        return True
