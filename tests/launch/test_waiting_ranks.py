"""Ranks that stay do job after job, are waited for by nobody while they wait, and are replaced where they are lost.

The jobs are lines of the test, done by two ranks of the ten-line launcher; jobs of models are in `end_to_end`.
"""

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_run import PATIENCE_S
from launched_work import PLAIN_LAUNCHER, processes_of, wait_until

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError, JobFailed
from hir_core.launch import waiting_ranks
from hir_core.launch.launcher import check_launch, launch
from hir_core.launch.monitor import launcher_log
from hir_core.launch.ports import free_port
from hir_core.launch.rank import read_reports
from hir_core.launch.waiting_ranks import WaitingRanks
from hir_core.supervisor import parent_of

CHECKOUT = Path(__file__).resolve().parents[2]
WORK = """
import ctypes, os, signal, sys, time
from pathlib import Path
from hir_core.errors import ConfigError
from hir_core.launch.rank_process import RankProcess
from hir_core.progress import Progress

process = RankProcess(Path(sys.argv[1]))
while True:
    with process.job() as rank:
        print("rank", rank.rank, "at", rank.job_dir.name, flush=True)
        exec((rank.job_dir / "work.txt").read_text())
        rank.step_done(0, {"job": rank.job_dir.name})
    if not process.wait_for_next_job():
        break
"""
DRIVER = """
import sys, time
from pathlib import Path
from hir_core.config import LaunchConfig
from hir_core.launch import launcher
from hir_core.launch.waiting_ranks import WaitingRanks

launcher.launcher_command = lambda job_dir, *_: [
    sys.executable, "{folder}/plain_launcher.py", "2", "work", str(job_dir)
]
waiting = WaitingRanks()
for name in {jobs}:
    launcher.launch(Path("{folder}", name), LaunchConfig(processes=2, resident=True), module="work", waiting=waiting)
Path("{folder}/waits").touch()
time.sleep(120)
"""
DIE = "if rank.rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a job of one step, in which each rank runs the given lines."""
    (tmp_path / "work.py").write_text(WORK)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(name: str, lines: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "work.txt").write_text(lines)
        (folder / "job.json").write_text(json.dumps({"steps": [{"type": "train"}]}))
        return folder

    return write


@pytest.fixture
def waiting(tmp_path) -> Iterator[WaitingRanks]:
    ranks = WaitingRanks()
    yield ranks
    ranks.close()
    assert processes_of(tmp_path) == []


@pytest.fixture
def run(plain, waiting) -> Callable[..., None]:
    """Launches a job by ranks that stay, with the given settings."""

    def run_job(job_dir: Path, **settings: object) -> None:
        config = plain.model_copy(update={"resident": True, **settings})
        launch(job_dir, config, module="work", waiting=waiting)

    return run_job


def pids(job_dir: Path) -> list[int]:
    return [report.pid for report in read_reports(job_dir, "started")]


# --- jobs ------------------------------------------------------------------------------------------------------------


def test_the_same_ranks_do_the_next_job_with_its_own_files(job, run):
    first, second = job("first"), job("second")
    run(first)
    run(second)
    assert pids(first) == pids(second)
    for job_dir in (first, second):
        logs = [(job_dir / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
        assert logs == [f"rank {rank} at {job_dir.name}\n" for rank in (0, 1)]
        assert json.loads((job_dir / "done-0.json").read_text()) == {"job": job_dir.name}
        assert [report.rank for report in read_reports(job_dir, "ended")] == [0, 1]
    assert str(launcher_log(first).parent) in launcher_log(second).read_text()


def test_ranks_that_wait_end_at_once_when_nobody_needs_them(job, run, waiting, tmp_path):
    job_dir = job("first")
    run(job_dir)
    assert len(processes_of(tmp_path)) >= 4
    waiting.close()
    assert processes_of(tmp_path) == []
    assert not any(job_dir.glob("rank-*.died.json"))


def test_ranks_do_not_stay_unless_they_are_asked_to(job, run, waiting, tmp_path):
    run(job("first"), resident=False)
    assert not waiting.are_there
    assert processes_of(tmp_path) == []


def test_a_folder_may_hold_several_jobs_in_turn(job, run):
    first = job("first")
    run(first)
    before = pids(first)
    for _ in range(2):
        run(job("first"))
        assert pids(first) == before
    run(job("second"))
    run(job("first"))
    assert pids(first) == before
    assert sorted(path.name for path in first.glob("attempt-*")) == ["attempt-1", "attempt-2", "attempt-3"]


def test_a_port_of_their_own_does_not_hinder_the_next_job(job, run):
    port = free_port()
    hold = "import socket\nglobal s\nif rank.rank == 0 and 's' not in globals():\n    s = socket.socket(); "
    run(job("first", f"{hold}s.bind(('127.0.0.1', {port})); s.listen()"), port=port)
    with pytest.raises(ConfigError, match="taken"):
        check_launch(LaunchConfig(port=port))
    run(job("second"), port=port)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["deepspeed", "torchrun"])
def test_ranks_of_a_real_launcher_wait_as_well(job, waiting, launcher):
    first, second = job("first"), job("second")
    for job_dir in (first, second):
        config = LaunchConfig(processes=2, launcher=launcher, resident=True)
        launch(job_dir, config, module="work", waiting=waiting)
    assert pids(first) == pids(second)


# --- failures --------------------------------------------------------------------------------------------------------


def test_a_failed_job_ends_its_ranks_and_is_reported_in_its_own_folder(job, run, tmp_path):
    first, second, third = job("first"), job("second", 'raise ConfigError("seven")'), job("third")
    run(first)
    with pytest.raises(ConfigError, match=r"^seven$"):
        run(second)
    assert processes_of(tmp_path) == []
    assert "ConfigError: seven" in (second / "logs/rank-0.log").read_text()
    assert not any(first.glob("rank-*.failed.json"))
    run(third)
    assert not set(pids(first)) & set(pids(third))


def test_a_rank_that_is_killed_in_a_later_job_is_named_there(job, run):
    first, second = job("first"), job("second", DIE)
    run(first)
    with pytest.raises(JobFailed, match="rank 1 was killed") as caught:
        run(second)
    assert caught.value.is_lost
    assert caught.value.log == second / "logs" / "rank-1.log"
    assert [report.rank for report in read_reports(second, "died")][-1] == 1
    assert not any(first.glob("rank-*.died.json"))


def test_a_crash_in_a_later_job_leaves_its_stack_in_the_log_of_that_job(job, run):
    run(job("first"))
    with pytest.raises(JobFailed, match=r"crashed in native code .*`string_at`.*/second/logs"):
        run(job("second", "ctypes.string_at(0)"))


def test_a_time_limit_counts_for_each_job_and_says_where_its_ranks_are(job, run):
    first, second = job("first", "time.sleep(1.5)"), job("second", "time.sleep(1.5)")
    run(first)  # of which the interpreters' start is a part
    run(second, timeout_s=2.5)
    with pytest.raises(JobFailed, match=r"longer than launch\.timeout_s = 2 s; rank 0 is at .*; rank 1 is at"):
        run(job("third", "time.sleep(60)"), timeout_s=2)


# --- ranks that are lost while they wait -----------------------------------------------------------------------------


def victims(job_dir: Path) -> dict[str, int]:
    rank = pids(job_dir)[1]
    parent = parent_of(rank)
    launcher = parent_of(parent)
    return {"rank": rank, "its parent": parent, "launcher": launcher, "supervisor": parent_of(launcher)}


@pytest.mark.parametrize("victim", ["rank", "its parent", "launcher", "supervisor"])
@pytest.mark.parametrize("is_noticed", [False, True])
def test_where_a_process_was_killed_that_waited_others_do_the_next_job(job, run, victim, is_noticed, tmp_path):
    first, second = job("first"), job("second")
    run(first)
    os.kill(victims(first)[victim], signal.SIGKILL)
    if is_noticed:
        assert wait_until(lambda: processes_of(tmp_path) == [], 10)
    try:
        run(second)
    except JobFailed as error:  # they had begun it, and died of the same blow
        if is_noticed or not error.is_lost:
            raise
        run(second)
    assert not is_noticed or not set(pids(first)) & set(pids(second))
    assert json.loads((second / "done-0.json").read_text()) == {"job": "second"}
    assert not any(first.glob("rank-*.died.json"))


def test_ranks_of_which_one_does_not_answer_are_replaced_and_that_is_said(job, run, monkeypatch, caplog):
    monkeypatch.setattr(waiting_ranks, "BEGIN_S", 1.0)
    first, second = job("first"), job("second")
    run(first)
    os.kill(pids(first)[1], signal.SIGSTOP)
    with caplog.at_level(logging.WARNING):
        run(second)
    assert "others are started" in caplog.text
    assert not set(pids(first)) & set(pids(second))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("jobs", [("first",), ("first", "second")], ids=len)
def test_ranks_that_wait_end_with_their_driver(job, tmp_path, number, jobs):
    for name in jobs:
        job(name)
    (tmp_path / "plain_launcher.py").write_text(PLAIN_LAUNCHER)
    env = os.environ | {"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    script = DRIVER.format(folder=tmp_path, jobs=jobs)
    process = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL)
    assert wait_until((tmp_path / "waits").exists, PATIENCE_S)
    assert len(processes_of(tmp_path)) >= 5
    os.kill(process.pid, number)
    process.wait(10)
    assert wait_until(lambda: processes_of(tmp_path) == [], 10)


def test_an_interrupt_while_a_job_is_given_ends_the_ranks(job, run, monkeypatch, tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    run(job("first"))
    monkeypatch.setattr(waiting_ranks, "give_next_job", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(job("second"))
    assert processes_of(tmp_path) == []
