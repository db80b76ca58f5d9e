"""What ranks die of is told truly: the rank that failed first, its signal, where it was, and what helps."""

import os
import re
import signal
from pathlib import Path
from typing import get_args

import pytest
from cli_run import PATIENCE_S
from launched_work import PLAIN_LAUNCHER, READY, processes_of, wait_until
from pydantic import BaseModel

from hir_core.config import LaunchConfig, RunConfig
from hir_core.errors import JobFailed
from hir_core.launch import exit_status, host_memory
from hir_core.launch.failures import first_cause
from hir_core.launch.launcher import launch
from hir_core.launch.memory_advice import MemoryAdvice
from hir_core.launch.ports import free_port
from hir_core.launch.rank import RankReport, read_reports
from hir_core.progress import Progress

WAITS = "time.sleep(60)"


def in_rank_1(line: str) -> str:
    """Rank 1 does this, and rank 0 waits."""
    return f"time.sleep(0.3)\nif rank.rank == 1:\n    {line}\n{WAITS}"


def fail(job_dir: Path, config: LaunchConfig, **options) -> JobFailed:
    """The failure of a launch that leaves no process and no half-written file; its reason is one line."""
    with pytest.raises(JobFailed) as caught:
        launch(job_dir, config, module="work", **options)
    assert processes_of(job_dir) == []
    assert [path.name for path in job_dir.rglob(".*")] == []
    assert "\n" not in caught.value.reason
    assert str(caught.value).startswith(caught.value.reason)
    return caught.value


# --- which rank was first --------------------------------------------------------------------------------------------


def test_the_killed_rank_is_named_though_the_launcher_has_ended_all_others_before_the_driver_looks(job, plain):
    job_dir = job(
        'rank.progress(Progress("train", 1, 2, "triples"))\n'
        "while not Path(sys.argv[1], 'go').exists():\n    time.sleep(0.05)\n"
        "if rank.rank == 1:\n    os.kill(os.getpid(), signal.SIGKILL)\n" + WAITS
    )

    def look_away(_: Progress) -> None:
        assert wait_until(lambda: len(read_reports(job_dir, "started")) == 2, PATIENCE_S)
        (job_dir / "go").touch()
        pids = [report.pid for report in read_reports(job_dir, "started")]
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), PATIENCE_S)

    failure = fail(job_dir, plain, on_progress=look_away)
    assert failure.reason.startswith("rank 1 was killed: signal 9, ")
    assert (failure.rank, failure.is_lost) == (1, True)


def test_a_rank_is_named_that_is_killed_together_with_its_parent(job, plain):
    failure = fail(job(in_rank_1("os.kill(os.getppid(), signal.SIGKILL)")), plain)
    assert failure.reason.startswith("rank 1 was killed: signal 9, ")
    assert failure.is_lost


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_launcher_that_is_ended_from_outside_is_not_taken_for_a_rank(job, plain, number):
    kill = f"from hir_core.supervisor import parent_of; os.kill(parent_of(os.getppid()), {int(number)})"
    failure = fail(job(in_rank_1(kill)), plain)
    assert failure.reason == f"the launcher was ended from outside by signal {int(number)} ({signal.strsignal(number)})"
    assert (failure.rank, failure.is_lost) == (None, True)


def report(rank: int, time: float, **facts) -> RankReport:
    return RankReport(rank, 100 + rank, "here", time, **facts)


@pytest.mark.parametrize(
    ("first", "consequence"),
    [
        (report(1, 2.0, status=-9), report(0, 1.0, type="RuntimeError", has_lost_rank=True)),
        (report(1, 2.0, status=-9), report(0, 1.0, status=-15)),
        (report(1, 2.0, status=-9), report(0, 1.0, status=-9, was_asked=True)),
        (report(1, 2.0, status=-9), report(0, 1.0, status=143)),
        (report(1, 2.0, status=-6), report(0, 1.0, status=-6, has_lost_rank=True)),
        (report(1, 1.0, type="ValueError"), report(0, 2.0, status=-6)),
        (report(1, 1.0, status=-15), report(0, 2.0, status=-15)),
        (report(1, 1.0, status=-2), report(0, 2.0, status=-15)),
    ],
)
def test_the_first_cause_is_told_from_what_it_led_to(first, consequence):
    assert first_cause([consequence, first]) == first_cause([first, consequence]) == first


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason", "is_lost"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM)", r"rank 1 was asked to end with signal 15 \(Terminated\), by ", True),
        pytest.param(
            "os.kill(os.getpid(), signal.SIGHUP)",
            r"rank 1 was asked to end with signal 1 \(Hangup\), by ",
            True,
            marks=pytest.mark.skipif(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, reason="started with nohup"),
        ),
        ("os.kill(os.getpid(), signal.SIGINT)", r"rank 1 was asked to end with signal 2 \(Interrupt\), by ", True),
        ("os.kill(os.getpid(), signal.SIGXCPU)", r"rank 1 was ended by signal 24 \(CPU time limit exceeded\)$", False),
        (
            "os.kill(os.getpid(), signal.SIGBUS)",
            r"rank 1 died of signal 7, a bus error: shared memory is full.*",
            False,
        ),
        ("os.kill(os.getpid(), signal.SIGILL)", r"rank 1 died of signal 4, an instruction .*", False),
        ("import ctypes; ctypes.string_at(0)", "rank 1 crashed in native code with signal 11, .*", False),
        ("print('what(): no peer', flush=True); os.abort()", "rank 1 was aborted by native code with signal 6", False),
    ],
)
def test_the_signal_that_ended_a_rank_is_read(job, plain, line, reason, is_lost):
    failure = fail(job(in_rank_1(line)), plain)
    assert re.match(reason, failure.reason), failure.reason
    assert (failure.rank, failure.is_lost) == (1, is_lost)
    assert failure.log is not None
    assert failure.log.name == "rank-1.log"


@pytest.mark.parametrize("line", ["import ctypes; ctypes.string_at(0)", "os.abort()", "os.kill(os.getpid(), 7)"])
def test_a_crash_is_told_with_the_line_of_python_that_led_to_it_and_the_line_printed_before(job, plain, line):
    failure = fail(job(in_rank_1(f"print('what(): no peer', flush=True); {line}")), plain)
    place = r"(work\.py:11 `<module>`|__init__\.py:\d+ `string_at`)"
    assert re.search(f" at {place}: what\\(\\): no peer$", failure.reason), failure.reason


def test_a_rank_that_leaves_without_an_error_is_named_with_its_exit_code(job, plain):
    failure = fail(job(in_rank_1("os._exit(3)")), plain)
    assert failure.reason == "rank 1 ended with exit code 3 and without an error of its own"
    assert not failure.is_lost


def test_a_rank_passes_on_a_signal_that_its_parent_gets_and_only_that_one(job, plain):
    job_dir = job(
        "got = []\nsignal.signal(signal.SIGUSR2, lambda *_: got.append(1))\n"
        "os.kill(os.getppid(), signal.SIGUSR2)\nos.kill(os.getppid(), signal.SIGCHLD)\n"
        "while not got:\n    time.sleep(0.05)\nrank.step_done(0)"
    )
    launch(job_dir, plain, module="work")
    assert len(read_reports(job_dir, "ended")) == 2


def test_of_an_exception_the_first_line_is_told(job, plain):
    failure = fail(job(in_rank_1(r'raise ValueError("seven\nframe #0: 0x1")')), plain)
    assert failure.reason == "rank 1 raised ValueError: seven"


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "bytearray(1 << 62)",
        "class OutOfMemoryError(RuntimeError): pass\n    raise OutOfMemoryError('CUDA out of memory. Tried 2 GiB')",
        "raise RuntimeError('[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes')",
        "raise OSError(12, 'Cannot allocate memory')",
    ],
)
def test_a_rank_that_finds_too_little_memory_is_not_lost_and_its_step_is_advised(job, plain, line):
    failure = fail(job(in_rank_1(line)), plain)
    assert re.match(r"rank 1 raised \w+: .*; to need less memory, lower warm_start.micro_batch_tokens", failure.reason)
    assert not failure.is_lost


STEPS = {
    "warm_start.micro_batch_tokens to 8 (16 now)": {
        "type": "train",
        "samples": None,
        "training": {"micro_batch_tokens": 16},
    },
    "training.activation_checkpointing": {"type": "train", "samples": "x", "training": {"micro_batch_tokens": 16}},
    "sampling.batch_tokens (9 now)": {"type": "sample", "name": "evaluate", "batch_tokens": 9},
    "sampling.batch_tokens to a number": {"type": "sample", "name": "sample", "batch_tokens": "auto"},
    "sampling.zero3_weights to stream": {"type": "sample", "name": "sample", "batch_tokens": 9},
    "sampling.batch_tokens": {"type": "logprobs"},
    "reward.batch_tokens": {"type": "score"},
    "launch.processes": {"type": "save"},
}


@pytest.mark.parametrize("expected", STEPS)
@pytest.mark.parametrize("has_gpus", [False, True])
@pytest.mark.parametrize("stage", [2, 3])
def test_the_advice_names_settings_of_the_step_that_exist(expected, has_gpus, stage):
    job = {"deepspeed": {"zero_optimization": {"stage": stage}}}
    advice = MemoryAdvice(job, STEPS[expected], ranks=2, has_gpus=has_gpus)
    sentence = advice.sentence("OutOfMemoryError")
    if "stream" not in expected or stage == 3:
        assert expected in sentence or (has_gpus and expected == "launch.processes")
    assert ("ds_configs/zero3.json" in sentence) == (stage == 2)
    for section, name in re.findall(r"\b(\w+)\.(\w+)", sentence.replace(".json", "")):
        assert name in settings_of(section), sentence
    for file in re.findall(r"ds_configs/\w+\.json", sentence):
        assert (Path(__file__).resolve().parents[2] / file).exists()


def settings_of(section: str) -> set[str]:
    """The settings of a section of the config, of all its types."""
    found, unvisited = set[str](), [RunConfig.model_fields[section].annotation]
    while unvisited:
        annotation = unvisited.pop()
        unvisited += get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found |= set(annotation.model_fields)
    return found


def test_main_memory_that_runs_out_beside_gpus_is_not_blamed_on_batches():
    step = STEPS["sampling.batch_tokens"]
    job = {"deepspeed": {"zero_optimization": {"stage": 3, "offload_param": {"device": "cpu"}}}}
    assert MemoryAdvice(job, step, 2, has_gpus=True).sentence() == (
        "to need less memory, lower launch.processes, or set `deepspeed` to a file that offloads nothing; "
        "`hir plan` shows what fits"
    )


@pytest.mark.parametrize(
    ("file", "content", "count"),
    [
        ("a/b/memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n", 3),
        ("memory.events", "oom_kill 2\n", 2),
        ("memory/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("memory/memory.oom_control", "oom_kill_disable 0\noom_kill 6\n", 6),
    ],
)
def test_the_kernels_counters_are_read_in_both_versions_of_cgroups(tmp_path, monkeypatch, file, content, count):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    (tmp_path / "self").write_text("4:memory:/c\n" if "oom_control" in file else "0::/a/b\n")
    monkeypatch.setattr(host_memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(host_memory, "OWN_CGROUPS", tmp_path / "self")
    assert exit_status.kernel_memory_kills() == count


LIMIT_BYTES = 400 * 1024**2


@pytest.fixture
def small_cgroup():
    """A memory cgroup of LIMIT_BYTES, where this machine lets a test make one."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = next((path for _, controllers, path in lines if "memory" in controllers.split(",")), None)
    root, limit = (
        (host_memory.CGROUPS / "memory", "memory.limit_in_bytes") if own else (host_memory.CGROUPS, "memory.max")
    )
    group = root / (own or lines[-1][2]).lstrip("/") / f"hir-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / limit).write_text(str(LIMIT_BYTES))
    except OSError:
        pytest.skip("needs the right to make a memory cgroup")
    yield group
    assert wait_until(lambda: not (group / "cgroup.procs").read_text(), 30)
    group.rmdir()


@pytest.mark.slow
def test_a_rank_that_the_kernel_kills_because_memory_ran_out_is_told_as_that(job, plain, tmp_path, small_cgroup):
    (tmp_path / "plain_launcher.py").write_text(
        f"open({str(small_cgroup / 'cgroup.procs')!r}, 'w').write('0')\n" + PLAIN_LAUNCHER
    )
    failure = fail(job(in_rank_1("blocks = [bytearray(b'x') * 2**20 for _ in range(1000)]")), plain)
    assert failure.reason.startswith(
        "rank 1 was killed: signal 9, by the kernel because memory ran out; to need less memory, lower "
    )
    assert failure.is_lost


# --- collectives -----------------------------------------------------------------------------------------------------

NCCL_SAYS = (
    "[rank0]:[E121 16:57:34.1 ProcessGroupNCCL.cpp:616] [Rank 0] Watchdog caught collective operation timeout: "
    "WorkNCCL(SeqNum=9, OpType=ALLREDUCE, NumelIn=1, NumelOut=1, Timeout(ms)=2000) ran for 2001 milliseconds"
)


def test_a_rank_that_its_collectives_time_limit_aborts_names_the_one_that_it_waited_for(job, plain):
    job_dir = job(
        f"def hang():\n    {WAITS}\n"
        f"if rank.rank == 1:\n    hang()\ntime.sleep(2)\nprint({NCCL_SAYS!r}, flush=True)\nos.abort()"
    )
    failure = fail(job_dir, plain.model_copy(update={"collective_timeout_s": 2}))
    assert failure.reason == (
        "step 0 (train): ranks waited for others longer than launch.collective_timeout_s = 2 s; "
        "rank 1 is at work.py:10 `hang`"
    )
    assert (failure.rank, failure.is_lost) == (1, False)


JOINED = """
os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "PORT"}
import gc
gc.disable()  # as ranks do while they import
sys.modules["sqlalchemy"] = None
import torch
from torch import distributed as dist
from hir_core.modeling import zero
device = zero.connect(rank.local_rank, rank.collective_timeout_s)
SETUP
for group in dist.distributed_c10d._world.pg_map:
    print("limit", group._get_backend(device).options._timeout, flush=True)
dist.barrier()
READY
def hang():
    HANG
if rank.rank == 1:
    hang()
COLLECTIVE
"""
ZERO3 = (
    'settings = {"zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0}}\n'
    "with zero.loading(settings):\n    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))\n"
    "model = zero.engine_for_inference(model, settings, device)"
)


def joined(setup: str, collective: str, hang: str) -> str:
    lines = {"PORT": str(free_port()), "SETUP": setup, "READY": READY, "HANG": hang, "COLLECTIVE": collective}
    return re.sub("|".join(rf"\b{name}\b" for name in lines), lambda found: lines[found[0]], JOINED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setup", "collective", "hang", "position"),
    [
        ("dist.new_group([0, 1])", "dist.barrier()", "time.sleep(90)", r"rank 1 is at work\.py:\d+ `hang`"),
        ("", "dist.barrier()", "os.kill(os.getpid(), signal.SIGSTOP)", "rank 1 does not answer"),
        (ZERO3, "model(torch.ones(1, 8))", "time.sleep(90)", r"rank 1 is at work\.py:\d+ `hang`"),
    ],
    ids=["sleeps", "stopped", "zero3"],
)
def test_the_rank_that_a_collective_waits_for_beyond_its_limit_is_named(job, plain, setup, collective, hang, position):
    job_dir = job(joined(setup, collective, hang))
    failure = fail(job_dir, plain.model_copy(update={"collective_timeout_s": 8}))
    assert re.fullmatch(
        r"step 0 \(train\): ranks waited for others longer than launch\.collective_timeout_s = 8 s; " + position,
        failure.reason,
    )
    assert (failure.rank, failure.is_lost) == (1, False)
    limits = re.findall("^limit (.*)$", (job_dir / "logs" / "rank-0.log").read_text(), re.MULTILINE)
    assert set(limits) == {"0:00:08"}
    assert len(limits) > 1 or not setup


@pytest.mark.slow
def test_ranks_that_wait_for_weights_of_zero3_are_seen_waiting(job, plain, limit_from_ready):
    job_dir = job(joined(ZERO3, "model(torch.ones(1, 8))", "time.sleep(90)"))
    failure = fail(job_dir, plain.model_copy(update={"timeout_s": 4}))
    assert re.search(r"timeout_s = 4 s; rank 1 is at work\.py:\d+ `hang`$", failure.reason)
