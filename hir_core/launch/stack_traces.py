"""Where each rank of a launch stands: it writes its stack when a signal asks, also from inside a collective.

    logs/rank-N.stack    the stacks of rank N's threads, empty until it is asked

When a launch outlives its time, all ranks but one usually wait in a collective for that one, which nothing else tells.
Writes and reads these files; leaves asking and judging to `launch`. Imports nothing heavy.
"""

from __future__ import annotations

import faulthandler
import re
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ASK = signal.SIGUSR1
ANSWER_S = 2.0
"""A rank that has not written its stack by then has been stopped, or hangs in the kernel."""
COLLECTIVES = ("/torch/distributed/", "/deepspeed/comm/")
_FRAME = re.compile(r'^  File "(?P<file>.+)", line (?P<line>\d+) in (?P<function>\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class RankPosition:
    """Where a rank stands, by its main thread."""

    rank: int
    place: str
    """The innermost line of this package, or of anything where there is none; empty: it did not answer."""
    waits: bool = False
    """Whether it is inside a collective."""

    def __str__(self) -> str:
        if not self.place:
            return f"rank {self.rank} does not answer"
        return f"rank {self.rank} {'waits for other ranks' if self.waits else 'is'} at {self.place}"


def stack_file(log: Path) -> Path:
    """Where the rank of this log writes its stack."""
    return log.with_suffix(".stack")


def answer_asks(log: Path) -> None:
    """Has this process write its threads' stacks whenever it is asked."""
    # Never closed: the handler, which runs while Python may be stuck in a C call, knows only the descriptor.
    faulthandler.register(ASK, file=stack_file(log).open("wb", buffering=0), all_threads=True)


def rank_positions(logs: Sequence[tuple[int, Path]]) -> list[RankPosition]:
    """Where the ranks stand that were asked just now.

    Args:
        logs: each rank with its log.
    """
    files = {rank: stack_file(log) for rank, log in logs}
    deadline = time.monotonic() + ANSWER_S
    while not all(map(_is_whole, files.values())) and time.monotonic() < deadline:
        time.sleep(0.05)
    return [_standing(rank, _read(file)) for rank, file in sorted(files.items())]


def stragglers(found: Sequence[RankPosition]) -> list[RankPosition]:
    """Those that the others wait for; empty where all do, or none."""
    busy = [one for one in found if not one.waits]
    return busy if len(busy) < len(found) else []


def _standing(rank: int, stacks: str) -> RankPosition:
    # Every thread's stack with its innermost call first; the main thread's is the last one.
    frames = list(_FRAME.finditer(stacks.rpartition("hread 0x")[2]))
    if not frames:
        return RankPosition(rank, "")
    own = next((n for n, frame in enumerate(frames) if "/hir_core/" in frame["file"]), None)
    here = frames[own or 0]
    waits = any(part in frame["file"] for frame in frames[: own or len(frames)] for part in COLLECTIVES)
    return RankPosition(rank, f"{Path(here['file']).name}:{here['line']} `{here['function']}`", waits)


def _is_whole(file: Path) -> bool:
    text = _read(file)
    return text.endswith("\n") and "hread 0x" in text


def _read(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except FileNotFoundError:
        return ""
