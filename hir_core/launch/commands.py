"""Command lines and environment with which `deepspeed` or `torchrun` starts a module on every rank.

A single rank on this machine is started without a launcher, which would take two seconds to start one process.
The argument lists hold the module and the job's folder, never a setting or a prompt. Writes `launch.env` into the job's
folder, for ranks on other hosts. Starts nothing itself: `launcher` does.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.launch.devices import Place
from hir_core.launch.ports import free_port
from hir_core.launch.rank_process import COLLECTIVE_TIMEOUT
from hir_core.store.files import write_text

FORWARDED = (
    "DS_ACCELERATOR",
    "OMP_NUM_THREADS",
    "TOKENIZERS_PARALLELISM",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "PYTORCH_ALLOC_CONF",
    COLLECTIVE_TIMEOUT,
)
"""Variables that reach other hosts; the deepspeed launcher itself forwards `PYTHON*` and `NCCL*` only."""


def launcher_command(job_dir: Path, config: LaunchConfig, place: Place, module: str) -> list[str]:
    """The argument list that runs the module on every rank, with the job's folder as its only argument."""
    work = [module, str(job_dir)]
    if place.is_remote:
        # --force_multi: a hostfile with one host would otherwise run here, whatever that host's name is.
        flags = [f"--hostfile={config.hostfile}", "--force_multi", "--module", "--no_local_rank"]
        master_port = [] if config.port is None else [f"--master_port={config.port}"]
        return [sys.executable, "-m", "deepspeed.launcher.runner", *flags, *master_port, *work]
    if _is_alone(config, place):
        return [sys.executable, "-m", *work]
    port = config.port or free_port()
    if config.launcher == "torchrun":
        flags = ["--nnodes=1", f"--nproc-per-node={place.ranks}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        return [sys.executable, "-m", "torch.distributed.run", *flags, "-m", *work]
    return [*_deepspeed_on_this_machine(place, port), *work]


def _is_alone(config: LaunchConfig, place: Place) -> bool:
    """Whether the only rank is here, and no launcher was asked for that does more than to start it."""
    return place.ranks == 1 and not place.is_remote and config.launcher == "deepspeed"


def _deepspeed_on_this_machine(place: Place, port: int) -> list[str]:
    """The command of DeepSpeed's launcher for one machine.

    The `deepspeed` command would start the same launcher after importing everything once more (3.5 s on two cores). It
    would also use the first GPUs instead of those in `CUDA_VISIBLE_DEVICES`, and follow any `/job/hostfile`.
    """
    devices = place.devices.gpus[: place.ranks] or tuple(str(core) for core in range(place.ranks))
    world_info = base64.urlsafe_b64encode(json.dumps({"localhost": devices}).encode()).decode()
    flags = [f"--world_info={world_info}", "--master_addr=127.0.0.1", f"--master_port={port}"]
    return [sys.executable, "-m", "deepspeed.launcher.launch", *flags, "--module", "--no_local_rank"]


def launcher_env(job_dir: Path, config: LaunchConfig, place: Place) -> dict[str, str]:
    """The environment of launcher and ranks: this process's own, with defaults for what it does not set.

    Writes the variables that ranks on other hosts need to `launch.env`.
    """
    env = {"TOKENIZERS_PARALLELISM": "false"}
    if not place.is_remote:
        env["OMP_NUM_THREADS"] = str(max(1, place.devices.cores // place.ranks))
        if place.devices.gpus:
            # The caches of sampling grow and shrink: of memory in fixed pieces, what one frees would not fit the next.
            if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
                env["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
        else:
            env["DS_ACCELERATOR"] = "cpu"
    env |= os.environ
    if _is_alone(config, place):
        env |= _environment_of_the_only_rank(config.port or free_port(), place)
    env["PYTHONUNBUFFERED"] = "1"
    env[COLLECTIVE_TIMEOUT] = str(config.collective_timeout_s)
    # Ranks import `hir_core` and the user's own modules. An installed package is found without a path, and
    # site-packages must not come before the standard library.
    checkout = Path(__file__).resolve().parents[2]
    own_path = [] if checkout.name in ("site-packages", "dist-packages") else [str(checkout)]
    inherited = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*own_path, str(Path.cwd()), *inherited]))
    # DeepSpeed builds its C++ operators with `ninja`, which is beside the interpreter but not on PATH where the
    # environment was not activated.
    env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    if place.is_remote:
        env["DS_ENV_FILE"] = str(_write_forwarded(job_dir / "launch.env", env))
    return env


def _environment_of_the_only_rank(port: int, place: Place) -> dict[str, str]:
    """What DeepSpeed's launcher would set for it."""
    rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_SIZE": "1", "CROSS_RANK": "0", "CROSS_SIZE": "1"}
    device = {"CUDA_VISIBLE_DEVICES": place.devices.gpus[0]} if place.devices.gpus else {}
    return rank | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | device


def _write_forwarded(path: Path, env: dict[str, str]) -> Path:
    """Writes the variables that the deepspeed launcher sets on other hosts, those of the user's own file included."""
    users_files = [folder / env.get("DS_ENV_FILE", ".deepspeed_env") for folder in (Path.home(), Path.cwd())]
    lines = [f"{name}={env[name]}" for name in FORWARDED if name in env]
    lines += [line for file in users_files if file.is_file() for line in file.read_text().splitlines() if "=" in line]
    return write_text(path, "".join(f"{line}\n" for line in dict.fromkeys(lines)))
