"""Command lines and environment with which `deepspeed` or `torchrun` starts a module on every rank of a host.

A single rank is started without a launcher, which would take two seconds to start one process. The argument lists hold
the module and the job's folder, never a setting or a prompt. Starts nothing itself: `launcher` does, and on each of
several hosts `host`.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.launch.devices import Devices, Place
from hir_core.launch.messages import Start
from hir_core.launch.ports import free_port
from hir_core.launch.rank_process import COLLECTIVE_TIMEOUT, NODE_RANK

_NOT_FORWARDED = ("*TOKEN", "*KEY", "*SECRET", "*PASSWORD")
_OF_STARTER = "TORCHELASTIC_*"
"""What torchrun sets for the processes that it starts: it would tell torch that these ranks are those."""


def launcher_command(job_dir: Path, config: LaunchConfig, place: Place, module: str) -> list[str]:
    """The argument list that runs the module on every rank, with the job's folder as its only argument."""
    work = [module, str(job_dir)]
    if _is_alone(config, place):
        return [sys.executable, "-m", *work]
    port = config.port or free_port()
    if config.launcher == "torchrun":
        flags = ["--nnodes=1", f"--nproc-per-node={place.ranks}", "--master-addr=127.0.0.1", f"--master-port={port}"]
        return [sys.executable, "-m", "torch.distributed.run", *flags, "-m", *work]
    devices = place.devices.gpus[: place.ranks] or tuple(map(str, range(place.ranks)))
    return [*_deepspeed_launcher({"localhost": devices}, 0, "127.0.0.1", port), *work]


def host_command(start: Start, node: int, devices: Devices) -> list[str]:
    """The argument list that runs the module on every rank of one of several hosts.

    Args:
        start: where the job is, and the ranks of each host.
        node: the number of this host.
        devices: those of this host.
    """
    work = [start.module, start.job_dir]
    if start.slots[node] == 1:
        return [sys.executable, "-m", *work]
    numbers = {str(host): tuple(map(str, range(slots))) for host, slots in enumerate(start.slots)}
    numbers[str(node)] = devices.gpus[: start.slots[node]] or numbers[str(node)]
    return [*_deepspeed_launcher(numbers, node, start.master_addr, start.master_port), *work]


def _is_alone(config: LaunchConfig, place: Place) -> bool:
    """Whether the only rank is here, and no launcher was asked for that does more than to start it."""
    return place.ranks == 1 and config.launcher == "deepspeed"


def _deepspeed_launcher(devices: Mapping[str, Sequence[str]], node: int, master_addr: str, port: int) -> list[str]:
    """The command of DeepSpeed's launcher on one host.

    The `deepspeed` command would start the same launcher after importing everything once more (3.5 s on two cores). It
    would also use the first GPUs instead of those in `CUDA_VISIBLE_DEVICES`, and follow any `/job/hostfile`.

    Args:
        devices: those of the ranks, by host.
        node: which of the hosts this one is.
    """
    world_info = base64.urlsafe_b64encode(json.dumps(devices).encode()).decode()
    flags = [f"--world_info={world_info}", f"--master_addr={master_addr}", f"--master_port={port}"]
    which = [f"--node_rank={node}"] if len(devices) > 1 else []
    return [sys.executable, "-m", "deepspeed.launcher.launch", *flags, *which, "--module", "--no_local_rank"]


def launcher_env(config: LaunchConfig, place: Place) -> dict[str, str]:
    """The environment of launcher and ranks on this machine: this process's own, with defaults for what it lacks."""
    env = _environment(place.ranks, place.devices, config.collective_timeout_s)
    if _is_alone(config, place):
        env |= _environment_of_the_only_rank(place.devices, 0, [1], "127.0.0.1", config.port or free_port())
    return env


def host_env(start: Start, node: int, devices: Devices, interface: str | None) -> dict[str, str]:
    """The environment of launcher and ranks on one of several hosts.

    Args:
        start: the ranks of each host, and where they meet.
        node: the number of this host.
        devices: those of this host.
        interface: its network interface by which the others reach it; None: not known.
    """
    env = _environment(start.slots[node], devices, start.collective_timeout_s)
    env[NODE_RANK] = str(node)
    if interface is not None:
        # gloo would take the address of the host's name, which is often one that only the host itself can reach.
        env.setdefault("GLOO_SOCKET_IFNAME", interface)
    if start.slots[node] == 1:
        env |= _environment_of_the_only_rank(devices, node, start.slots, start.master_addr, start.master_port)
    return env


def forwarded_env(patterns: Sequence[str]) -> dict[str, str]:
    """The variables that other hosts get from this one; see the setting `launch.env`."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in patterns
        or (
            any(fnmatchcase(name, pattern) for pattern in patterns)
            and not any(fnmatchcase(name, secret) for secret in _NOT_FORWARDED)
        )
    }


def python_path() -> str:
    """Where ranks find `hir_core` and the user's own modules, as the variable PYTHONPATH.

    An installed package is found without a path, and site-packages must not come before the standard library.
    """
    checkout = Path(__file__).resolve().parents[2]
    own_path = [] if checkout.name in ("site-packages", "dist-packages") else [str(checkout)]
    inherited = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    return os.pathsep.join(dict.fromkeys([*own_path, str(Path.cwd()), *inherited]))


def _environment(ranks: int, devices: Devices, collective_timeout_s: float) -> dict[str, str]:
    """What all ranks of a host share."""
    env = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(max(1, devices.cores // ranks))}
    if devices.gpus:
        # The caches of sampling grow and shrink: of memory in fixed pieces, what one frees would not fit the next.
        if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its older name
            env["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
    else:
        env["DS_ACCELERATOR"] = "cpu"
    env |= {name: value for name, value in os.environ.items() if not fnmatchcase(name, _OF_STARTER)}
    env["PYTHONUNBUFFERED"] = "1"
    env[COLLECTIVE_TIMEOUT] = str(collective_timeout_s)
    env[NODE_RANK] = "0"
    env["PYTHONPATH"] = python_path()
    # DeepSpeed builds its C++ operators with `ninja`, which is beside the interpreter but not on PATH where the
    # environment was not activated.
    env["PATH"] = os.pathsep.join([env.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    return env


def _environment_of_the_only_rank(
    devices: Devices, node: int, slots: Sequence[int], master_addr: str, port: int
) -> dict[str, str]:
    """What DeepSpeed's launcher would set for the only rank of a host."""
    rank = {"RANK": sum(slots[:node]), "LOCAL_RANK": 0, "WORLD_SIZE": sum(slots), "LOCAL_SIZE": 1}
    place = {"CROSS_RANK": node, "CROSS_SIZE": len(slots), "MASTER_PORT": port}
    device = {"CUDA_VISIBLE_DEVICES": devices.gpus[0]} if devices.gpus else {}
    return {name: str(value) for name, value in (rank | place).items()} | {"MASTER_ADDR": master_addr} | device
