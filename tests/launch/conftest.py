"""Jobs whose ranks run lines of the test, and the launcher that starts them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_run import PATIENCE_S
from launched_work import PLAIN_LAUNCHER, WORK, are_ready, wait_until

from hir_core.config import LaunchConfig
from hir_core.launch.devices import Place
from hir_core.launch.monitor import LaunchMonitor
from hir_core.launch.processes import Processes


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a job with that many steps, and the given lines as the module `work` that its ranks run."""

    def write(body: str, steps: int = 1) -> Path:
        (tmp_path / "work.py").write_text(WORK.format(body="\n".join(f"    {line}" for line in body.splitlines())))
        (tmp_path / "job").mkdir()
        names = [{"type": "train"}, {"type": "sample", "name": "evaluate"}]
        (tmp_path / "job" / "job.json").write_text(json.dumps({"steps": names[:steps]}))
        return tmp_path / "job"

    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return write


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LaunchConfig:
    """Two ranks, started by PLAIN_LAUNCHER."""
    launcher = tmp_path / "plain_launcher.py"
    launcher.write_text(PLAIN_LAUNCHER)

    def command(job_dir: Path, config: LaunchConfig, place: Place, module: str) -> list[str]:
        return [sys.executable, str(launcher), str(place.ranks), module, str(job_dir)]

    monkeypatch.setattr("hir_core.launch.launcher.launcher_command", command)
    return LaunchConfig(processes=2)


@pytest.fixture
def limit_from_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has a launch's time limit begin when both ranks are ready, however long they take to start."""
    follow = LaunchMonitor.follow

    def follow_ready(self: LaunchMonitor, processes: Processes, timeout_s: float | None, *, stay: bool) -> bool:
        assert wait_until(lambda: are_ready(tmp_path / "job"), PATIENCE_S)
        return follow(self, processes, timeout_s, stay=stay)

    monkeypatch.setattr(LaunchMonitor, "follow", follow_ready)
