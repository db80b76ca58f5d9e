"""What the driver makes of ranks on hosts whose clocks differ, and whose files it sees late."""

import dataclasses
import json
import threading
import time
from pathlib import Path

import pytest

from hir_core.config import LaunchConfig
from hir_core.errors import JobFailed
from hir_core.launch import monitor as monitor_module
from hir_core.launch.devices import Devices, Place
from hir_core.launch.monitor import LaunchMonitor
from hir_core.launch.processes import Loss
from hir_core.launch.rank import RankReport, rank_log, report_file
from hir_core.progress import ignore


class Ended:
    """Processes on two hosts, which have ended; the clock of host 1 is 100 s ahead."""

    def __init__(self, code: int, loss: Loss | None = None) -> None:
        self.code, self.lost = code, loss

    def poll(self) -> int:
        return self.code

    def ask_to_end(self) -> None: ...

    def stop(self) -> None: ...

    def loss(self) -> Loss | None:
        return self.lost

    def has_failed(self) -> bool:
        return bool(self.code)

    def clock_lead_s(self, node: int) -> float:
        return 100.0 * node


@pytest.fixture
def monitor(tmp_path) -> LaunchMonitor:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "launcher.log").touch()
    (tmp_path / "job.json").write_text(json.dumps({"steps": [{"type": "train"}]}))
    place = Place(2, Devices((), 2), ("host 0", "host 1"))
    return LaunchMonitor(tmp_path, ["work"], LaunchConfig(), place, ignore, ignore)


def report(job_dir: Path, rank: int, seconds: float, **facts) -> None:
    rank_log(job_dir, rank).touch()
    told = RankReport(rank=rank, node=rank, pid=1, host=f"host {rank}", time=seconds, **facts)
    event = "failed" if told.type else "died"
    report_file(job_dir, rank, event).write_text(json.dumps(dataclasses.asdict(told)))


@pytest.mark.parametrize(("seconds", "first"), [(1090.0, 1), (1110.0, 0)])
def test_the_rank_that_failed_first_by_the_heads_clock_is_named(monitor, tmp_path, seconds, first):
    report(tmp_path, 0, 1000.0, type="ValueError", message="near")
    report(tmp_path, 1, seconds, type="ValueError", message="far")
    with pytest.raises(JobFailed, match=f"^rank {first} raised ValueError") as caught:
        monitor.follow(Ended(1), None)
    assert caught.value.rank == first
    monitor.close()


@pytest.mark.parametrize(
    ("rank", "facts", "message"),
    [
        (0, {"type": "RuntimeError", "message": "connection reset by peer"}, "^host 1 is lost"),  # a consequence
        (1, {"status": -15, "was_asked": True}, "^host 1 is lost"),
        (
            1,
            {"type": "MemoryError", "message": "x"},
            "^rank 1 raised MemoryError",
        ),  # before that
    ],
)
def test_the_loss_of_a_host_is_the_cause_unless_a_rank_there_had_failed(monitor, tmp_path, rank, facts, message):
    report(tmp_path, rank, 1000.0, **facts)
    with pytest.raises(JobFailed, match=message):
        monitor.follow(Ended(1, Loss(1, "host 1 is lost", time.monotonic())), None)
    monitor.close()


def test_outputs_and_failures_that_are_seen_late_are_waited_for_and_not_for_ever(monitor, tmp_path, monkeypatch):
    threading.Timer(0.3, lambda: report(tmp_path, 1, 1.0, type="ValueError", message="late")).start()
    with pytest.raises(JobFailed, match="rank 1 raised ValueError: late"):
        monitor.follow(Ended(1), None)
    report_file(tmp_path, 1, "failed").unlink()
    monkeypatch.setattr(monitor_module, "LATE_S", 0.3)
    with pytest.raises(JobFailed, match=r"step 0 \(train\) has no outputs"):
        monitor.follow(Ended(0), None)
    monkeypatch.undo()
    threading.Timer(0.3, (tmp_path / "done-0.json").touch).start()
    assert monitor.follow(Ended(0), None) is False
    monitor.close()
