"""The machines of a launch for `hir plan`: those that are asked for, else those of the config, else this one.

Reads the config's hostfile and what this machine has; starts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError
from hir_core.launch.devices import find_place, gpu_bytes
from hir_core.launch.host_memory import available_bytes
from hir_core.launch.memory_estimate import MARGIN


@dataclass(frozen=True)
class Machines:
    """What a launch runs on: machines that are alike."""

    machines: int
    devices: int
    """Ranks of each machine: GPUs, or processes where there is none."""
    device_bytes: int
    """Memory of a GPU, or a process's share of the main memory that is free."""
    host_bytes: int | None
    """Main memory of a machine with GPUs; None: not known."""
    has_gpus: bool

    @property
    def ranks(self) -> int:
        """Ranks of the whole launch."""
        return self.machines * self.devices

    @property
    def usable_bytes(self) -> int:
        """What a rank may use of a device: all but a margin."""
        return int(self.device_bytes * (1 - MARGIN))


def find_machines(
    config: LaunchConfig,
    gpus: int | None = None,
    gpu_gb: float | None = None,
    nodes: int | None = None,
    host_gb: float | None = None,
) -> Machines:
    """The machines that are asked for; what is not said is taken from the config and from this machine.

    Args:
        gpus: of each machine; None: those of this machine, or of the config's hostfile.
        gpu_gb: memory of a GPU in GB (10^9 bytes); None: that of this machine's smallest.
        nodes: machines; None: 1, or the hosts of the config's hostfile.
        host_gb: main memory of a machine with GPUs, in GB; None: not known, but on this machine what is free.

    Raises:
        ConfigError: the hostfile is wrong, or the memory of a GPU is not known.
    """
    place = find_place(config)
    hosts = nodes or len(place.hosts) or 1
    devices = gpus or -(-place.ranks // (len(place.hosts) or 1))
    if gpus is None and gpu_gb is None and not place.devices.gpus:
        return Machines(hosts, devices, available_bytes() // devices, None, has_gpus=False)
    size = int(gpu_gb * 1e9) if gpu_gb is not None else gpu_bytes(place.devices)
    if not size:
        raise ConfigError("--gpu-memory: this machine does not tell the memory of its GPUs: give it in GB, as in 80")
    is_here = gpus is None and nodes is None and not place.is_remote
    host = int(host_gb * 1e9) if host_gb is not None else available_bytes() if is_here else None
    return Machines(hosts, devices, size, host, has_gpus=True)
