"""Where ranks can run: this machine's GPUs or CPU cores, and the hosts of a hostfile.

Reads `nvidia-smi -L`, `CUDA_VISIBLE_DEVICES`, `DS_ACCELERATOR` and hostfiles; counts without importing torch, so that
the driver stays light and holds no GPU memory. Leaves starting ranks to `launch`.
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


@dataclass(frozen=True)
class Devices:
    """What this machine offers to ranks: GPUs, or where there is none the usable CPU cores."""

    gpus: tuple[str, ...]
    """As `CUDA_VISIBLE_DEVICES` names them: index or UUID."""
    cores: int

    @property
    def slots(self) -> int:
        """Ranks that can run here."""
        return len(self.gpus) or self.cores

    @property
    def word(self) -> str:
        """What a slot is, for messages."""
        return "GPU(s)" if self.gpus else "usable CPU core(s)"


@dataclass(frozen=True)
class Place:
    """Where the ranks of one launch run."""

    ranks: int
    devices: Devices
    """Of this machine."""
    hosts: tuple[str, ...] = ()
    """Of the hostfile, if there is one."""

    @property
    def is_remote(self) -> bool:
        """Whether any rank runs on another machine."""
        return any(host not in ("localhost", "127.0.0.1", socket.gethostname()) for host in self.hosts)


def find_place(config: LaunchConfig) -> Place:
    """Returns where a launch runs: the hostfile's slots, the number of ranks asked for, or one per GPU (else one).

    Raises:
        ConfigError: the hostfile is missing or malformed.
    """
    devices = find_devices()
    if config.hostfile is not None:
        slots = read_hostfile(config.hostfile)
        return Place(sum(slots.values()), devices, tuple(slots))
    return Place(len(devices.gpus) or 1 if config.processes == "auto" else config.processes, devices)


def find_devices() -> Devices:
    """Returns this machine's devices, honouring `DS_ACCELERATOR=cpu`, `CUDA_VISIBLE_DEVICES` and the cores allowed."""
    is_cpu = os.environ.get("DS_ACCELERATOR") == "cpu" or importlib.metadata.version("torch").endswith("+cpu")
    return Devices(() if is_cpu else _visible_gpus(), len(os.sched_getaffinity(0)))


def _visible_gpus() -> tuple[str, ...]:
    listed = _nvidia_smi()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    indices = [str(index) for index in range(sum(line.startswith("GPU ") for line in listed))]
    if visible is None:
        return tuple(indices)
    uuids = re.findall(r"UUID: ([\w-]+)", "\n".join(listed))
    chosen: list[str] = []
    for name in (part.strip() for part in visible.split(",")):
        if name not in indices and not (name and any(uuid.startswith(name) for uuid in uuids)):
            break  # as CUDA does: an unknown device hides those after it
        chosen.append(name)
    return tuple(chosen)


def _nvidia_smi() -> list[str]:
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.splitlines()


def read_hostfile(path: Path) -> dict[str, int]:
    """Returns slots by host, in order; the deepspeed launcher itself would only warn about a missing file.

    Raises:
        ConfigError: no such file, no host in it, or a line (named by number) that is not `host slots=N`.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"launch.hostfile: cannot read {path}: {error.strerror}") from None
    hosts: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        entry, where = line.partition("#")[0].strip(), f"launch.hostfile: {path}, line {number}"
        if not entry:
            continue
        match = re.fullmatch(r"(\S+)\s+slots=([1-9]\d*)", entry)
        if match is None:
            raise ConfigError(f"{where}: expected `host slots=N`, found `{entry}`")
        if match[1] in hosts:
            raise ConfigError(f"{where}: {match[1]} is named twice")
        hosts[match[1]] = int(match[2])
    if not hosts:
        raise ConfigError(f"launch.hostfile: {path} names no host: expected lines of `host slots=N`")
    return hosts
