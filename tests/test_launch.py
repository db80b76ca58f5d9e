"""A launch delivers what its ranks report, says what went wrong, and leaves no process behind.

The default tests put a ten-line launcher in the place of deepspeed's and torchrun's, which take seconds to import; the
slow ones use the real two.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hir_core import launch as launch_module
from hir_core.config import LaunchConfig
from hir_core.devices import Devices
from hir_core.errors import ConfigError, JobFailed
from hir_core.launch import launch
from hir_core.rank import Progress, read_ranks

CHECKOUT = Path(__file__).resolve().parent.parent
needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two usable cores")

PLAIN_LAUNCHER = """
import os, subprocess, sys, time
ranks, *command = sys.argv[1:]
places = [os.environ | {"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": ranks} for r in range(int(ranks))]
running = [subprocess.Popen([sys.executable, "-m", *command], env=env) for env in places]
while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
    time.sleep(0.05)
for process in running:
    process.terminate()
codes = [process.wait() for process in running]
sys.exit(next((code for code in codes if code not in (0, -15)), 0))
"""

WORK = """
import os, signal, subprocess, sys, time
from pathlib import Path
from hir_core.errors import ConfigError
from hir_core.rank import Progress, rank_process

with rank_process(Path(sys.argv[1])) as rank:
{body}
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Writes a job of so many steps whose ranks run the given lines, as module `work`."""

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
    """Two ranks through the launcher above."""
    launcher = tmp_path / "plain_launcher.py"
    launcher.write_text(PLAIN_LAUNCHER)

    def command(job_dir: Path, config: LaunchConfig, *, module: str, devices: Devices) -> list[str]:
        return [sys.executable, str(launcher), str(config.processes), module, str(job_dir)]

    monkeypatch.setattr(launch_module, "launch_command", command)
    monkeypatch.setattr(launch_module, "find_devices", lambda: Devices((), 2))
    return LaunchConfig(processes=2)


def processes_of(marker: Path) -> list[int]:
    """Living processes whose command line names the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(marker).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until(is_true: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(is_true())


# --- what it delivers ------------------------------------------------------------------------------------------------


def test_progress_and_steps_arrive_in_order(job, plain):
    job_dir = job(
        'rank.progress(Progress("train", 1, 2, "triples", tokens=7, loss=0.5))\n'
        "rank.step_done(0)\ntime.sleep(0.6)\n"
        'rank.progress(Progress("evaluate", 2, 2, "prompts"))\nrank.step_done(1)',
        steps=2,
    )
    seen: list[Progress] = []
    steps: list[int] = []
    launch(job_dir, plain, module="work", on_progress=seen.append, on_step=steps.append)
    assert seen == [Progress("train", 1, 2, "triples", tokens=7, loss=0.5), Progress("evaluate", 2, 2, "prompts")]
    assert steps == [0, 1]
    assert [(state.rank, state.state) for state in read_ranks(job_dir)] == [(0, "ended"), (1, "ended")]


def test_everything_a_rank_prints_is_in_its_log(job, plain):
    job_dir = job('print("from python", rank.rank)\nos.system("echo from below")\nrank.step_done(0)')
    launch(job_dir, plain, module="work")
    assert (job_dir / "logs" / "rank-1.log").read_text().splitlines() == ["from python 1", "from below"]


def test_traces_of_an_earlier_launch_do_not_pass_for_success(job, plain):
    job_dir = job("rank.step_done(0)")
    launch(job_dir, plain, module="work")
    (job_dir.parent / "work.py").write_text("")
    with pytest.raises(JobFailed, match=r"step 0 \(train\) has no outputs"):
        launch(job_dir, plain, module="work")
    assert (job_dir / "attempt-1" / "done-0.json").exists()
    assert (job_dir / "attempt-1" / "logs" / "rank-0.log").exists()


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_exit_0_without_outputs_is_a_failure(job, plain):
    with pytest.raises(JobFailed, match=r"step 1 \(evaluate\) has no outputs; the launcher ended with exit code 0"):
        launch(job("rank.step_done(0)", steps=2), plain, module="work")


def test_a_config_error_in_a_rank_is_the_drivers_config_error(job, plain):
    job_dir = job(
        'if rank.rank == 1:\n    raise ConfigError("model.source: no such folder\\nlook again")\ntime.sleep(60)'
    )
    with pytest.raises(ConfigError) as caught:
        launch(job_dir, plain, module="work")
    assert type(caught.value) is ConfigError
    assert str(caught.value) == "model.source: no such folder\nlook again"


def test_an_exception_in_a_rank_names_rank_log_and_last_lines(job, plain):
    job_dir = job('if rank.rank == 1:\n    raise ValueError("seven")\ntime.sleep(60)')
    with pytest.raises(JobFailed, match="rank 1 raised ValueError: seven") as caught:
        launch(job_dir, plain, module="work")
    failure = caught.value
    assert (failure.rank, failure.status, failure.log) == (1, "exit code 1", job_dir / "logs" / "rank-1.log")
    assert failure.tail[-1] == "ValueError: seven"
    assert failure.command[-1] == str(job_dir)


def test_a_rank_that_waits_for_a_failed_one_is_not_waited_for(job, plain, tmp_path):
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    job_dir = job(f'{ignoring}if rank.rank == 0:\n    raise ValueError("seven")\ntime.sleep(60)')
    started = time.monotonic()
    with pytest.raises(JobFailed, match="rank 0 raised ValueError"):
        launch(job_dir, plain, module="work")
    assert time.monotonic() - started < 12
    assert processes_of(tmp_path) == []


def test_a_killed_rank_is_found_although_the_launcher_ends_the_others(job, plain):
    job_dir = job("time.sleep(0.5)\nif rank.rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")
    with pytest.raises(JobFailed, match="rank 1 was killed") as caught:
        launch(job_dir, plain, module="work")
    assert (caught.value.rank, caught.value.status) == (1, "exit code 247 (signal 9 in a rank)")


def test_a_rank_that_cannot_start_is_explained_by_the_launchers_log(job, plain):
    job_dir = job("")
    with pytest.raises(JobFailed, match="No module named no_such_work") as caught:
        launch(job_dir, plain, module="no_such_work")
    assert caught.value.log == job_dir / "logs" / "launcher.log"


def test_a_launch_beyond_its_time_is_ended(job, plain, tmp_path):
    job_dir = job("rank.step_done(0)\ntime.sleep(60)", steps=2)
    steps: list[int] = []
    with pytest.raises(JobFailed, match=r"longer than launch\.timeout_s = 2 s"):
        launch(job_dir, plain.model_copy(update={"timeout_s": 2}), module="work", on_step=steps.append)
    assert steps == [0]
    assert processes_of(tmp_path) == []


def test_an_interrupt_ends_the_ranks_and_is_raised(job, plain, tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(job("rank.step_done(0)\ntime.sleep(60)"), plain, module="work", on_step=interrupt)
    assert processes_of(tmp_path) == []
