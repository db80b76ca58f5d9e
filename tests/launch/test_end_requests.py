"""Ranks that are asked to end save their work first, where they have any, and end at once where they have none."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_run import PATIENCE_S
from launched_work import are_ready, processes_of, wait_until

from hir_core.config import LaunchConfig
from hir_core.errors import JobFailed
from hir_core.launch import end_requests
from hir_core.launch.launcher import launch
from hir_core.launch.rank import read_reports
from hir_core.progress import Progress

# --- one process -----------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """How a process ends that does this work: its exit code, or minus the number of the signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ask(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", end_requests.ASKS)
def test_a_request_is_deferred_to_the_end_of_the_work(number, tmp_path):
    def work() -> None:
        with end_requests.deferred() as request:
            assert request.number == 0
            ask(number, number)
            (tmp_path / "noted").write_text(str(request.number))
        (tmp_path / "too late").touch()

    assert in_child(work) == -number
    assert [path.name for path in tmp_path.iterdir()] == ["noted"]
    assert (tmp_path / "noted").read_text() == str(int(number))


def test_work_that_nobody_asks_to_end_goes_on(tmp_path):
    def work() -> None:
        with end_requests.deferred(), end_requests.answered_with(lambda: None):
            pass
        (tmp_path / "done").touch()
        ask(signal.SIGTERM)

    assert in_child(work) == -signal.SIGTERM
    assert (tmp_path / "done").exists()


def test_work_is_saved_before_a_request_is_obeyed(tmp_path):
    """Once, although another request comes meanwhile."""

    def save() -> None:
        ask(signal.SIGTERM, signal.SIGINT)
        with (tmp_path / "saved").open("a") as file:
            file.write("once")

    def work() -> None:
        with end_requests.answered_with(save):
            ask(signal.SIGTERM)

    assert in_child(work) == -signal.SIGTERM
    assert (tmp_path / "saved").read_text() == "once"


# --- a launch --------------------------------------------------------------------------------------------------------

SAVES = """
from hir_core.launch import end_requests
rank.progress(Progress("train", 1, 2, "steps"))
with end_requests.deferred() as request:
    Path(sys.argv[1], f"ready-{rank.rank}").touch()
    while not request.number:
        time.sleep(0.01)
    time.sleep(SECONDS)
    Path(sys.argv[1], f"saved-{rank.rank}").touch()
    rank.progress(Progress("train", 2, 2, "steps", note="was asked to end"))
    request.obey()
"""
"""What a rank does that takes SECONDS to save its work."""


@pytest.fixture
def interrupted(job, plain) -> Callable[..., list[str]]:
    """Launches ranks that take so long to save, interrupts the driver once they work, and once more where asked to.

    Returns the notes that the driver was told.
    """

    def run(seconds: float, grace_s: float, *, twice: bool = False) -> list[str]:
        job_dir, notes = job(SAVES.replace("SECONDS", str(seconds))), list[str]()

        def on_progress(progress: Progress) -> None:
            notes.append(progress.note)
            if len(notes) == 1:
                assert wait_until(lambda: are_ready(job_dir), PATIENCE_S)
                if twice:
                    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            launch(job_dir, plain.model_copy(update={"grace_s": grace_s}), module="work", on_progress=on_progress)
        return notes

    return run


def saved(job_dir: Path) -> list[str]:
    return sorted(path.name for path in job_dir.glob("saved-*"))


def test_ranks_that_train_save_when_the_driver_is_interrupted(interrupted, tmp_path):
    notes = interrupted(0.3, grace_s=600.0)
    assert (notes[0], notes[-1]) == ("", "was asked to end")
    assert saved(tmp_path / "job") == ["saved-0", "saved-1"]
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(("grace_s", "twice"), [(0.5, False), (600.0, True)], ids=["grace is over", "second Ctrl-C"])
def test_ranks_that_save_for_too_long_are_ended(grace_s, twice, interrupted, tmp_path):
    started = time.monotonic()
    assert "was asked to end" not in interrupted(600.0, grace_s=grace_s, twice=twice)
    assert time.monotonic() - started < 60
    assert saved(tmp_path / "job") == []
    assert processes_of(tmp_path) == []


def test_a_rank_saves_when_somebody_else_asks_its_supervisor_to_end(job, tmp_path):
    job_dir = job(SAVES.replace("SECONDS", "0.3"))

    def end_supervisor(_: Progress) -> None:
        assert wait_until((job_dir / "ready-0").exists, PATIENCE_S)
        for pid in set(processes_of("supervisor.py")) & set(processes_of(tmp_path)):
            os.kill(pid, signal.SIGTERM)

    with pytest.raises(JobFailed, match="by signal 15") as caught:
        launch(job_dir, LaunchConfig(processes=1), module="work", on_progress=end_supervisor)
    assert caught.value.is_lost
    assert saved(job_dir) == ["saved-0"]
    [report] = read_reports(job_dir, "died")
    assert (report.status, report.was_asked) == (-signal.SIGTERM, True)
    assert processes_of(tmp_path) == []
