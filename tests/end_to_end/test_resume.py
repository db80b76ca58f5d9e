"""A run that is killed, at any moment and in any way, continues where it was and ends as if nothing had happened.

One run is stopped seven times and then left alone; beside it lies a run of the same config that nobody stopped. What
is recorded at each stop is judged below.
"""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from cli_run import (
    PATIENCE_S,
    TINY,
    TWO_RANKS,
    assert_same_content,
    command,
    digests,
    environment,
    hir,
    left_alive,
    manifest,
    name_server,
    write_config,
)

from hir_core.inspect.verify import check_run
from hir_core.store.store import Store
from hir_core.store.training_log import read_training_log

pytestmark = pytest.mark.slow

SOURCE = TINY["prompts"][0]
PROMPTS = SOURCE | {"size": 120, "test_share": 0.2, "dials": SOURCE["dials"] | {"words": 8}}
K = 4
SETTINGS: dict[str, Any] = {
    "launch": TWO_RANKS,
    "prompts": [PROMPTS],
    # Many steps for a kill to fall into, and small ones: Adam makes much of the last bit of a sum.
    "warm_start": TINY["warm_start"] | {"epochs": 30, "learning_rate": 0.001, "optimizer_state": "all"},
    "training": TINY["training"] | {"epochs": 4, "batch_size": 16, "optimizer_state": "all"},
    # Small batches, each written at once: a second of sampling, and something to lose at any moment of it.
    "sampling": {"k": K, "max_new_tokens": 12, "batch_tokens": 400, "write_every_s": 0},
}
RANKS, ONE_RANK = TWO_RANKS["processes"], "launch.processes=1"
OFTEN = "warm_start.checkpoint_every_s=0"
"""A checkpoint after every optimizer step."""


@dataclass
class Stop:
    """What was there after the run had been stopped."""

    code: int
    output: str
    left: list[str]
    """Processes that were alive 10 s later."""
    versions: dict[str, str]
    problems: list[dict[str, str]]
    """What is not sound of the visible versions."""
    checkpoints: list[int] = field(default_factory=list)
    """The optimizer steps of the checkpoints of both trainings."""
    trained: int = 0
    """The optimizer steps that the first training had reported."""
    parts: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Finished parts of samples that are not committed yet, by name: digest, and time of writing."""


class Story:
    """The run that is stopped again and again."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder, self.home, self.run_dir = folder, home, folder / "runs/tiny"
        self.stops: dict[str, Stop] = {}
        self.output = ""
        """Of the attempt that nobody stopped."""

    def stop(
        self,
        name: str,
        number: signal.Signals,
        is_time: Callable[[float], bool],
        *changes: str,
        rank: int | None = None,
    ) -> None:
        """Starts the run, sends its process group, or one of its ranks, a signal when it is time, and looks around."""
        log, started = self.folder / f"{name}.log", time.time()
        with log.open("wb") as output:
            process = subprocess.Popen(
                command("run", "tiny.yaml", *changes),
                cwd=self.folder,
                env=environment(self.home),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            for _ in range(1 if rank is None else 2):  # a launch that was lost is tried once more
                self._wait(process, log, partial(is_time, started))
                started = time.time()
                if rank is None:
                    os.killpg(process.pid, number)
                else:
                    os.kill(self._pid_of(rank), number)
            code = process.wait(PATIENCE_S)
        finally:
            process.kill()
        left, problems = left_alive(str(self.home)), check_run(Store(self.run_dir))["problems"]
        checkpoints = [step for iteration in (0, 1) for step in self.checkpoints(iteration)]
        trained = self._since(0.0, "launches/0000/progress.json")
        self.stops[name] = Stop(
            code,
            log.read_text(),
            left,
            digests(self.run_dir),
            problems,
            checkpoints,
            0 if trained is None else trained["done"],
            self._parts(),
        )

    def _wait(self, process: subprocess.Popen[bytes], log: Path, is_time: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_time():
            assert process.poll() is None, f"{log.stem}: the run ended before it could be stopped\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{log.stem}: the moment never came\n{log.read_text()}"
            time.sleep(0.01)

    def _pid_of(self, rank: int) -> int:
        words = self.run_dir.glob(f"launches/*/rank-{rank}.started.json")
        pid: int = json.loads(max(words, key=lambda path: path.stat().st_mtime).read_text())["pid"]
        return pid

    def _parts(self) -> dict[str, tuple[str, int]]:
        return parts_in(self.run_dir / "samples", ".draft-*/part-*.parquet")

    def is_training(self, iteration: int, started: float) -> bool:
        progress = self._since(started, f"launches/{iteration:04d}/progress.json")
        return progress is not None and progress["step"] == "train" and progress["done"] > 0

    def checkpoints(self, iteration: int) -> list[int]:
        """The optimizer steps of the checkpoints that are there."""
        paths = self.run_dir.glob(f"models/.draft-{iteration:04d}-*/.checkpoint-*")
        return [int(path.name.rpartition("-")[2]) for path in paths]

    def has_checkpoint(self, iteration: int) -> bool:
        return any(self.checkpoints(iteration))

    def has_started_ranks(self, iteration: int, started: float) -> bool:
        return self._since(started, f"launches/{iteration:04d}/rank-0.started.json") is not None

    def are_ranks_as_old_as(self, age_s: float, iteration: int, started: float) -> bool:
        words = list(self.run_dir.glob(f"launches/{iteration:04d}/rank-?.started.json"))
        try:
            starts = [path.stat().st_mtime for path in words if path.stat().st_mtime > started]
        except FileNotFoundError:  # set aside by the launch that begins
            return False
        return len(starts) == RANKS and time.time() > max(starts) + age_s

    def has_parts(self, count: int) -> bool:
        return len(self._parts()) >= count

    def has(self, stage: str, iteration: int) -> bool:
        return any(ref.iteration == iteration for ref in Store(self.run_dir).versions(stage))

    def _since(self, started: float, name: str) -> dict[str, Any] | None:
        """A file's content, if it was written in this attempt."""
        path = self.run_dir / name
        try:
            return json.loads(path.read_text()) if path.stat().st_mtime > started else None
        except FileNotFoundError:
            return None


def parts_in(folder: Path, pattern: str) -> dict[str, tuple[str, int]]:
    paths = folder.glob(pattern)
    return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in paths}


@pytest.fixture(scope="module")
def story(tmp_path_factory, server_for_killed_runs) -> Story:
    """Stopped by each signal while it has a private Prefect server, else while it reports to one that stays.

    Some of the work is done by one rank, which may make no difference.
    """
    folder, home = tmp_path_factory.mktemp("stopped"), tmp_path_factory.mktemp("prefect")
    write_config(folder, **SETTINGS)
    story = Story(folder, home)
    story.stop("killed in training", signal.SIGKILL, lambda _: story.has_checkpoint(0), ONE_RANK, OFTEN)
    profile = name_server(home, server_for_killed_runs)
    story.stop("killed in sampling", signal.SIGKILL, lambda _: story.has("models", 0) and story.has_parts(4))
    story.stop("killed between stages", signal.SIGKILL, lambda _: story.has("rewards", 1), ONE_RANK)
    profile.unlink()
    story.stop("told to end in training", signal.SIGTERM, lambda started: story.is_training(1, started))
    story.stop("Ctrl-C at the start", signal.SIGINT, lambda started: story.has_started_ranks(1, started))
    name_server(home, server_for_killed_runs)
    draw = random.Random(11)
    for rank in range(RANKS):  # between the start of python and the first steps of training
        moment = partial(story.are_ranks_as_old_as, draw.uniform(0, 4), 1)
        story.stop(f"rank {rank} killed at random", signal.SIGKILL, moment, rank=rank)
    story.output = hir(folder, story.home, "run", "tiny.yaml")
    return story


def test_no_process_is_left_10_s_after(story):
    assert {name: stop.left for name, stop in story.stops.items()} == {name: [] for name in story.stops}


def test_what_is_visible_after_a_stop_is_sound(story):
    assert {name: stop.problems for name, stop in story.stops.items()} == {name: [] for name in story.stops}


def test_a_killed_rank_is_named_and_its_launch_commits_nothing(story):
    before = story.stops["Ctrl-C at the start"].versions
    for rank in range(RANKS):
        stop = story.stops[f"rank {rank} killed at random"]
        assert (stop.code, stop.versions) == (1, before)
        told = rf"^error: rank {rank} was killed: .*the first rank to fail was {rank}"
        is_named = re.search(told, stop.output, re.MULTILINE)
        assert is_named, stop.output


def test_each_stop_came_where_it_was_meant_to(story):
    stages = {name: {path.split("-")[0] for path in stop.versions} for name, stop in story.stops.items()}
    seed = {"prompts/0000", "triples/0000"}
    first = seed | {"models/0000", "evaluations/0000"}
    scored = first | {"samples/0001", "rewards/0001"}
    assert stages["killed in training"] == seed
    assert seed | {"models/0000"} <= stages["killed in sampling"] <= first
    assert scored <= stages["killed between stages"] <= scored | {"triples/0001"}
    assert stages["told to end in training"] == stages["Ctrl-C at the start"] == scored | {"triples/0001"}


def test_what_was_committed_stays_to_the_byte(story):
    later = [*(stop.versions for stop in story.stops.values()), digests(story.run_dir)]
    for before, after in pairwise(later):
        assert before.items() <= after.items()


def test_an_interrupt_is_told_in_one_line_and_by_the_exit_code(story):
    stop = story.stops["Ctrl-C at the start"]
    assert stop.code == 130
    assert stop.output.splitlines()[-1].startswith("interrupted: nothing that was committed is lost")
    assert "Traceback" not in stop.output
    assert story.stops["told to end in training"].code in (-signal.SIGTERM, 128 + signal.SIGTERM)


def test_a_training_continues_at_its_newest_checkpoint(story):
    """Killed on one rank and continued on two; and asked to end, which saves one whatever the time."""
    killed, asked = story.stops["killed in training"], story.stops["told to end in training"]
    step = max(killed.checkpoints)
    assert killed.trained - step <= 1, "no more is lost than what was trained since the last checkpoint"
    assert f"\nmodel 0 continues at optimizer step {step} of 120 " in story.stops["killed in sampling"].output
    (step,) = asked.checkpoints
    told = rf"^model 1 was asked to end, and stopped after optimizer step {step} of (\d+): its checkpoint is kept$"
    told = re.search(told, asked.output, re.MULTILINE)
    assert told, asked.output
    assert f"\nmodel 1 continues at optimizer step {step} of {told[1]} " in story.output
    rank_0 = story.stops["rank 0 killed at random"]
    assert rank_0.checkpoints == [step]


def test_parts_that_were_finished_before_a_kill_are_kept_and_no_sample_is_drawn_twice(story):
    finished = story.stops["killed in sampling"].parts
    samples = Store(story.run_dir).resolve("samples@1").path
    assert len(finished) >= 4
    assert finished.items() <= parts_in(samples, "part-*.parquet").items()
    ids = pl.read_parquet(samples / "part-*.parquet", columns=["sample_id"])["sample_id"]
    prompts = pl.read_parquet(Store(story.run_dir).resolve("prompts@0").path / "part-*.parquet")
    assert ids.n_unique() == len(ids) == K * prompts.filter(split="train").height
    kept = sum(pl.read_parquet(samples / name).height for name in finished)
    assert manifest(story.run_dir, "samples@1")["metrics"]["rows"] == len(ids) - kept > 0


def test_the_end_is_that_of_a_run_that_nobody_stopped(story, tmp_path, prefect_home):
    write_config(tmp_path, **SETTINGS | {"launch": TWO_RANKS | {"resident": True}})
    hir(tmp_path, prefect_home, "run", "tiny.yaml")
    assert_same_content(story.run_dir, tmp_path / "runs/tiny")
    for iteration in (0, 1):
        ours, theirs = (
            manifest(folder, f"models@{iteration}")["metrics"] for folder in (story.run_dir, tmp_path / "runs/tiny")
        )
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
        assert [ours[name] for name in ("steps", "tokens")] == [theirs[name] for name in ("steps", "tokens")]
        ours, theirs = (
            read_training_log(store, store.resolve(f"models@{iteration}"))
            for store in (Store(story.run_dir), Store(tmp_path / "runs/tiny"))
        )
        assert ours["step"].to_list() == theirs["step"].to_list() == [*range(1, theirs.height + 1)]
        assert ours["loss"].to_list() == pytest.approx(theirs["loss"].to_list(), abs=1e-3)


def test_nothing_half_done_is_left_at_the_end(story):
    hidden = [path.name for path in story.run_dir.rglob(".*") if path.name != ".lock"]
    assert hidden == []
