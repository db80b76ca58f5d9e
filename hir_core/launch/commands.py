"""The command lines and the environment with which `deepspeed` and `torchrun` start a module on every rank.

Argument lists carry the module and the job's folder, never a setting or a prompt. Writes `launch.env` into the job's
folder, for ranks on other hosts. Runs nothing: that is `launch`.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.launch.devices import Place

FORWARDED = ("DS_ACCELERATOR", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_HOME", "HF_HUB_OFFLINE")
"""Variables that reach other hosts; the deepspeed launcher itself forwards `PYTHON*` and `NCCL*` only."""


def launcher_command(job_dir: Path, config: LaunchConfig, place: Place, module: str) -> list[str]:
    """Returns the argument list that runs the module on every rank, with the job's folder as its only argument."""
    work = [module, str(job_dir)]
    if place.is_remote:
        return [*_deepspeed_on_hosts(config), *work]
    port = config.port or _free_port()
    if config.launcher == "torchrun":
        where = ["--nnodes=1", f"--nproc-per-node={place.ranks}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        return [sys.executable, "-m", "torch.distributed.run", *where, "-m", *work]
    return [*_deepspeed_here(place, port), *work]


def _deepspeed_here(place: Place, port: int) -> list[str]:
    """DeepSpeed's launcher of one machine.

    The `deepspeed` command would start this one too, after importing everything once more (3.5 s on two cores). It
    would also replace the GPUs that `CUDA_VISIBLE_DEVICES` chose by the first ones, and obey any `/job/hostfile`.
    """
    devices = place.devices.gpus[: place.ranks] or tuple(str(core) for core in range(place.ranks))
    where = base64.urlsafe_b64encode(json.dumps({"localhost": devices}).encode()).decode()
    flags = [f"--world_info={where}", "--master_addr=127.0.0.1", f"--master_port={port}", "--module", "--no_local_rank"]
    return [sys.executable, "-m", "deepspeed.launcher.launch", *flags]


def _deepspeed_on_hosts(config: LaunchConfig) -> list[str]:
    # --force_multi: a hostfile with one host would otherwise run here, whatever that host's name is.
    flags = [f"--hostfile={config.hostfile}", "--force_multi", "--module", "--no_local_rank"]
    port = [] if config.port is None else [f"--master_port={config.port}"]
    return [sys.executable, "-m", "deepspeed.launcher.runner", *flags, *port]


def launcher_env(job_dir: Path, place: Place) -> dict[str, str]:
    """Returns the environment of launcher and ranks: this one, and what it leaves open.

    Writes what other hosts need of it to `launch.env`.
    """
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if not place.is_remote:
        env["OMP_NUM_THREADS"] = str(max(1, place.devices.cores // place.ranks))
        if not place.devices.gpus:
            env["DS_ACCELERATOR"] = "cpu"
    env |= os.environ
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONPATH"] = os.pathsep.join(_import_path(env.get("PYTHONPATH", "")))
    # DeepSpeed builds its C++ operators with `ninja`, which lies beside an interpreter that nobody activated.
    env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    if place.is_remote:
        env["DS_ENV_FILE"] = str(_write_forwarded(job_dir / "launch.env", env))
    return env


def _import_path(inherited: str) -> list[str]:
    """Makes `hir_core` and the user's own modules importable in the ranks."""
    checkout = Path(__file__).resolve().parents[2]
    # An installed package is found anyway, and site-packages must not come before the standard library.
    ours = [] if checkout.name in ("site-packages", "dist-packages") else [str(checkout)]
    return [*dict.fromkeys([*ours, str(Path.cwd()), *filter(None, inherited.split(os.pathsep))])]


def _write_forwarded(path: Path, env: dict[str, str]) -> Path:
    """Writes the variables that the deepspeed launcher sets on other hosts; the user's own file stays in force."""
    users = [folder / env.get("DS_ENV_FILE", ".deepspeed_env") for folder in (Path.home(), Path.cwd())]
    lines = [f"{name}={env[name]}" for name in FORWARDED if name in env]
    lines += [line for file in users if file.is_file() for line in file.read_text().splitlines() if "=" in line]
    path.write_text("".join(f"{line}\n" for line in dict.fromkeys(lines)))
    return path


def is_free(port: int) -> bool:
    """Whether a launch on this machine can use the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port that was just left can be used
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
