"""Devices on which ranks can run: this machine's GPUs or CPU cores, and the hosts of a hostfile.

Reads `nvidia-smi -L`, `CUDA_VISIBLE_DEVICES`, `DS_ACCELERATOR` and hostfiles. Does not import torch, so that the driver
starts fast and holds no GPU memory. Starts nothing: `launcher` does.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError
from hir_core.launch.node_rank import find_node_rank
from hir_core.launch.slurm import allocated_nodes


@dataclass(frozen=True)
class Devices:
    """The GPUs and the usable CPU cores of this machine; ranks run on the cores only where there is no GPU."""

    gpus: tuple[str, ...]
    """Index or UUID of each, as in `CUDA_VISIBLE_DEVICES`."""
    cores: int

    @property
    def slots(self) -> int:
        """The number of ranks that can run here."""
        return len(self.gpus) or self.cores

    @property
    def slot_name(self) -> str:
        """The kind of a slot, for messages."""
        return "GPU(s)" if self.gpus else "usable CPU core(s)"


@dataclass(frozen=True)
class Place:
    """Where the ranks of one launch run."""

    ranks: int
    devices: Devices
    """Those of this machine."""
    hosts: tuple[str, ...] = ()
    """The hosts of the hostfile, or of the cluster by number; empty: this machine only."""

    @property
    def is_remote(self) -> bool:
        """Whether any rank runs on another machine."""
        return not all(map(is_here, self.hosts))


def is_here(host: str) -> bool:
    """Whether a host's name is one of this machine."""
    return host in ("localhost", "127.0.0.1", socket.gethostname())


def find_place(config: LaunchConfig) -> Place:
    """Where a launch runs: on the hostfile's slots, or on each machine with `launch.processes` ranks.

    With `auto` there is one rank per GPU, or one rank where there is no GPU. Of the hosts of a cluster it is not known
    before they join; they are taken to have the devices of this machine.

    Raises:
        ConfigError: the hostfile is missing or malformed, or the environment does not say how many hosts there are.
    """
    devices = find_devices()
    if config.hostfile is not None:
        slots = read_hostfile(config.hostfile)
        return Place(sum(slots.values()), devices, tuple(slots))
    ranks = len(devices.gpus) or 1 if config.processes == "auto" else config.processes
    if config.launcher in ("external", "slurm"):
        nodes = allocated_nodes(config) if config.launcher == "slurm" else find_node_rank(config).nodes
        return Place(nodes * ranks, devices, tuple(f"host {node}" for node in range(nodes)))
    return Place(ranks, devices)


def find_devices() -> Devices:
    """This machine's devices, as `DS_ACCELERATOR=cpu`, `CUDA_VISIBLE_DEVICES` and the CPU affinity limit them."""
    is_cpu = os.environ.get("DS_ACCELERATOR") == "cpu" or importlib.metadata.version("torch").endswith("+cpu")
    return Devices(() if is_cpu else _visible_gpus(), len(os.sched_getaffinity(0)))


def _visible_gpus() -> tuple[str, ...]:
    """The GPUs that CUDA would use, by `nvidia-smi -L` and `CUDA_VISIBLE_DEVICES`; none where that command fails."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        listing = ""
    indices = [str(index) for index in range(sum(line.startswith("GPU ") for line in listing.splitlines()))]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(indices)
    uuids = re.findall(r"UUID: ([\w-]+)", listing)
    chosen: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        if name not in indices and not (name and any(uuid.startswith(name) for uuid in uuids)):
            break  # as in CUDA: an unknown device hides those after it
        chosen.append(name)
    return tuple(chosen)


def gpu_bytes(devices: Devices) -> int:
    """Memory of the smallest of these GPUs, by `nvidia-smi`; 0 where that command does not tell."""
    call = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", f"--id={','.join(devices.gpus)}"]
    try:
        told = subprocess.run(call, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return min((int(line) * 2**20 for line in told.splitlines() if line.strip().isdecimal()), default=0)


def read_hostfile(path: Path) -> dict[str, int]:
    """The number of slots of each host, in the file's order; the deepspeed launcher only warns about a missing file.

    Raises:
        ConfigError: the file cannot be read, names no host or one host twice, or has a line (the message gives its
            number) that is not `host slots=N`.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"launch.hostfile: cannot read {path}: {getattr(error, 'strerror', error)}") from None
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        entry, where = line.partition("#")[0].strip(), f"launch.hostfile: {path}, line {number}"
        if not entry:
            continue
        match = re.fullmatch(r"(\w[\w.@:-]*)\s+slots=([1-9]\d{0,5})", entry, re.ASCII)
        if match is None:
            raise ConfigError(f"{where}: expected `host slots=N`, found `{entry}`")
        if match[1] in hosts:
            raise ConfigError(f"{where}: {match[1]} is named twice")
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise ConfigError(f"launch.hostfile: {path} names no host: expected lines of `host slots=N`")
    return hosts
