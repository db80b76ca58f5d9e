"""Runs one job over N ranks through the `deepspeed` or `torchrun` launcher, and leaves nothing behind.

`launch` starts the launcher below a supervisor (see `supervisor`), hands on the ranks' progress and finished steps
while it runs, and turns whatever went wrong into one exception. The launcher's exit code alone proves nothing: success
is that every step of `job.json` has its done file.

Reads in the job's folder: `job.json` (written by the caller; only its list `steps` matters here) and the ranks' files
(see `rank`). Writes there: `logs/launcher.log`, `launch.env` for other hosts, and `attempt-N/`, where the traces of an
earlier launch from the same folder go. Argument lists carry the module and the folder, never a setting or a prompt.
Driver side: no torch, no deepspeed. Linux only, as are DeepSpeed and the supervisor. Leaves the work to `job`.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import math
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hir_core import errors, supervisor
from hir_core.config import LaunchConfig
from hir_core.devices import Devices, find_devices, is_remote, read_hostfile
from hir_core.errors import ConfigError, HirError, JobFailed
from hir_core.rank import Progress, RankState, done_file, rank_log, read_progress, read_ranks

logger = logging.getLogger(__name__)

POLL_S = 0.25
FAILURE_GRACE_S = 3.0
"""How long the other ranks may live on after one has failed: they may wait for it in a collective for ever."""
STOP_S = supervisor.TERM_GRACE_S + supervisor.KILL_GRACE_S + 2.0
TAIL_LINES, TAIL_BYTES = 20, 65536


# --- where it runs ---------------------------------------------------------------------------------------------------


def world(config: LaunchConfig, devices: Devices | None = None) -> int:
    """Returns how many ranks a launch has: the hostfile's slots, the number asked for, or one per GPU (else one).

    Raises:
        ConfigError: the hostfile is missing or malformed.
    """
    if config.hostfile is not None:
        return sum(read_hostfile(config.hostfile).values())
    if config.processes != "auto":
        return config.processes
    return len((devices or find_devices()).gpus) or 1


def check_launch(config: LaunchConfig, devices: Devices | None = None) -> None:
    """Finds what would stop a launch, before anything is started.

    Raises:
        ConfigError: more ranks than devices, a missing or malformed hostfile, no pdsh for other hosts, a taken port.
    """
    hosts = read_hostfile(config.hostfile) if config.hostfile else {}
    if is_remote(hosts):
        if shutil.which("pdsh") is None:
            raise ConfigError(
                f"launch.hostfile names {', '.join(hosts)}, and pdsh, which starts ranks there, is missing"
            )
        return
    found, ranks = devices or find_devices(), world(config, devices)
    if ranks > found.slots:
        asked = f"launch.hostfile {config.hostfile}" if config.hostfile else "launch.processes"
        raise ConfigError(f"{asked} asks for {ranks} ranks, and this machine has {found.slots} {found.word}: lower it")
    if config.port is not None and not _is_free(config.port):
        raise ConfigError(f"launch.port {config.port} is taken on this machine: choose another, or leave it out")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- what is run -----------------------------------------------------------------------------------------------------


def launch_command(job_dir: Path, config: LaunchConfig, *, module: str, devices: Devices) -> list[str]:
    """Returns the argument list that runs the module on every rank."""
    hosts = read_hostfile(config.hostfile) if config.hostfile else {}
    work = [module, str(job_dir)]
    if is_remote(hosts):
        return [*_deepspeed_hosts(config), *work]
    ranks, port = world(config, devices), config.port or _free_port()
    if config.launcher == "torchrun":
        place = ["--nnodes=1", f"--nproc-per-node={ranks}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        return [sys.executable, "-m", "torch.distributed.run", *place, "-m", *work]
    return [*_deepspeed_here(ranks, port, devices), *work]


def _deepspeed_here(ranks: int, port: int, devices: Devices) -> list[str]:
    """DeepSpeed's launcher of one node.

    The `deepspeed` command would start it too, after importing everything once more (3.5 s here). It would also
    replace the GPUs that `CUDA_VISIBLE_DEVICES` chose by the first ones, and read any `/job/hostfile` unasked.
    """
    ids = devices.gpus[:ranks] or tuple(str(core) for core in range(ranks))
    place = base64.urlsafe_b64encode(json.dumps({"localhost": ids}).encode()).decode()
    flags = [f"--world_info={place}", "--master_addr=127.0.0.1", f"--master_port={port}", "--module", "--no_local_rank"]
    return [sys.executable, "-m", "deepspeed.launcher.launch", *flags]


def _deepspeed_hosts(config: LaunchConfig) -> list[str]:
    # --force_multi: a hostfile with one host would otherwise run here, whatever that host's name is.
    flags = [f"--hostfile={config.hostfile}", "--force_multi", "--module", "--no_local_rank"]
    port = [] if config.port is None else [f"--master_port={config.port}"]
    return [sys.executable, "-m", "deepspeed.launcher.runner", *flags, *port]


FORWARDED = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that reach other hosts; the deepspeed launcher itself forwards `PYTHON*` and `NCCL*` only."""


def launch_env(job_dir: Path, config: LaunchConfig, devices: Devices) -> dict[str, str]:
    """Returns the environment of launcher and ranks: this one, and what is not set in it yet."""
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if not is_remote(read_hostfile(config.hostfile) if config.hostfile else {}):
        env["OMP_NUM_THREADS"] = str(max(1, devices.cores // world(config, devices)))
        if not devices.gpus:
            env["DS_ACCELERATOR"] = "cpu"
    env |= os.environ
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONPATH"] = os.pathsep.join(_import_path(env.get("PYTHONPATH", "")))
    env["DS_ENV_FILE"] = str(job_dir / "launch.env")
    return env


def _import_path(inherited: str) -> list[str]:
    """Makes `hir_core` and the user's own modules importable in the ranks."""
    checkout = Path(__file__).resolve().parent.parent
    # An installed package is found anyway, and site-packages must not come before the standard library.
    ours = [] if checkout.name in ("site-packages", "dist-packages") else [str(checkout)]
    return [*dict.fromkeys([*ours, str(Path.cwd()), *filter(None, inherited.split(os.pathsep))])]


def _write_forwarded(env: dict[str, str]) -> None:
    """Writes the variables that the deepspeed launcher sets on other hosts; the user's own file stays in force."""
    users = [folder / os.environ.get("DS_ENV_FILE", ".deepspeed_env") for folder in (Path.home(), Path.cwd())]
    lines = [f"{name}={env[name]}" for name in FORWARDED if name in env]
    lines += [line for file in users if file.is_file() for line in file.read_text().splitlines() if "=" in line]
    Path(env["DS_ENV_FILE"]).write_text("".join(f"{line}\n" for line in lines))


# --- the launch ------------------------------------------------------------------------------------------------------


def launch(
    job_dir: Path,
    config: LaunchConfig,
    *,
    module: str = "hir_core.job",
    on_progress: Callable[[Progress], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Runs the job in `job_dir` to its end; whatever happens, none of its processes outlives this call by 10 s.

    Args:
        job_dir: holds `job.json`; on a file system that every host sees.
        config: launcher, ranks, hosts, port, time limit.
        module: what each rank runs, with `job_dir` as its only argument.
        on_progress: called with each new progress report, a few times per second at most.
        on_step: called once for each finished step, in order, as soon as it is seen; also before a failure is raised.

    Raises:
        ConfigError: the launch cannot work here; nothing was started.
        HirError: a rank raised it; same class, same message.
        JobFailed: a rank broke or died, the time ran out, or the launch ended without a step's outputs.
    """
    check_launch(config)
    devices, job_dir = find_devices(), job_dir.resolve()
    command = launch_command(job_dir, config, module=module, devices=devices)
    env = launch_env(job_dir, config, devices)
    _set_aside(job_dir)
    _write_forwarded(env)
    run = _Run(job_dir, command, on_progress or _ignore, on_step or _ignore)
    process = _start(job_dir, command, env)
    try:
        run.follow(process, config.timeout_s)
    finally:
        _stop(process)
        run.watch.close()


def _ignore(_: object) -> None:
    """Stands in for a callback that nobody asked for."""


def _set_aside(job_dir: Path) -> None:
    """Moves the traces of an earlier launch into a folder: a stale done file would pass for success."""
    patterns = ("logs", "rank-*.json", "done-*.json", "progress.json", "stop")
    traces = [path for pattern in patterns for path in job_dir.glob(pattern)]
    if traces:
        attempt = job_dir / f"attempt-{len([*job_dir.glob('attempt-*')]) + 1}"
        attempt.mkdir()
        for path in traces:
            path.rename(attempt / path.name)
    (job_dir / "logs").mkdir()


def _start(job_dir: Path, command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
    # By path and isolated: the supervisor must start whatever the user's folder or environment does to imports.
    watched = [sys.executable, "-I", "-S", str(Path(supervisor.__file__)), str(job_dir / "stop"), *command]
    with _launcher_log(job_dir).open("ab") as log:
        return subprocess.Popen(
            watched, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Closes the pipe, upon which the supervisor ends everything, and waits until it has."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()  # launcher and ranks are set to die with their parent
        process.wait()


def _launcher_log(job_dir: Path) -> Path:
    return job_dir / "logs" / "launcher.log"


class _RankWatch:
    """Sees the ranks of this machine end, in the order in which they do.

    A rank that was killed leaves no word, and its launcher ends the others within moments: who went first can only be
    seen at once, so a descriptor per process wakes the driver (pidfd).
    """

    def __init__(self, job_dir: Path) -> None:
        self.lost: list[RankState] = []
        """Ranks that ended without saying so, with the time when that was seen."""
        self._job_dir = job_dir
        self._handles: dict[int, int] = {}
        self._known: set[int] = set()

    def wait(self, seconds: float) -> None:
        """Sleeps until a rank ends, at most the time given."""
        poll = select.poll()
        for handle in self._handles:
            poll.register(handle, select.POLLIN)
        for handle, _ in poll.poll(seconds * 1000):
            self._note_end(self._handles.pop(handle))
            os.close(handle)
        self._watch_new_ranks()

    def close(self) -> None:
        """Gives back the descriptors."""
        for handle in self._handles:
            os.close(handle)
        self._handles.clear()

    def _watch_new_ranks(self) -> None:
        for state in read_ranks(self._job_dir):
            if state.rank in self._known or state.host != socket.gethostname():
                continue
            self._known.add(state.rank)
            try:
                self._handles[os.pidfd_open(state.pid)] = state.rank
            except ProcessLookupError:
                self._note_end(state.rank)

    def _note_end(self, rank: int) -> None:
        now = time.time()
        self.lost += [
            dataclasses.replace(state, time=now)
            for state in read_ranks(self._job_dir)
            if state.rank == rank and state.state == "running"
        ]


class _Run:
    """One launch, as its driver follows it."""

    def __init__(
        self,
        job_dir: Path,
        command: Sequence[str],
        on_progress: Callable[[Progress], None],
        on_step: Callable[[int], None],
    ) -> None:
        self.watch = _RankWatch(job_dir)
        self._job_dir, self._command = job_dir, command
        self._on_progress, self._on_step = on_progress, on_step
        self._steps = json.loads((job_dir / "job.json").read_text())["steps"]
        self._steps_done = 0
        self._progress: Progress | None = None

    def follow(self, process: subprocess.Popen[bytes], timeout_s: float | None) -> None:
        """Hands on what the ranks report until the supervisor ends; returns if every step is done."""
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        patience_ends = math.inf
        while process.poll() is None:
            self.watch.wait(POLL_S)
            self._relay()
            if time.monotonic() > deadline:
                raise self._broken(f"the launch took longer than launch.timeout_s = {timeout_s:g} s")
            if self._first_failure() is not None:
                patience_ends = min(patience_ends, time.monotonic() + FAILURE_GRACE_S)
            if time.monotonic() > patience_ends:
                _stop(process)
        self.watch.wait(0)
        self._relay()
        self._judge(process.returncode)

    def _relay(self) -> None:
        """Calls back for what is new: the latest progress, and each finished step once, in order."""
        progress = read_progress(self._job_dir)
        if progress is not None and progress != self._progress:
            self._progress = progress
            self._on_progress(progress)
        while self._steps_done < len(self._steps) and done_file(self._job_dir, self._steps_done).exists():
            self._steps_done += 1
            self._on_step(self._steps_done - 1)

    def _first_failure(self) -> RankState | None:
        failed = [state for state in read_ranks(self._job_dir) if state.state == "failed"]
        return min([*failed, *self.watch.lost], key=lambda state: state.time, default=None)

    def _judge(self, code: int) -> None:
        first = self._first_failure()
        if first is not None:
            raise self._failed_rank(first, code)
        if self._steps_done < len(self._steps):
            missing = f"step {self._steps_done} ({_step_name(self._steps[self._steps_done])})"
            raise self._broken(f"the launch ended but {missing} has no outputs", code=code)
        if code:
            logger.warning("every step is done, but the launcher ended with %s: %s", _status(code), self._launcher_log)

    def _failed_rank(self, state: RankState, code: int) -> HirError:
        kind = getattr(errors, state.type, None)
        if isinstance(kind, type) and issubclass(kind, HirError) and kind is not JobFailed:
            return kind(state.message)
        if state.state == "running":
            reason = f"rank {state.rank} was killed: where the system did it, memory had run out (`dmesg` tells)"
        else:
            reason = f"rank {state.rank} raised {state.type}: {state.message}"
        return self._broken(reason, code=code, rank=state.rank)

    def _broken(self, reason: str, *, code: int | None = None, rank: int | None = None) -> JobFailed:
        log = self._launcher_log if rank is None else rank_log(self._job_dir, rank)
        status = "" if code is None else _status(code)
        return JobFailed(reason, command=self._command, status=status, rank=rank, log=log, tail=_tail(log))

    @property
    def _launcher_log(self) -> Path:
        return _launcher_log(self._job_dir)


def _step_name(step: object) -> str:
    return str(step.get("name") or step.get("type")) if isinstance(step, dict) else str(step)


def _status(code: int) -> str:
    if code > 192:  # the deepspeed launcher exits with its child's negative status
        return f"exit code {code} (signal {256 - code} in a rank)"
    if code > 128:
        return f"signal {code - 128}"
    return f"exit code {code}" if code >= 0 else f"signal {-code} in its supervisor"


def _tail(log: Path) -> list[str]:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
