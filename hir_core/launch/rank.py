"""A rank's process: its log, its end, and the small files in which it reports to the driver.

`with rank_process(job_dir) as rank:` sends everything that the process prints to the rank's own log, ends the process
when its launcher ends, and writes down how it ended. All files are in the job's folder. JSON files are written under
another name and then renamed, so that a reader never sees half of one:

    logs/rank-N.log      output of rank N, file descriptors 1 and 2, that of C++ code included
    logs/rank-N.stack    its stack, at a signal: see `stack_traces`
    rank-N.started.json  a `RankReport` of rank N at its start; at its end one of these three:
    rank-N.ended.json
    rank-N.failed.json   with the exception
    rank-N.died.json     by its parent, where it could not report its end: see `exit_status`
    progress.json        `Progress`, by rank 0
    done-<n>.json        the outputs of step n are complete: its result, by rank 0; see `job_spec`
    stop                 by the supervisor: ranks on other hosts, which no signal reaches, end when it appears

Reads the launcher's `RANK`, `WORLD_SIZE` and `LOCAL_RANK`, and the time limit of collectives. Imports nothing heavy.
The work itself is in `worker`; `monitor` reads these files, and `failures` decides what they mean.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hir_core.errors import HirError
from hir_core.launch.exit_status import Ending, continue_in_child
from hir_core.launch.stack_traces import write_recent_stacks, write_stack_on_signal
from hir_core.progress import Progress
from hir_core.store.plain_files import open_plain, write_whole
from hir_core.supervisor import SUPERVISOR, die_with_parent, parent_of

STOP_POLL_S = 1.0
COLLECTIVE_TIMEOUT = "HIR_COLLECTIVE_TIMEOUT_S"
"""The environment variable in which ranks find the setting `launch.collective_timeout_s`."""

Event = Literal["started", "ended", "failed", "died"]
_LAST_EVENTS: tuple[Event, ...] = ("ended", "failed", "died")


@dataclass(frozen=True)
class RankReport:
    """What a rank reports about itself when it starts, ends or fails, or its parent when it has died."""

    rank: int
    pid: int
    host: str
    time: float
    """Seconds since the epoch."""
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
    """One rank of a launch, as the code that runs in it uses it."""

    job_dir: Path
    rank: int
    world_size: int
    local_rank: int
    collective_timeout_s: float | None = None
    """How long it may wait for the others in a collective; None: as long as torch lets it."""

    def progress(self, progress: Progress) -> None:
        """Reports how far the step has come; does nothing on ranks other than 0."""
        if self.rank == 0:
            _write_json(self.job_dir / "progress.json", dataclasses.asdict(progress))

    def step_done(self, step: int, result: Mapping[str, object] | None = None) -> None:
        """Reports that every rank's outputs of the step are complete, after a barrier; does nothing on other ranks."""
        if self.rank == 0:
            _write_json(done_file(self.job_dir, step), dict(result or {}))

    def report(self, event: Event, error: BaseException | None = None) -> None:
        """Reports that this rank has started, ended or failed."""
        described = {"type": type(error).__name__, "message": str(error)} if error else {}
        self._write_report(event, has_lost_rank=event == "failed" and self._has_lost_rank(), **described)

    def report_death(self, ending: Ending) -> None:
        """Reports, from this rank's parent, how its process ended, unless it has done so itself."""
        if not has_reported_end(self.job_dir, self.rank):
            self._write_report("died", has_lost_rank=self._has_lost_rank(), **dataclasses.asdict(ending))

    def _write_report(self, event: Event, **facts: Any) -> None:
        # The time is taken last: whoever is not yet seen as gone by this rank then reports a later one.
        report = RankReport(rank=self.rank, pid=os.getpid(), host=socket.gethostname(), time=time.time(), **facts)
        _write_json(report_file(self.job_dir, self.rank, event), dataclasses.asdict(report))

    def _has_lost_rank(self) -> bool:
        """Whether another rank of this machine has ended without a report of it yet."""
        others = read_reports(self.job_dir, "started", {self.rank})
        gone = [other for other in others if other.host == socket.gethostname() and not _is_alive(other.pid)]
        return not all(has_reported_end(self.job_dir, other.rank) for other in gone)


def _is_alive(pid: int) -> bool:
    """Whether a process has not ended; one that its parent has not collected yet has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] != b"Z"


@contextmanager
def rank_process(job_dir: Path) -> Iterator[Rank]:
    """Makes this process a rank of the job: with its own log, ended with its launcher, its failure or death reported.

    The block runs in a child of this process; see `exit_status`.

    Enter it before importing anything heavy, so that what the imports print goes to the log too.

    Raises:
        SystemExit: any exception left the block; the traceback is in the rank's log, the exception in its report.
    """
    number, world_size, local_rank = (
        int(os.environ.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
    )
    limit = os.environ.get(COLLECTIVE_TIMEOUT)
    rank = Rank(job_dir, number, world_size, local_rank, None if limit is None else float(limit))
    log = rank_log(job_dir, number)
    _redirect_output(log)
    write_stack_on_signal(log)
    _die_with_launcher()
    continue_in_child(rank.report_death)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a request from outside, as SIGTERM is, and no error
    if rank.collective_timeout_s is not None:
        write_recent_stacks(log, rank.collective_timeout_s)
    if int(os.environ.get("CROSS_SIZE", "1")) > 1:
        threading.Thread(target=_die_at_stop_file, args=(job_dir / "stop",), daemon=True).start()
    rank.report("started")
    try:
        yield rank
    except BaseException as error:  # noqa: BLE001 the process boundary: the driver reads the failure from a file
        traceback.print_exception(error)
        rank.report("failed", error)
        raise SystemExit(error.exit_code if isinstance(error, HirError) else 1) from None
    rank.report("ended")


def _redirect_output(log: Path) -> None:
    """Sends everything that this process prints, C++ code included, to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open_plain(log, "a") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()  # a segmentation fault leaves its stack in the log


def _die_with_launcher() -> None:
    """Has the kernel kill this process when its launcher ends; kills it now where the supervisor is gone already."""
    die_with_parent()
    supervisor = os.environ.get(SUPERVISOR)  # not set on other hosts
    if supervisor is None:
        return
    ancestor = os.getppid()
    while ancestor not in (0, int(supervisor)):
        ancestor = parent_of(ancestor)
    if ancestor == 0:  # launcher and supervisor were killed while this process started
        os._exit(128 + signal.SIGKILL)


def _die_at_stop_file(stop: Path) -> None:
    while not stop.exists():
        time.sleep(STOP_POLL_S)
    os._exit(128 + signal.SIGTERM)  # the main thread may be inside a collective that never returns


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    data = json.dumps(content).encode()
    write_whole(path, lambda file: file.write(data), is_synced=False)  # a launch does not survive a power cut either
