"""The `srun` that starts the hosts of a run, within an allocation of Slurm or with one of its own.

Reads the variables that Slurm sets in an allocation. Starts nothing: `hosts` does.
"""

from __future__ import annotations

import os

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError

PROCESSES = "HIR_PROCESSES"
"""The environment variable in which hosts find the setting `launch.processes`; 0: auto."""


def allocated_nodes(config: LaunchConfig) -> int:
    """The number of hosts: the setting `launch.nodes`, else those of the allocation, else one."""
    if config.nodes is not None:
        return config.nodes
    nodes = os.environ.get("SLURM_JOB_NUM_NODES", "1")
    if not nodes.isdecimal():
        raise ConfigError(f"launch.launcher slurm: SLURM_JOB_NUM_NODES is {nodes!r}: expected a number")
    return int(nodes)


def srun_command(config: LaunchConfig) -> list[str]:
    """The argument list that starts a command once on each host.

    In an allocation the command shares the processors with the batch script, in which hir runs. It is bound to none of
    them: its ranks share what the job has on the host.
    """
    nodes = allocated_nodes(config)
    placed = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--cpu-bind=none", "--job-name=hir"]
    shared = ["--overlap"] if "SLURM_JOB_ID" in os.environ else []
    return ["srun", *placed, *shared, *config.srun]
