"""Stack traces of the ranks, written at a signal and every so often, to find the rank that the others wait for.

    logs/rank-N.stack         the stacks of rank N's threads at the last signal; empty until the first one
    logs/rank-N.stack.recent  the same, written anew several times within the time limit of a collective

When a launch hangs, usually all ranks but one wait in a collective for that one; only the stacks show which. When a
collective's own time limit strikes, the ranks are gone before anybody can ask them: then their recent stacks are read.
Writes and reads these files; `monitor` sends the signals and decides. Imports nothing heavy.
"""

from __future__ import annotations

import faulthandler
import re
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hir_core.store.plain_files import open_plain

STACK_SIGNAL = signal.SIGUSR1
"""The signal upon which a rank writes its stack."""
ANSWER_TIMEOUT_S = 2.0
"""A rank that has not written its stack by then has been stopped, or hangs in the kernel."""
RECENT_PER_LIMIT = 4
"""How often a rank writes its stack within the time limit of a collective."""
COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>\S+)$', re.MULTILINE)

_OUTERMOST = re.compile(r"^  (?:File .+ in (?:<module>|_run_module_as_main)|\.\.\.)\n\Z", re.MULTILINE)
"""The end of a whole file: the outermost call of the main thread, which comes last, or the mark of a deep stack."""


@dataclass(frozen=True)
class RankPosition:
    """Where a rank is, by the stack of its main thread."""

    rank: int
    place: str
    """The innermost line of this package, or of any file where there is none; empty: it did not answer."""
    waits: bool = False
    """Whether it is inside a collective."""

    def __str__(self) -> str:
        if not self.place:
            return f"rank {self.rank} does not answer"
        return f"rank {self.rank} {'waits for other ranks' if self.waits else 'is'} at {self.place}"


def write_stack_on_signal(log: Path) -> None:
    """Makes this process write its threads' stacks beside its log at every STACK_SIGNAL."""
    # Never closed: the handler, which runs while Python may be stuck in a C call, knows only the descriptor.
    faulthandler.register(STACK_SIGNAL, file=open_plain(stack_file(log), "w"), all_threads=True)


class RecentStacks:
    """A thread that writes this process's stacks beside its log, RECENT_PER_LIMIT times within the limit.

    A thread, and not the signal, because this goes on in ranks that are well: it runs only while no other thread runs
    Python code, and interrupts no call.

    Attributes:
        log: of the job that the rank does now.
    """

    def __init__(self, log: Path, limit_s: float) -> None:
        self.log = log
        self._pause_s = limit_s / RECENT_PER_LIMIT
        threading.Thread(target=self._write, daemon=True).start()

    def _write(self) -> None:
        while True:
            time.sleep(self._pause_s)
            recent = _recent_file(self.log)
            draft = recent.with_name(f".{recent.name}")
            with suppress(FileNotFoundError):  # the folder of a job that is done may have gone
                with draft.open("wb", buffering=0) as file:
                    faulthandler.dump_traceback(file)
                draft.replace(recent)


def stack_file(log: Path) -> Path:
    """The file for the stack of the rank that has this log."""
    return log.with_suffix(".stack")


def _recent_file(log: Path) -> Path:
    return log.with_suffix(".stack.recent")


def read_positions(logs: Sequence[tuple[int, Path]]) -> list[RankPosition]:
    """The positions of ranks that were sent STACK_SIGNAL just now, after waiting for their stacks.

    Args:
        logs: each rank with its log.
    """
    files = {rank: stack_file(log) for rank, log in logs}
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        stacks = {rank: file.read_text(errors="replace") if file.exists() else "" for rank, file in files.items()}
        if all(map(_OUTERMOST.search, stacks.values())) or time.monotonic() > deadline:
            return [position(rank, stack) for rank, stack in sorted(stacks.items())]
        time.sleep(0.05)


def recent_positions(logs: Mapping[int, Path], limit_s: float) -> list[RankPosition]:
    """Where ranks were when the time limit of a collective struck; a rank whose stack is old did not answer.

    Args:
        logs: the log of each rank.
        limit_s: that time limit.
    """
    files = {rank: _recent_file(log) for rank, log in logs.items()}
    written = {rank: file.stat().st_mtime for rank, file in files.items() if file.exists()}
    old = max(written.values(), default=0.0) - limit_s * 2 / RECENT_PER_LIMIT
    return [
        position(rank, file.read_text(errors="replace") if written.get(rank, old) > old else "")
        for rank, file in sorted(files.items())
    ]


def position(rank: int, stacks: str) -> RankPosition:
    """Where a rank is by its stacks, as the interpreter writes them; without a place where there are none."""
    # Every thread's stack starts with its innermost call; the main thread's stack comes last.
    frames = list(_FRAME.finditer(stacks.rpartition("hread 0x")[2]))
    if not frames:
        return RankPosition(rank, "")
    own = next((n for n, frame in enumerate(frames) if "/hir_core/" in frame["file"]), None)
    frame = frames[own or 0]
    waits = any(map(_is_collective, frames if own is None else frames[:own]))
    return RankPosition(rank, f"{Path(frame['file']).name}:{frame['line']} `{frame['function']}`", waits)


def _is_collective(frame: re.Match[str]) -> bool:
    # ZeRO-3 starts its collectives in advance, and waits for them in methods of its own.
    is_zero = "/deepspeed/runtime/zero/" in frame["file"] and frame["function"] == "wait"
    return is_zero or any(part in frame["file"] for part in COLLECTIVES)


def stragglers(positions: Sequence[RankPosition]) -> list[RankPosition]:
    """The ranks that the others wait for in a collective; empty where all of them wait, or none."""
    busy = [one for one in positions if not one.waits]
    return busy if len(busy) < len(positions) else []
