"""A launch passes on what its ranks report, names what failed, and leaves no process behind.

The default tests use a ten-line launcher instead of deepspeed's and torchrun's, which take seconds to import; the slow
tests use those two.
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_run import PATIENCE_S
from launched_work import PLAIN_LAUNCHER, READY, are_ready, processes_of, wait_until

from hir_core import supervisor
from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError, JobFailed
from hir_core.launch.build_locks import clear_build_locks
from hir_core.launch.commands import launcher_command, launcher_env
from hir_core.launch.devices import Devices, Place, find_devices, read_hostfile
from hir_core.launch.launcher import check_launch, launch
from hir_core.launch.rank import read_reports
from hir_core.progress import Progress

CHECKOUT = Path(__file__).resolve().parents[2]
needs_two_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two usable cores")

# --- progress and steps ----------------------------------------------------------------------------------------------


def test_progress_and_steps_arrive_in_order(job, plain):
    job_dir = job(
        'rank.progress(Progress("train", 1, 2, "triples", tokens=7, loss=0.5))\n'
        "rank.step_done(0)\ntime.sleep(0.6)\n"
        'rank.progress(Progress("evaluate", 2, 2, "prompts"))\nrank.step_done(1)',
        steps=2,
    )
    reports: list[Progress] = []
    steps: list[int] = []
    launch(job_dir, plain, module="work", on_progress=reports.append, on_step=steps.append)
    assert reports == [
        Progress("train", 1, 2, "triples", tokens=7, loss=0.5),
        Progress("evaluate", 2, 2, "prompts"),
        Progress("end"),
    ]
    assert steps == [0, 1]
    assert [report.rank for report in read_reports(job_dir, "ended")] == [0, 1]


def test_the_driver_works_beside_its_ranks(job, plain, tmp_path):
    done = tmp_path / "done"
    job_dir = job(f"while not os.path.exists({str(done)!r}): time.sleep(0.02)\nrank.step_done(0)")
    launch(job_dir, plain.model_copy(update={"timeout_s": PATIENCE_S}), module="work", on_begun=done.touch)


def test_everything_a_rank_prints_is_in_its_log(job, plain):
    job_dir = job('print("from python", rank.rank)\nos.system("echo from below")\nrank.step_done(0)')
    launch(job_dir, plain, module="work")
    assert (job_dir / "logs" / "rank-1.log").read_text().splitlines() == ["from python 1", "from below"]


def test_files_of_an_earlier_launch_do_not_pass_for_success(job, plain):
    job_dir = job("rank.step_done(0)")
    launch(job_dir, plain, module="work")
    (job_dir.parent / "work.py").write_text("")
    with pytest.raises(JobFailed, match=r"step 0 \(train\) has no outputs"):
        launch(job_dir, plain, module="work")
    assert (job_dir / "attempt-1" / "done-0.json").exists()
    assert (job_dir / "attempt-1" / "logs" / "rank-0.log").exists()


# --- failures --------------------------------------------------------------------------------------------------------


def test_exit_0_without_outputs_is_a_failure(job, plain):
    with pytest.raises(JobFailed, match=r"step 1 \(evaluate\) has no outputs; the launcher ended with exit code 0"):
        launch(job("rank.step_done(0)", steps=2), plain, module="work")


def test_a_config_error_in_a_rank_is_the_drivers_config_error(job, plain):
    job_dir = job(
        'if rank.rank == 1:\n    raise ConfigError("model.source: no such folder", "  look again")\ntime.sleep(60)'
    )
    with pytest.raises(ConfigError) as caught:
        launch(job_dir, plain, module="work")
    assert type(caught.value) is ConfigError
    assert str(caught.value) == "model.source: no such folder\n  look again"


def test_an_exception_in_a_rank_names_rank_log_and_last_lines(job, plain):
    job_dir = job('if rank.rank == 1:\n    raise ValueError("seven")\ntime.sleep(60)')
    with pytest.raises(JobFailed, match="rank 1 raised ValueError: seven") as caught:
        launch(job_dir, plain, module="work")
    failure = caught.value
    assert (failure.rank, failure.status, failure.log) == (1, "exit code 1", job_dir / "logs" / "rank-1.log")
    assert not failure.is_lost
    assert failure.tail[-1] == "ValueError: seven"
    assert failure.command[-1] == str(job_dir)


def test_a_rank_that_waits_for_a_failed_one_is_ended(job, plain, tmp_path):
    ignoring = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    job_dir = job(f'{ignoring}if rank.rank == 0:\n    raise ValueError("seven")\ntime.sleep(60)')
    with pytest.raises(JobFailed, match="rank 0 raised ValueError"):
        launch(job_dir, plain, module="work")
    [failed] = read_reports(job_dir, "failed")
    assert time.time() - failed.time < 12
    assert processes_of(tmp_path) == []


def test_a_killed_rank_is_found_although_the_launcher_ends_the_others(job, plain):
    job_dir = job("time.sleep(0.5)\nif rank.rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")
    with pytest.raises(JobFailed, match="rank 1 was killed") as caught:
        launch(job_dir, plain, module="work")
    assert (caught.value.rank, caught.value.status) == (1, "exit code 247 (signal 9 in a rank)")
    assert caught.value.is_lost


LOSES_RANK_1 = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
rank.progress(Progress("train", 1, 2, "triples"))
while not Path(sys.argv[1], "go").exists():
    time.sleep(0.05)
if rank.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
os.system(f"while kill -0 {Path(sys.argv[1], 'rank-1.pid').read_text()}; do sleep 0.05; done")
raise RuntimeError("connection closed by peer")
"""


def test_a_killed_rank_is_named_though_another_fails_of_it_before_the_driver_looks(job, plain):
    job_dir = job(LOSES_RANK_1)

    def look_away(_: Progress) -> None:
        assert wait_until(lambda: len(read_reports(job_dir, "started")) == 2, PATIENCE_S)
        (job_dir / "rank-1.pid").write_text(str(read_reports(job_dir, "started")[1].pid))
        (job_dir / "go").touch()
        assert wait_until(lambda: read_reports(job_dir, "failed"), PATIENCE_S)

    with pytest.raises(JobFailed, match="rank 1 was killed") as caught:
        launch(job_dir, plain, module="work", on_progress=look_away)
    assert caught.value.is_lost


def test_a_report_that_a_killed_rank_was_writing_is_deleted_by_this_launch_or_the_next(job, plain):
    job_dir = job(
        "path = Path(sys.argv[1], '.rank-1.ended.json.77')\n"
        "if rank.rank == 1: path.write_text('{'), os.kill(os.getpid(), signal.SIGKILL)\n"
        "assert not Path(sys.argv[1], '.progress.json.76').exists()\n"
        "time.sleep(60)"
    )
    (job_dir / ".progress.json.76").write_text("{")
    with pytest.raises(JobFailed, match=r"^rank \d was killed"):
        launch(job_dir, plain, module="work")
    assert [path.name for path in job_dir.glob(".*")] == []


def test_a_rank_that_cannot_start_is_explained_by_the_launchers_log(job, plain):
    job_dir = job("")
    with pytest.raises(JobFailed, match="No module named no_such_work") as caught:
        launch(job_dir, plain, module="no_such_work")
    assert caught.value.log == job_dir / "logs" / "launcher.log"
    assert not caught.value.is_lost


def test_a_launch_beyond_its_time_limit_is_ended(job, plain, tmp_path, limit_from_ready):
    job_dir = job(f"rank.step_done(0)\n{READY}\ntime.sleep(60)", steps=2)
    steps: list[int] = []
    with pytest.raises(JobFailed, match=r"longer than launch\.timeout_s = 2 s"):
        launch(job_dir, plain.model_copy(update={"timeout_s": 2}), module="work", on_step=steps.append)
    assert steps == [0]
    assert processes_of(tmp_path) == []


def test_a_launch_beyond_its_time_limit_says_where_its_ranks_are(job, plain, limit_from_ready):
    positions = r"rank 0 is at work\.py:9 `<module>`; rank 1 is at work\.py:9 `<module>`"
    with pytest.raises(JobFailed, match=positions) as caught:
        launch(job(f"{READY}; time.sleep(60)"), plain.model_copy(update={"timeout_s": 2}), module="work")
    assert caught.value.rank is None


COLLECTIVE = """
from torch import distributed as dist
from hir_core.modeling.data_parallel import finished_keys
dist.init_process_group("gloo", init_method="file://" + sys.argv[1] + "/store", rank=rank.rank, world_size=2)
{ready}
def hang():
    {hang}
if rank.rank == 1:
    hang()
finished_keys(rank, Path(sys.argv[1]), "prompt_id")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hang", "position"),
    [
        ("time.sleep(90)", r"rank 1 is at work\.py:15 `hang`"),
        ("os.kill(os.getpid(), signal.SIGSTOP)", "rank 1 does not answer"),
    ],
)
def test_a_rank_that_hangs_while_the_others_wait_in_a_collective_is_named(
    job, plain, tmp_path, limit_from_ready, hang, position
):
    body = COLLECTIVE.format(ready=READY, hang=hang)
    with pytest.raises(JobFailed, match=f"launch.timeout_s = 3 s; {position}; ") as caught:
        launch(job(body), plain.model_copy(update={"timeout_s": 3}), module="work")
    assert caught.value.rank == 1
    assert "rank 0 waits" not in str(caught.value)
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("moment", ["on_begun", "on_step"])
def test_an_interrupt_ends_the_ranks_and_is_raised(job, plain, tmp_path, moment):
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(job("rank.step_done(0)\ntime.sleep(60)"), plain, module="work", **{moment: interrupt})
    assert processes_of(tmp_path) == []


# --- no process is left ----------------------------------------------------------------------------------------------

STUBBORN = """
ignores = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
if rank.rank == 0:
    subprocess.Popen([sys.executable, "-c", ignores, sys.argv[1]], start_new_session=True)
    os.system(f"setsid tail -f {sys.argv[1]}/job.json &")
"""
"""A child in a session of its own that ignores SIGTERM, and an orphan in another one."""

DRIVER = """
import sys
from pathlib import Path
from hir_core.config import LaunchConfig
from hir_core.launch import launcher

if "{launcher}" == "plain":
    command = [sys.executable, "{folder}/plain_launcher.py", "2", "work", "{folder}/job"]
    launcher.launcher_command = lambda *_: command
    launcher.launch(Path("{folder}/job"), LaunchConfig(processes=2), module="work")
else:
    launcher.launch(Path("{folder}/job"), LaunchConfig(processes=2, launcher="{launcher}"), module="work")
"""

real_launchers = [pytest.param(name, marks=pytest.mark.slow) for name in ("deepspeed", "torchrun")]


@pytest.fixture
def driver(job, tmp_path):
    """Starts a process that launches two ranks with STUBBORN children, and returns it once they run."""

    def start(launcher: str) -> subprocess.Popen[bytes]:
        job_dir = job(f"{STUBBORN}{READY}\ntime.sleep(120)")
        (tmp_path / "plain_launcher.py").write_text(PLAIN_LAUNCHER)
        script = DRIVER.format(launcher=launcher, folder=tmp_path)
        env = os.environ | {"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
        process = subprocess.Popen([sys.executable, "-c", script], env=env, start_new_session=True)
        assert wait_until(lambda: are_ready(job_dir), PATIENCE_S)
        assert wait_until(lambda: len(processes_of(tmp_path)) >= 7, PATIENCE_S)
        return process

    return start


@needs_two_cores
@pytest.mark.parametrize(
    ("launcher", "number"),
    [
        ("plain", signal.SIGKILL),
        *(
            pytest.param(launcher, number, marks=pytest.mark.slow)
            for launcher, number in (
                ("plain", signal.SIGTERM),
                ("plain", signal.SIGINT),
                ("deepspeed", signal.SIGKILL),
                ("deepspeed", signal.SIGINT),
                ("torchrun", signal.SIGKILL),
                ("torchrun", signal.SIGTERM),
            )
        ),
    ],
)
def test_all_processes_end_when_the_driver_is_ended(driver, tmp_path, launcher, number):
    process = driver(launcher)
    os.kill(process.pid, number)
    process.wait(10)
    assert wait_until(lambda: processes_of(tmp_path) == [], 10)


@needs_two_cores
@pytest.mark.parametrize("launcher", ["plain", *real_launchers])
def test_launcher_and_ranks_end_when_the_supervisor_is_killed(driver, tmp_path, launcher):
    process = driver(launcher)
    [supervisor_pid] = [pid for pid in processes_of("supervisor.py") if pid in processes_of(tmp_path)]
    os.kill(supervisor_pid, signal.SIGKILL)
    assert process.wait(10) == 1
    survivors = processes_of(tmp_path)
    assert len(survivors) == 2, "only the children of ranks that left their session"
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)


@needs_two_cores
def test_a_rank_that_starts_while_its_supervisor_is_killed_ends_as_well(job, tmp_path):
    job_dir = job("time.sleep(120)")
    work = tmp_path / "work.py"
    work.write_text(f"import time; time.sleep(2)\n{work.read_text()}")  # an interpreter that starts slowly
    (tmp_path / "plain_launcher.py").write_text(PLAIN_LAUNCHER)
    env = os.environ | {"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    script = DRIVER.format(launcher="plain", folder=tmp_path)
    process = subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: len(processes_of(tmp_path)) == 5, PATIENCE_S), (
        "driver, supervisor, launcher and two ranks"
    )
    [supervisor_pid] = [pid for pid in processes_of("supervisor.py") if pid in processes_of(tmp_path)]
    os.kill(supervisor_pid, signal.SIGKILL)
    assert process.wait(10) == 1
    assert not any(job_dir.glob("rank-*")), "the ranks were up before"
    assert wait_until(lambda: processes_of(tmp_path) == [], 10)


def test_a_process_that_a_successful_rank_leaves_running_is_ended(job, plain, tmp_path):
    launch(job('os.system(f"setsid tail -f {sys.argv[1]}/job.json &")\nrank.step_done(0)'), plain, module="work")
    assert processes_of(tmp_path) == []


def test_a_child_of_the_driver_that_holds_the_pipe_does_not_keep_the_launch_alive(tmp_path):
    marker = str(tmp_path)
    (tmp_path / "input").touch()
    script = (
        "import os, subprocess, sys, time\n"
        f"command = [sys.executable, '-c', 'import time; time.sleep(120)', {marker!r}]\n"
        f"supervised = [sys.executable, {supervisor.__file__!r}, {marker!r} + '/input', '0', *command]\n"
        "subprocess.Popen(supervised, stdin=subprocess.PIPE)\n"
        "os.fork() or time.sleep(8)\n"
        "time.sleep(1)\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script], timeout=30, check=True)
    assert wait_until(lambda: processes_of(tmp_path / "input") == [], 5)


def test_a_lock_of_a_killed_build_is_cleared_and_one_in_use_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    for operator in ("cpu_adam", "shm"):
        (tmp_path / operator).mkdir()
    (tmp_path / "cpu_adam" / "lock").touch()
    with (tmp_path / "shm" / "lock").open("w"):
        assert clear_build_locks() == [tmp_path / "cpu_adam" / "lock"]
    assert [path.parent.name for path in tmp_path.glob("*/lock")] == ["shm"]


# --- devices and hosts -----------------------------------------------------------------------------------------------


def test_more_ranks_than_cores_are_refused(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=rf"asks for {cores + 1} ranks, and this machine has {cores} usable CPU core"):
        check_launch(LaunchConfig(processes=cores + 1))


def test_auto_is_one_rank_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert check_launch(LaunchConfig()).ranks == 1


def test_a_taken_port_is_refused():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="is taken"):
            check_launch(LaunchConfig(processes=1, port=other.getsockname()[1]))


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ("0", "1")),
        ("1", ("1",)),
        ("1,0", ("1", "0")),
        ("", ()),
        ("-1", ()),
        ("0,7,1", ("0",)),
        ("GPU-bb", ("GPU-bb",)),
    ],
)
def test_gpus_are_counted_as_cuda_sees_them(tmp_path, monkeypatch, visible, expected):
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA X (UUID: GPU-aa-1)'\necho 'GPU 1: NVIDIA X (UUID: GPU-bb-2)'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2.13.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert find_devices().gpus == expected


def test_deepspeed_gets_the_gpus_that_are_visible(tmp_path):
    place = Place(2, Devices(("3", "5", "6"), 8))
    command = launcher_command(tmp_path, LaunchConfig(processes=2), place, "work")
    [where] = [flag.removeprefix("--world_info=") for flag in command if flag.startswith("--world_info=")]
    assert json.loads(base64.urlsafe_b64decode(where)) == {"localhost": ["3", "5"]}


def test_a_single_rank_here_is_started_without_a_launcher_whatever_environment_the_user_has(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")  # as in a job that some other launcher has started
    config, place = LaunchConfig(port=29123), Place(1, Devices(("3", "5"), 8))
    assert launcher_command(tmp_path, config, place, "work") == [sys.executable, "-m", "work", str(tmp_path)]
    env = launcher_env(config, place)
    assert (env["RANK"], env["WORLD_SIZE"], env["MASTER_PORT"], env["CUDA_VISIBLE_DEVICES"]) == ("0", "1", "29123", "3")
    asked = launcher_command(tmp_path, LaunchConfig(launcher="torchrun"), place, "work")
    assert "torch.distributed.run" in asked


def test_ranks_on_the_cpu_share_the_cores_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launcher_env(LaunchConfig(), Place(3, Devices((), 8)))["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launcher_env(LaunchConfig(), Place(3, Devices((), 8)))["OMP_NUM_THREADS"] == "7"


def test_memory_of_gpus_is_not_taken_in_fixed_pieces_unless_the_user_says_how(tmp_path, monkeypatch):
    on_gpus, on_cpus = Place(1, Devices(("0",), 8)), Place(1, Devices((), 8))
    monkeypatch.delenv("PYTORCH_ALLOC_CONF", raising=False)
    assert launcher_env(LaunchConfig(), on_gpus)["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
    assert "PYTORCH_ALLOC_CONF" not in launcher_env(LaunchConfig(), on_cpus)
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128")
    assert "PYTORCH_ALLOC_CONF" not in launcher_env(LaunchConfig(), on_gpus)
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    assert launcher_env(LaunchConfig(), on_gpus)["PYTORCH_ALLOC_CONF"] == "max_split_size_mb:64"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a slots=2\nb\n", "line 2: expected `host slots=N`, found `b`"),
        ("a slots=0\n", "line 1: expected `host slots=N`"),
        ("a slots=2\na slots=2\n", "line 2: a is named twice"),
        ("# no host\n\n", "names no host"),
    ],
)
def test_a_bad_hostfile_is_refused_by_line(tmp_path, text, message):
    (tmp_path / "hosts").write_text(text)
    with pytest.raises(ConfigError, match=message):
        check_launch(LaunchConfig(hostfile=tmp_path / "hosts"))


def test_a_missing_hostfile_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*hosts: No such file"):
        check_launch(LaunchConfig(hostfile=tmp_path / "hosts"))


def test_a_hostfile_of_this_machine_is_a_local_launch(tmp_path):
    (tmp_path / "hosts").write_text("# us\nlocalhost slots=1  # one\n")
    assert check_launch(LaunchConfig(hostfile=tmp_path / "hosts")) == Place(1, find_devices(), ("localhost",))
    assert read_hostfile(tmp_path / "hosts") == {"localhost": 1}


@pytest.mark.parametrize(("changes", "program"), [({"hostfile": "hosts"}, "ssh"), ({"launcher": "slurm"}, "srun")])
def test_other_hosts_need_the_program_that_starts_them(tmp_path, monkeypatch, changes, program):
    (tmp_path / "hosts").write_text("far slots=8\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=f"the program {program}, which starts the other hosts, is not on PATH"):
        check_launch(LaunchConfig(**changes))


# --- the real launchers ----------------------------------------------------------------------------------------------

PRINT_RANK = (
    'print("I am", rank.rank, rank.local_rank, rank.world_size, os.environ["OMP_NUM_THREADS"])\nrank.step_done(0)'
)


@needs_two_cores
@pytest.mark.parametrize("launcher", real_launchers)
def test_two_ranks_run(job, monkeypatch, launcher):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    job_dir = job(PRINT_RANK)
    launch(job_dir, LaunchConfig(processes=2, launcher=launcher), module="work")
    logs = [(job_dir / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert logs == ["I am 0 0 2 1\n", "I am 1 1 2 1\n"]


@needs_two_cores
@pytest.mark.parametrize("launcher", real_launchers)
def test_a_killed_rank_is_named(job, launcher):
    job_dir = job("time.sleep(1)\nif rank.rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)")
    with pytest.raises(JobFailed, match="rank 1 was killed"):
        launch(job_dir, LaunchConfig(processes=2, launcher=launcher), module="work")


@needs_two_cores
@pytest.mark.parametrize("launcher", real_launchers)
def test_an_error_in_a_rank_comes_through_the_launcher(job, launcher):
    job_dir = job('if rank.rank == 1:\n    raise ConfigError("seven")\ntime.sleep(60)')
    with pytest.raises(ConfigError, match=r"^seven$"):
        launch(job_dir, LaunchConfig(processes=2, launcher=launcher), module="work")
