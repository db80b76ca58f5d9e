"""A run of `hir run` that is killed at random moments inside its stages, and started again after each.

Where the run stands is seen from outside, in its files: a stage on the driver has begun once its lock is signed anew
and its draft is there; a step of a launch once the step before it is done, or the ranks say that they are at it. Each
lasts until its version is visible. A blow that comes after that is a miss: it was no kill inside the stage.
"""

import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl
from cli_run import GONE_WITHIN_S, command, digests, environment, left_alive, processes_with

from hir_core.inspect.verify import check_run
from hir_core.store.store import Store
from hir_core.supervisor import parent_of

ORDER = ["prompts@0", "triples@0", "models@0", "evaluations@0", "samples@1"]
ORDER += ["rewards@1", "triples@1", "models@1", "evaluations@1"]
"""What a run of one iteration makes, in this order."""
STAGES = tuple(dict.fromkeys(visit.split("@")[0] for visit in ORDER))
KEEP_PARTS = ("evaluations", "samples")
"""Stages of which the next attempt does only what a killed one has not finished."""
STEPS = {"models": ("train", "save"), "evaluations": ("evaluate",), "samples": ("sample",)}
"""What the ranks say that they are at, by stage; the other stages are made on the driver."""
VICTIMS = ("flow", "supervisor", "launcher", "rank 0", "rank 1")
USUAL_OF = 5
"""The latest durations, so many of them, tell the usual one: the machine may be busier than before."""
PATIENCE_S = 1800
"""A long campaign may have to share its cores; a short one is ended by the time limit of all tests."""
DRIVER_POLL_S, LAUNCH_POLL_S = 0.001, 0.01
"""How often to look: a stage on the driver is over within a tenth of a second."""
Duration = tuple[float, float]
"""Of a visit: until the ranks were done, and until its version was visible."""


@dataclass
class Blow:
    """One SIGKILL, and what was there after it."""

    visit: str
    victim: str
    delay_s: float
    """Since the stage had begun."""
    is_kill: bool = False
    """Whether the stage was still going on; else it is a miss."""
    gone_s: float = 0.0
    """How long it took until no process was left of the launch, or of the run where the flow had ended."""
    left: list[str] = field(default_factory=list)
    """Processes that were alive 10 s later."""
    bad: list[dict[str, str]] = field(default_factory=list)
    """What is not sound of the visible versions, or not what it was before."""

    def __str__(self) -> str:
        came = "kill" if self.is_kill else "miss"
        wrong = f" · LEFT {self.left}" * bool(self.left) + f" · BAD {self.bad}" * bool(self.bad)
        return (
            f"{self.visit:13} {self.victim:10} {self.delay_s:6.3f} s in · {came} · gone in {self.gone_s:.1f} s{wrong}"
        )


class Attempt:
    """The command, started once."""

    def __init__(self, folder: Path, home: Path, log: Path) -> None:
        self.log = log
        self.since = time.time()
        """Signs older than this are of an earlier attempt, or of a launch that was lost."""
        self.job: Path | None = None
        """`job.json` of the launch in which the last blow came, if there was one."""
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command("run", "tiny.yaml"),
                cwd=folder,
                env=environment(home),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def is_hindered(self) -> bool:
        """Whether a blow has hit the flow, or a launch that it has not begun anew since."""
        return self.job is not None and modified(self.job) < self.since

    def assert_ended_as_it_may(self) -> None:
        """It has done all, or was killed, or tells in a message that its launch was."""
        code, said = self.process.returncode, self.log.read_text()
        told = f"{self.log.stem} ended with {code}\n{said}"
        assert code in ((0, 1, -signal.SIGKILL) if self.is_hindered else (0,)), told
        assert "Traceback" not in said, told


class KilledRun:
    """One run directory.

    Args:
        folder: where `tiny.yaml` lies.
        home: Prefect's, by which the run's processes are found.
        usual: durations by visit; what is seen of this run is added.
        draw: chooses victims and moments.
        wants: whether this visit is to be struck (again).
        tell: is called with each blow.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        usual: dict[str, list[Duration]],
        draw: random.Random,
        wants: Callable[[str], bool] = lambda _: False,
        tell: Callable[[Blow], None] = lambda _: None,
    ) -> None:
        self.folder, self.home, self.run_dir = folder, home, folder / "runs/tiny"
        self._usual, self._draw, self._wants, self._tell = usual, draw, wants, tell
        self._position = 0
        self._begun: dict[str, float] = {}
        """When visits were seen to begin in this attempt."""
        self._signed: int | None = None
        """When the lock of the present visit's stage had last been signed before it began."""
        self._shortened = set[str]()
        """Visits of which a killed launch has left finished parts: they last less than usual."""
        self._committed: dict[str, str] = {}

    def go_to_the_end(self) -> None:
        """Starts the command until it ends well."""
        for number in itertools.count():
            attempt = Attempt(self.folder, self.home, self.folder / f"attempt-{number}.log")
            try:
                self._follow(attempt)
                code = attempt.process.wait(PATIENCE_S)
            finally:
                attempt.process.kill()
            attempt.assert_ended_as_it_may()
            if code == 0:
                return

    # --- where it stands ---------------------------------------------------------------------------------------------

    def _come_to(self) -> list[str]:
        """What may be going on now: the first that is not there yet, and what the same launch makes after it."""
        while self._position < len(ORDER) and self._committed_at(visit := ORDER[self._position]):
            self._note_duration(visit)
            self._position += 1
            self._signed = self._signature()
        first, *later = ORDER[self._position :] or [None]
        if first is None:
            return []
        same = itertools.takewhile(lambda visit: is_step(visit) and self._job_dir(visit) == self._job_dir(first), later)
        return [first, *same] if is_step(first) else [first]

    def _forget(self) -> None:
        """What had begun has ended, and begins anew."""
        self._begun, self._signed = {}, self._signature()

    def _note_duration(self, visit: str) -> None:
        """Notes how long the visit lasted that has just ended: until its ranks were done, and until its commit."""
        begun = self._begun.get(visit)
        if begun is None or visit in self._shortened:
            return
        committed = self._committed_at(visit)
        done = self._done_at(visit) if is_step(visit) else committed
        if done > begun:  # else the traces of the launch have been set aside
            self._usual.setdefault(visit, []).append((done - begun, committed - begun))

    def _done_at(self, visit: str) -> float:
        """When the ranks were done with it; long ago where nothing says so."""
        job_dir = self._job_dir(visit)
        steps = steps_of(job_dir)
        last = STEPS[stage_of(visit)][-1]
        return modified(job_dir / f"done-{steps.index(last)}.json") if last in steps else 0.0

    def _committed_at(self, visit: str) -> float:
        """When a version became visible; 0 where it is not."""
        # A folder's ctime is when it was renamed.
        return max((path.stat().st_ctime for path in self._versions(visit)), default=0.0)

    def _versions(self, visit: str) -> list[Path]:
        stage, iteration = visit.split("@")
        return list((self.run_dir / stage).glob(f"{int(iteration):04d}-*"))

    def _signature(self) -> int | None:
        if self._position == len(ORDER):
            return None
        lock = self.run_dir / stage_of(ORDER[self._position]) / ".lock"
        return lock.stat().st_mtime_ns if lock.exists() else None

    def _beginning(self, visit: str, attempt: Attempt) -> float | None:
        """When a visit began; None where it has not yet."""
        if is_step(visit):
            return self._beginning_of_step(visit, attempt)
        drafts = [name for name in names(self.run_dir / stage_of(visit)) if name.startswith((".draft-", ".commit-"))]
        return time.time() if drafts and self._signature() != self._signed else None

    def _job_dir(self, visit: str) -> Path:
        stage, iteration = visit.split("@")
        return self.run_dir / "launches" / f"{int(iteration) - (stage == 'samples'):04d}"

    def _beginning_of_step(self, visit: str, attempt: Attempt) -> float | None:
        job_dir, names = self._job_dir(visit), STEPS[stage_of(visit)]
        asked = modified(job_dir / "job.json")
        if asked < attempt.since:
            return None
        # What is older than the job was left by an earlier launch, and is about to be set aside.
        steps = steps_of(job_dir)
        first = min(steps.index(step) for step in names if step in steps)
        if first > 0 and (done := modified(job_dir / f"done-{first - 1}.json")) > asked:
            return done
        is_told = modified(job_dir / "progress.json") > asked and read(job_dir / "progress.json").get("step") in names
        return time.time() if is_told else None

    # --- the blow ----------------------------------------------------------------------------------------------------

    def _follow(self, attempt: Attempt) -> None:
        """Strikes where it is wanted, until all is there or the command has ended."""
        self._forget()
        ends = time.monotonic() + PATIENCE_S
        while attempt.is_running and (visits := self._come_to()):
            if begun := self._new(visits, attempt):
                self._begun |= begun
                wanted = [visit for visit in begun if self._wants(visit)]
                if wanted:
                    self._strike(wanted[0], attempt)
                    ends = time.monotonic() + PATIENCE_S
            assert time.monotonic() < ends, f"{visits[0]} never came\n{attempt.log.read_text()}"
            time.sleep(LAUNCH_POLL_S if is_step(visits[0]) else DRIVER_POLL_S)

    def _new(self, visits: list[str], attempt: Attempt) -> dict[str, float]:
        """Which of these visits have begun since this was asked last, and when."""
        found = {visit: self._beginning(visit, attempt) for visit in visits if visit not in self._begun}
        return {visit: when for visit, when in found.items() if when is not None}

    def _strike(self, visit: str, attempt: Attempt) -> None:
        begun, victim = self._begun[visit], self._draw.choice(VICTIMS) if is_step(visit) else "flow"
        blow = Blow(visit, victim, self._draw.uniform(0, self._expected(visit, victim)))
        pid = self._pid_of(blow.victim, visit, attempt)
        launch = self._launch() if blow.victim != "flow" else []
        time.sleep(max(0.0, begun + blow.delay_s - time.time()))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended by itself, and the stage with it
            return
        struck = attempt.since = time.time()
        attempt.job = self._job_dir(visit) / "job.json"
        blow.delay_s = struck - begun
        if blow.victim == "flow":
            attempt.process.wait(GONE_WITHIN_S)
            blow.left = left_alive(str(self.home))
        else:
            blow.left = left_of(launch)
        blow.gone_s = time.time() - struck
        self._wait_for_what_follows(visit, attempt)
        self._look_around(blow, attempt)
        self._tell(blow)

    def _expected(self, visit: str, victim: str) -> float:
        """How long the visit lasts, as far as the victim can hinder it."""
        latest = self._usual[visit][-USUAL_OF:]
        # The driver needs no rank for what is left once they are done.
        usual = median(total if victim == "flow" else ranks for ranks, total in latest)
        return usual * (1 - self._finished(visit)) if visit in self._shortened else usual

    def _finished(self, visit: str) -> float:
        """The share of a step that finished parts hold; a prompt is a part."""
        name = STEPS[stage_of(visit)][0]
        asked = pl.read_parquet(self._job_dir(visit) / f"requests-{name}.parquet").height
        return len([*(self.run_dir / stage_of(visit)).glob(".draft-*/**/part-*.parquet")]) / asked

    def _wait_for_what_follows(self, visit: str, attempt: Attempt) -> None:
        """Waits until the command has ended, or has begun the launch anew, or was not hindered at all."""
        ends = time.monotonic() + PATIENCE_S
        while attempt.is_running and attempt.is_hindered and not self._committed_at(visit):
            assert time.monotonic() < ends, f"{visit}: nothing follows\n{attempt.log.read_text()}"
            time.sleep(0.05)

    def _look_around(self, blow: Blow, attempt: Attempt) -> None:
        """Judges what is left and what is visible, now that the blow has had its effect."""
        if not attempt.is_running:
            blow.left += left_alive(str(self.home))
        blow.is_kill = not self._committed_at(blow.visit)
        blow.bad = check_run(Store(self.run_dir))["problems"]
        there = digests(self.run_dir)
        changed = [name for name, digest in self._committed.items() if there.get(name) != digest]
        blow.bad += [{"version": name, "problem": "it is not what it was"} for name in changed]
        self._committed = there
        if not blow.is_kill:
            self._note_duration(blow.visit)
        if stage_of(blow.visit) in KEEP_PARTS:
            self._shortened.add(blow.visit)
        if not blow.is_kill and not is_step(blow.visit) and self._wants(blow.visit):
            self._remove_last(blow.visit)
        self._forget()

    def _remove_last(self, visit: str) -> None:
        """Deletes a version that a blow came too late for, and that costs a moment to make again: for another blow."""
        position = ORDER.index(visit)
        if self._committed_at(ORDER[position + 1]):  # made from it
            return
        for path in self._versions(visit):
            shutil.rmtree(path)
        self._committed, self._position = digests(self.run_dir), position

    def _launch(self) -> list[str]:
        """The processes of the launch that goes on now, its supervisor included."""
        return [line for line in processes_with(str(self.home)) if str(self.run_dir / "launches") in line]

    def _pid_of(self, victim: str, visit: str, attempt: Attempt) -> int:
        if victim == "flow":
            return attempt.process.pid
        rank = victim.removeprefix("rank ") if victim.startswith("rank") else "0"
        pid = int(read(self._job_dir(visit) / f"rank-{rank}.started.json")["pid"])
        for _ in range({"launcher": 2, "supervisor": 3}.get(victim, 0)):
            pid = parent_of(pid)
        return pid


def stage_of(visit: str) -> str:
    return visit.split("@")[0]


def is_step(visit: str) -> bool:
    """Whether it is made in a launch."""
    return stage_of(visit) in STEPS


def steps_of(job_dir: Path) -> list[str]:
    return [step.get("name") or step["type"] for step in read(job_dir / "job.json").get("steps", [])]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def modified(path: Path) -> float:
    """When a file was written last; long ago where there is none."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def read(path: Path) -> dict[str, Any]:
    """A small file of a launch; nothing where the next launch has just set it aside."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return found


def left_of(processes: list[str]) -> list[str]:
    """Which of these processes, as `processes_with` lists them, are alive when all of them should be gone."""
    ends = time.monotonic() + GONE_WITHIN_S
    while (left := [line for line in processes if is_alive(line.split(":")[0])]) and time.monotonic() < ends:
        time.sleep(0.05)
    return left


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
