"""A rank of a launch at one of its jobs, and the small files in which it reports to the driver.

All files are in the job's folder. JSON files are written under another name and then renamed, so that a reader never
sees half of one:

    logs/rank-N.log      output of rank N, file descriptors 1 and 2, that of C++ code included
    logs/rank-N.stack    its stack, at a signal: see `stack_traces`
    rank-N.started.json  a `RankReport` of rank N as it begins the job; at the end one of these three:
    rank-N.ended.json
    rank-N.failed.json   with the exception
    rank-N.died.json     by its parent, where it could not report its end: see `exit_status`
    progress.json        `Progress`, by rank 0
    done-<n>.json        the outputs of step n are complete: its result, by rank 0; see `job_spec`

Imports nothing heavy. What makes a process a rank is in `rank_process`, the work itself in `worker`; `monitor` reads
these files, and `failures` decides what they mean.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hir_core.launch.exit_status import Ending
from hir_core.progress import Progress
from hir_core.store.plain_files import write_whole

Event = Literal["started", "ended", "failed", "died"]
_LAST_EVENTS: tuple[Event, ...] = ("ended", "failed", "died")


@dataclass(frozen=True)
class RankReport:
    """What a rank reports about itself as it begins, ends or fails a job, or its parent when it has died."""

    rank: int
    pid: int
    host: str
    time: float
    """Seconds since the epoch, by the clock of its host."""
    node: int = 0
    """Number of its host in the launch."""
    type: str = ""
    """Class of the exception that ended it; empty where none did."""
    message: str = ""
    has_lost_rank: bool = False
    """Whether another rank had ended without a report when this one failed or died: that may be the cause."""
    status: int = 0
    """Of a rank that died: its exit code, or minus the number of the signal that ended it."""
    was_asked: bool = False
    """Of a rank that died: whether it had been asked to end."""
    memory_kills: int | None = None
    """Of a rank that died: how many processes the kernel killed meanwhile because memory ran out; None: unknown."""


def rank_log(job_dir: Path, rank: int) -> Path:
    """The log of one rank."""
    return job_dir / "logs" / f"rank-{rank}.log"


def done_file(job_dir: Path, step: int) -> Path:
    """The file that holds a step's result; it exists once the step's outputs are complete."""
    return job_dir / f"done-{step}.json"


def report_file(job_dir: Path, rank: int, event: Event) -> Path:
    """The file that a rank writes when it starts, ends or fails, or its parent when it has died."""
    return job_dir / f"rank-{rank}.{event}.json"


def has_reported_end(job_dir: Path, rank: int) -> bool:
    """Whether there is a report of how the rank ended."""
    return any(report_file(job_dir, rank, event).exists() for event in _LAST_EVENTS)


def read_progress(job_dir: Path) -> Progress | None:
    """The latest progress report of rank 0, or None before the first."""
    try:
        return Progress(**json.loads((job_dir / "progress.json").read_text()))
    except FileNotFoundError:
        return None


def read_reports(job_dir: Path, event: Event, known: Container[int] = ()) -> list[RankReport]:
    """The ranks' reports of the event, in order of rank.

    Args:
        known: ranks to leave out, because their report has been read before.
    """
    ranks = sorted(int(path.name.split(".")[0].removeprefix("rank-")) for path in job_dir.glob(f"rank-*.{event}.json"))
    return [
        RankReport(**json.loads(report_file(job_dir, rank, event).read_text())) for rank in ranks if rank not in known
    ]


@dataclass(frozen=True)
class Rank:
    """One rank of a launch at one job, as the code that runs in it uses it."""

    job_dir: Path
    rank: int
    world_size: int
    local_rank: int
    collective_timeout_s: float | None = None
    """How long it may wait for the others in a collective; None: as long as torch lets it."""
    stays: bool = False
    """Whether it waits for another job after this one."""
    node: int = 0
    """Number of its host in the launch."""

    def progress(self, progress: Progress) -> None:
        """Reports how far the step has come; does nothing on ranks other than 0."""
        if self.rank == 0:
            _write_json(self.job_dir / "progress.json", dataclasses.asdict(progress))

    def step_done(self, step: int, result: Mapping[str, object] | None = None) -> None:
        """Reports that every rank's outputs of the step are complete, after a barrier; does nothing on other ranks."""
        if self.rank == 0:
            _write_json(done_file(self.job_dir, step), dict(result or {}))

    def report(self, event: Event, error: BaseException | None = None) -> None:
        """Reports that this rank has started, ended or failed the job."""
        described = {"type": type(error).__name__, "message": str(error)} if error else {}
        self._write_report(event, has_lost_rank=event == "failed" and self._has_lost_rank(), **described)

    def report_death(self, ending: Ending) -> None:
        """Reports, from this rank's parent, how its process ended, unless it has done so itself."""
        if not has_reported_end(self.job_dir, self.rank):
            self._write_report("died", has_lost_rank=self._has_lost_rank(), **dataclasses.asdict(ending))

    def _write_report(self, event: Event, **facts: Any) -> None:
        # The time is taken last: whoever is not yet seen as gone by this rank then reports a later one.
        host, pid = socket.gethostname(), os.getpid()
        report = RankReport(rank=self.rank, node=self.node, pid=pid, host=host, time=time.time(), **facts)
        _write_json(report_file(self.job_dir, self.rank, event), dataclasses.asdict(report))

    def _has_lost_rank(self) -> bool:
        """Whether another rank of this machine has ended without a report of it yet."""
        others = read_reports(self.job_dir, "started", {self.rank})
        gone = [other for other in others if other.node == self.node and not _is_alive(other.pid)]
        return not all(has_reported_end(self.job_dir, other.rank) for other in gone)


def _is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that its parent has not collected yet has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    data = json.dumps(content).encode()
    write_whole(path, lambda file: file.write(data), is_synced=False)  # a launch does not survive a power cut either
