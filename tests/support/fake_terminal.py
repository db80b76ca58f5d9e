"""A terminal for tests: a program runs in a pseudo-terminal, and an emulator keeps the screen that a user would see.

The program has the terminal to itself, so that Ctrl-C reaches it as a key does.
"""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte
from cli_run import PATIENCE_S

ROWS = 40


class Terminal:
    """A terminal in which a program runs.

    Attributes:
        frames: the last line on the screen, once for each change of it.
        written: all bytes that the program wrote.
    """

    def __init__(self, columns: int, command: list[str], folder: Path, **environment: str) -> None:
        self.columns = columns
        self.screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self.screen)
        self._end, program_end = pty.openpty()
        fcntl.ioctl(program_end, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        inherited = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "CI", "NO_COLOR")}
        self.program = subprocess.Popen(
            command,
            cwd=folder,
            env=inherited | {"TERM": "xterm-256color"} | environment,
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
        """The lines on the screen, without empty ones."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def press(self, key: bytes) -> None:
        os.write(self._end, key)

    def wait_for(self, is_reached: Callable[[], bool]) -> None:
        """Reads what the program writes until the condition is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not is_reached():
            assert time.monotonic() < deadline, f"the condition never became true:\n{self.lines}"
            assert self._read(), f"the program ended before the condition became true:\n{self.lines}"

    def end(self) -> int:
        """Reads what the program writes until it ends; returns its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read():
            assert time.monotonic() < deadline, f"the program never ended:\n{self.lines}"
        return self.program.wait(PATIENCE_S)

    def _read(self) -> bool:
        """Reads what the program has written; false once it can write no more."""
        if not select.select([self._end], [], [], 1)[0]:
            return True
        try:
            data = os.read(self._end, 65536)
        except OSError:  # Linux: the other end is closed
            return False
        self.written += data
        for redrawn in re.split(rb"(?=\r\x1b)", data):  # where this process was slow, one read has several frames
            self._stream.feed(redrawn)
            if self.lines and self.lines[-1] not in self.frames[-1:]:
                self.frames.append(self.lines[-1])
        return True
