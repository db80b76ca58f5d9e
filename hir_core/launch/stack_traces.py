"""Stack traces of the ranks, written when a signal comes, to find the rank that the others wait for.

    logs/rank-N.stack    the stacks of rank N's threads; empty until the first signal

When a launch outlives its time limit, usually all ranks but one wait in a collective for that one; only the stacks show
which. Writes and reads these files; `monitor` sends the signals and decides. Imports nothing heavy.
"""

from __future__ import annotations

import faulthandler
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hir_core.store.plain_files import open_plain

STACK_SIGNAL = signal.SIGUSR1
"""The signal upon which a rank writes its stack."""
ANSWER_TIMEOUT_S = 2.0
"""A rank that has not written its stack by then has been stopped, or hangs in the kernel."""
COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>\S+)$', re.MULTILINE)


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


def stack_file(log: Path) -> Path:
    """The file for the stack of the rank that has this log."""
    return log.with_suffix(".stack")


def read_positions(logs: Sequence[tuple[int, Path]]) -> list[RankPosition]:
    """The positions of ranks that were sent STACK_SIGNAL just now, after waiting for their stacks.

    Args:
        logs: each rank with its log.
    """
    files = {rank: stack_file(log) for rank, log in logs}
    deadline = time.monotonic() + ANSWER_TIMEOUT_S
    while True:
        stacks = {rank: file.read_text(errors="replace") if file.exists() else "" for rank, file in files.items()}
        are_whole = all(stack.endswith("\n") and "hread 0x" in stack for stack in stacks.values())
        if are_whole or time.monotonic() > deadline:
            return [_position(rank, stack) for rank, stack in sorted(stacks.items())]
        time.sleep(0.05)


def _position(rank: int, stacks: str) -> RankPosition:
    # Every thread's stack starts with its innermost call; the main thread's stack comes last.
    frames = list(_FRAME.finditer(stacks.rpartition("hread 0x")[2]))
    if not frames:
        return RankPosition(rank, "")
    own = next((n for n, frame in enumerate(frames) if "/hir_core/" in frame["file"]), None)
    frame = frames[own or 0]
    waits = any(part in inner["file"] for inner in frames[: own or len(frames)] for part in COLLECTIVES)
    return RankPosition(rank, f"{Path(frame['file']).name}:{frame['line']} `{frame['function']}`", waits)


def stragglers(positions: Sequence[RankPosition]) -> list[RankPosition]:
    """The ranks that the others wait for in a collective; empty where all of them wait, or none."""
    busy = [position for position in positions if not position.waits]
    return busy if len(busy) < len(positions) else []
