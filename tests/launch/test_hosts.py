"""A launch on two hosts: it works, and when a host, its link or a rank is gone, nothing is left and the cause is named.

The hosts are network namespaces of this machine, so these tests need root. The ranks run lines of the test.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_run import PATIENCE_S
from launched_work import READY, WORK, are_ready, processes_of, wait_until
from two_hosts import TwoHosts, two_hosts, why_not

from hir_core.config import LaunchConfig
from hir_core.errors import JobFailed
from hir_core.launch.hosts import Hosts
from hir_core.launch.launcher import launch
from hir_core.launch.rank import read_reports

CHECKOUT = Path(__file__).resolve().parents[2]
GONE_WITHIN_S = 30

DRIVER = """
import sys
from pathlib import Path
from hir_core.config import LaunchConfig
from hir_core.errors import HirError
from hir_core.launch.host import serve_run
from hir_core.launch.hosts import Hosts
from hir_core.launch.launcher import launch
from hir_core.launch.node_rank import find_node_rank

folder = Path(sys.argv[1])
if sys.argv[2] == "hostfile":
    config = LaunchConfig(hostfile=folder / "hosts", collective_timeout_s=7)
else:
    config = LaunchConfig(launcher="external", processes=1, nodes=2, node_rank=int(sys.argv[2]), join_timeout_s=60)
try:
    if sys.argv[2] == "1":
        sys.exit(serve_run(config, folder, find_node_rank(config)))
    with Hosts(config, folder) as hosts:
        for _ in range(int(sys.argv[3])):
            launch(folder / "job", config, module="work", hosts=hosts)
except HirError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def network() -> Iterator[TwoHosts]:
    with two_hosts() as hosts:
        yield hosts


@pytest.fixture
def started(job, network, tmp_path) -> Callable[..., dict[str, subprocess.Popen[bytes]]]:
    """Starts the driver on both hosts, with these lines as the work of their ranks."""

    def start(body: str | None, launches: int = 1) -> dict[str, subprocess.Popen[bytes]]:
        if body is not None:
            job(body)
        env = os.environ | {"PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
        drivers = {}
        for node, host in enumerate(("near", "far")):
            with (tmp_path / f"{host}.txt").open("w") as said:
                command = [sys.executable, "-c", DRIVER, str(tmp_path), str(node), str(launches)]
                drivers[host] = network.on(host, command, env=env, stdout=said, stderr=said)
        return drivers

    return start


def rank_pid(job_dir: Path, rank: int) -> int:
    return next(report.pid for report in read_reports(job_dir, "started") if report.rank == rank)


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible here")
def test_two_hosts_that_a_cluster_has_started_do_job_after_job(started, network, tmp_path):
    drivers = started(
        'import socket\nprint(rank.rank, rank.world_size, socket.gethostname(), os.environ["MASTER_ADDR"], '
        'os.environ["GLOO_SOCKET_IFNAME"])\nrank.step_done(0)',
        launches=2,
    )
    assert [drivers[host].wait(PATIENCE_S) for host in ("near", "far")] == [0, 0], (tmp_path / "near.txt").read_text()
    logs = [(tmp_path / "job" / "logs" / f"rank-{rank}.log").read_text() for rank in (0, 1)]
    assert logs == ["0 2 near 10.77.0.1 cable\n", "1 2 far 10.77.0.1 cable\n"]
    assert (tmp_path / "job" / "attempt-1").is_dir(), "the first of two launches"
    assert [network.processes(host) for host in ("near", "far")] == [[], []]
    assert not (tmp_path / "launches" / "head.json").exists()


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible here")
@pytest.mark.parametrize(
    ("what", "near_says", "far_says"),
    [
        ("head killed", None, r"host 1 \(far\): the head of the run is gone: the connection was closed"),
        (
            "link cut",
            r"^host 1 \(far, 10\.77\.0\.2\) is lost: nothing was heard from it",
            "the head of the run is gone",
        ),
        ("rank killed", "^rank 1 was killed: signal 9, from outside", "the head of the run is gone"),
        ("host asked", r"^host 1 \(far, .*\) is lost: it was asked to end with signal 15 \(Terminated\), by", ""),
    ],
)
def test_nothing_is_left_when_a_part_of_a_launch_is_gone(started, network, tmp_path, what, near_says, far_says):
    ignoring = "if rank.rank == 0:\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    drivers = started(f"{ignoring}{READY}\ntime.sleep(120)")
    assert wait_until(lambda: are_ready(tmp_path / "job"), PATIENCE_S), (tmp_path / "near.txt").read_text()
    begun = time.monotonic()
    if what == "link cut":
        network.cut()
    else:
        victim = {"head": drivers["near"].pid, "host": drivers["far"].pid, "rank": rank_pid(tmp_path / "job", 1)}
        os.kill(victim[what.split()[0]], signal.SIGTERM if what == "host asked" else signal.SIGKILL)
    assert wait_until(lambda: not network.processes("near") and not network.processes("far"), GONE_WITHIN_S)
    assert time.monotonic() - begun < GONE_WITHIN_S
    for host, message in (("near", near_says), ("far", far_says)):
        code = 128 + signal.SIGTERM if message == "" else -signal.SIGKILL if message is None else 1
        assert drivers[host].wait(1) == code
        assert message is None or re.search(message, (tmp_path / f"{host}.txt").read_text())
    if what == "head killed":  # it has left its file, which leads the host nowhere
        (tmp_path / "work.py").write_text(WORK.format(body="    rank.step_done(0)"))
        again = started(None)
        assert [again[host].wait(PATIENCE_S) for host in ("near", "far")] == [0, 0], (tmp_path / "near.txt").read_text()


SSH = """#!/bin/sh
# ssh -o OPTION -o OPTION HOST COMMAND, as a login with an environment of its own would run it there
exec ip netns exec "hir-$5-{number}" unshare --uts env -i PATH="$PATH" HOME=/root sh -c "hostname $5; $6"
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible here")
def test_hosts_of_a_hostfile_are_started_with_ssh_and_get_the_environment(job, network, tmp_path):
    shown = ("NCCL_DEBUG", "HF_TOKEN", "HIR_COLLECTIVE_TIMEOUT_S", "OMP_NUM_THREADS", "USER_SECRET")
    job(f"print(rank.rank, rank.local_rank, rank.world_size, *map(os.environ.get, {shown}))\nrank.step_done(0)")
    (tmp_path / "hosts").write_text("near slots=1\nfar slots=2\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").write_text(SSH.format(number=network.number))
    (tmp_path / "bin" / "ssh").chmod(0o755)
    told = {"NCCL_DEBUG": "WARN", "HF_TOKEN": "hf_x", "OMP_NUM_THREADS": "1", "USER_SECRET": "seven"}
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": f"{CHECKOUT}:{tmp_path}"}
    command = [sys.executable, "-c", DRIVER, str(tmp_path), "hostfile", "1"]
    driver = network.on("near", command, env=os.environ | told | path, cwd=tmp_path)
    assert driver.wait(PATIENCE_S) == 0
    logs = [(tmp_path / "job" / "logs" / f"rank-{rank}.log").read_text() for rank in range(3)]
    assert logs == [
        "0 0 3 WARN hf_x 7.0 1 seven\n",
        "1 1 3 WARN None 7.0 1 None\n",  # DeepSpeed's launcher counts on a host from the rank's remainder
        "2 0 3 WARN None 7.0 1 None\n",
    ]
    assert [network.processes(host) for host in ("near", "far")] == [[], []]


SRUN = """#!/usr/bin/env python3
# srun --nodes=2 OPTION... COMMAND, on this machine: each task has the same standard input, and one that fails ends all
import os, subprocess, sys, time
from pathlib import Path

command = next(sys.argv[n:] for n, word in enumerate(sys.argv) if n and not word.startswith("--"))
with Path("{folder}/srun.txt").open("a") as asked:
    print(*sys.argv[1:len(sys.argv) - len(command)], file=asked)
told = sys.stdin.buffer.read()
env = os.environ | {{"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "0"}}
tasks = [subprocess.Popen(command, stdin=subprocess.PIPE, env=env | {{"SLURM_NODEID": n}}) for n in "01"]
for task in tasks:
    task.stdin.write(told)
    task.stdin.close()
while any(task.poll() is None for task in tasks) and not any(task.poll() for task in tasks):
    time.sleep(0.05)
for task in tasks:
    task.kill()
"""


LOSES_ITS_HOST_ONCE = """
from hir_core.supervisor import parent_of
if not Path(sys.argv[1], "attempt-1").exists():
    if rank.rank == 1:
        os.kill(parent_of(int(os.environ["HIR_SUPERVISOR"])), signal.SIGKILL)
    time.sleep(60)
rank.step_done(0)
"""


@pytest.mark.slow
def test_slurm_starts_the_hosts_and_starts_them_anew_when_one_is_lost(job, tmp_path, monkeypatch):
    job_dir = job(LOSES_ITS_HOST_ONCE)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(SRUN.format(folder=tmp_path))
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    config = LaunchConfig(launcher="slurm", nodes=2, processes=1, srun=("--partition=gpu",))
    with Hosts(config, tmp_path) as hosts:
        with pytest.raises(JobFailed, match=r"^host 1 \(.*\) is lost: the connection was closed") as caught:
            launch(job_dir, config, module="work", hosts=hosts)
        assert caught.value.is_lost
        launch(job_dir, config, module="work", hosts=hosts)
    asked = "--nodes=2 --ntasks=2 --ntasks-per-node=1 --cpu-bind=none --job-name=hir --partition=gpu"
    assert (tmp_path / "srun.txt").read_text().splitlines() == [asked, asked]
    assert processes_of(tmp_path) == []
