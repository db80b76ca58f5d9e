"""Which host of a run this process is on, by the environment that a cluster's starter sets.

Reads the variables of torchrun, srun, Open MPI and indexed Kubernetes Jobs, and `RANK` and `WORLD_SIZE` as others set
them. Where a starter starts several processes on a host, the first of them is the one that works.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from hir_core.config import LaunchConfig
from hir_core.errors import ConfigError


@dataclass(frozen=True)
class NodeRank:
    """The place of this process among those that the cluster has started."""

    node: int
    nodes: int
    is_first_here: bool = True
    """Whether it is the first one on its host."""

    @property
    def is_head(self) -> bool:
        """Whether it runs the loop."""
        return self.node == 0 and self.is_first_here


def find_node_rank(config: LaunchConfig, env: Mapping[str, str] = os.environ) -> NodeRank:
    """The place of this process, by the settings `launch.node_rank` and `launch.nodes`, else by the environment.

    Raises:
        ConfigError: neither says it, or they contradict each other.
    """
    found = _in_environment(env)
    node = config.node_rank if config.node_rank is not None else None if found is None else found[0]
    nodes = config.nodes if config.nodes is not None else None if found is None else found[1]
    if node is None or nodes is None:
        missing = [name for name, value in (("node_rank", node), ("nodes", nodes)) if value is None]
        raise ConfigError(
            f"launch.launcher external: no variable of torchrun, srun, mpirun or Kubernetes says launch."
            f"{' and launch.'.join(missing)}: start hir with one of these, or set it"
        )
    if not 0 <= node < nodes:
        raise ConfigError(f"launch.launcher external: this is host {node}, and there are {nodes}, counted from 0")
    return NodeRank(node, nodes, _local_rank(env) == 0)


def _in_environment(env: Mapping[str, str]) -> tuple[int | None, int | None] | None:
    """Number of this host and number of hosts, as far as a starter says them."""
    if "GROUP_RANK" in env:  # torchrun
        return _number(env, "GROUP_RANK"), _number(env, "GROUP_WORLD_SIZE")
    if "OMPI_COMM_WORLD_RANK" in env:  # by default it fills one host after the other
        here = _number(env, "OMPI_COMM_WORLD_LOCAL_SIZE") or 1
        rank, size = _number(env, "OMPI_COMM_WORLD_RANK") or 0, _number(env, "OMPI_COMM_WORLD_SIZE") or 1
        return rank // here, -(-size // here)
    if "SLURM_STEP_NUM_NODES" in env:  # srun; without it, in a batch script, there is one process only
        return _number(env, "SLURM_NODEID"), _number(env, "SLURM_STEP_NUM_NODES")
    if "JOB_COMPLETION_INDEX" in env:  # Kubernetes does not say of how many
        return _number(env, "JOB_COMPLETION_INDEX"), None
    if "RANK" in env and "LOCAL_RANK" not in env:  # operators of Kubernetes: one process per pod
        return _number(env, "RANK"), _number(env, "WORLD_SIZE")
    return None


def _local_rank(env: Mapping[str, str]) -> int:
    """Number of this process on its host."""
    for name in ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID"):
        if name in env:
            return _number(env, name) or 0
    return 0


def _number(env: Mapping[str, str], name: str) -> int | None:
    """The number that a variable holds; None where it is not set.

    Raises:
        ConfigError: it holds something else.
    """
    value = env.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal()):
        raise ConfigError(f"launch.launcher external: {name} is {value!r}: expected a number")
    return int(value)
