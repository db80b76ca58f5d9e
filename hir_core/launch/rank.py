"""What a rank does around its work, and the small files through which it talks to the driver.

`with rank_process(job_dir) as rank:` sends everything the process prints to the rank's own log, ties its life to the
launcher's, and writes down how it ended. Every file lies in the job's folder and is written under another name, then
renamed, so a reader never sees half of one:

    logs/rank-N.log      output of rank N, file descriptors 1 and 2, C++ included
    logs/rank-N.stack    where it stands, when asked; see `stacks`
    rank-N.started.json  `RankReport`s of rank N: who it is; later one of
    rank-N.ended.json
    rank-N.failed.json   with the exception
    progress.json        `Progress`, by rank 0
    done-<n>.json        the outputs of step n are complete, by rank 0
    stop                 by the supervisor: ranks on other hosts, which no signal reaches, end when they see it

Reads the launcher's `RANK`, `WORLD_SIZE` and `LOCAL_RANK`. Imports nothing heavy; leaves the work to `job` and the
judgement to `launch`.
"""

from __future__ import annotations

import ctypes
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
from typing import Any, Literal, NoReturn

from hir_core.errors import HirError
from hir_core.launch.stack_traces import answer_asks
from hir_core.progress import Progress
from hir_core.supervisor import SUPERVISOR, parent_of

STOP_POLL_S = 1.0
PR_SET_PDEATHSIG = 1


Event = Literal["started", "ended", "failed"]


@dataclass(frozen=True)
class RankReport:
    """What a rank said about itself when it started, ended or failed."""

    rank: int
    pid: int
    host: str
    time: float
    """Seconds since the epoch."""
    type: str = ""
    """Class of the exception that ended it."""
    message: str = ""


def rank_log(job_dir: Path, rank: int) -> Path:
    """The log of one rank."""
    return job_dir / "logs" / f"rank-{rank}.log"


def done_file(job_dir: Path, step: int) -> Path:
    """The file that says that a step's outputs are complete."""
    return job_dir / f"done-{step}.json"


def read_progress(job_dir: Path) -> Progress | None:
    """What rank 0 last reported, or None where it has not yet."""
    try:
        return Progress(**json.loads((job_dir / "progress.json").read_text()))
    except FileNotFoundError:
        return None


def report_file(job_dir: Path, rank: int, event: Event) -> Path:
    """The file that a rank writes when it starts, ends or fails."""
    return job_dir / f"rank-{rank}.{event}.json"


def read_reports(job_dir: Path, event: Event, known: Container[int] = ()) -> list[RankReport]:
    """What the ranks of which the event is not known yet said at it, in order of rank."""
    ranks = sorted(int(path.name.split(".")[0].removeprefix("rank-")) for path in job_dir.glob(f"rank-*.{event}.json"))
    return [
        RankReport(**json.loads(report_file(job_dir, rank, event).read_text())) for rank in ranks if rank not in known
    ]


@dataclass(frozen=True)
class Rank:
    """One process of the launch, as the work inside it sees it."""

    job_dir: Path
    rank: int
    world_size: int
    local_rank: int

    def progress(self, progress: Progress) -> None:
        """Reports how far the step has come; only rank 0's word is written."""
        if self.rank == 0:
            _write_json(self.job_dir / "progress.json", dataclasses.asdict(progress))

    def step_done(self, step: int, facts: Mapping[str, Any] | None = None) -> None:
        """Says that every rank's outputs of the step are complete; call it after a barrier, only rank 0 writes."""
        if self.rank == 0:
            _write_json(done_file(self.job_dir, step), dict(facts or {}))

    def say(self, event: Event, error: BaseException | None = None) -> None:
        """Tells the driver that this rank started, ended or failed."""
        word = RankReport(
            rank=self.rank,
            pid=os.getpid(),
            host=socket.gethostname(),
            time=time.time(),
            type=type(error).__name__ if error else "",
            message=str(error) if error else "",
        )
        _write_json(report_file(self.job_dir, self.rank, event), dataclasses.asdict(word))


@contextmanager
def rank_process(job_dir: Path) -> Iterator[Rank]:
    """Makes this process a rank of the job: own log, dies with its launcher, failures written for the driver.

    Enter it before importing anything heavy, so that what the imports print lands in the log too.

    Raises:
        SystemExit: the work raised anything at all; the traceback is in the rank's log, the exception in a file.
    """
    rank = Rank(job_dir, *(int(os.environ.get(name, unset)) for name, unset in _LAUNCHER_ENV))
    _redirect_output(rank_log(job_dir, rank.rank))
    answer_asks(rank_log(job_dir, rank.rank))
    _die_with_parent()
    if int(os.environ.get("CROSS_SIZE", "1")) > 1:
        threading.Thread(target=_die_with_launch, args=(job_dir / "stop",), daemon=True).start()
    rank.say("started")
    try:
        yield rank
    except BaseException as error:  # noqa: BLE001 the process boundary: the driver is told through a file
        _fail(rank, error)
    rank.say("ended")


_LAUNCHER_ENV = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))


def _fail(rank: Rank, error: BaseException) -> NoReturn:
    traceback.print_exception(error)
    rank.say("failed", error)
    raise SystemExit(error.exit_code if isinstance(error, HirError) else 1)


def _redirect_output(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    faulthandler.enable()  # a segmentation fault leaves its stack in the log


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    supervisor = os.environ.get(SUPERVISOR)  # unset on other hosts
    if supervisor is not None and not _is_below(int(supervisor)):  # both were killed while this process started
        os._exit(128 + signal.SIGKILL)


def _is_below(ancestor: int) -> bool:
    pid = os.getppid()
    while pid not in (0, ancestor):
        pid = parent_of(pid)
    return pid == ancestor


def _die_with_launch(stop: Path) -> None:
    while not stop.exists():
        time.sleep(STOP_POLL_S)
    os._exit(128 + signal.SIGTERM)  # the main thread may be inside a collective that never returns


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(content))
    draft.replace(path)
