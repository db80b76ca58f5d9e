"""`LaunchConfig`, the section `launch`: how the rank processes of a job are started."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hir_core.config.section import Section

FORWARDED = (
    "NCCL_*",
    "GLOO_*",
    "FI_*",
    "UCX_*",
    "HF_*",
    "OMP_NUM_THREADS",
    "LD_LIBRARY_PATH",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TOKENIZERS_PARALLELISM",
    "DS_ACCELERATOR",
)
"""Variables of networks, caches, libraries and the allocator, on which the ranks of all hosts should agree."""


class LaunchConfig(Section):
    """How the rank processes of a job are started. No setting here changes a result."""

    launcher: Literal["deepspeed", "torchrun", "external", "slurm"] = "deepspeed"
    """What starts the ranks. `deepspeed`: DeepSpeed's launcher, on this machine or the hosts of a `hostfile`; a single
    rank on this machine is started directly. `torchrun`: PyTorch's launcher, on this machine. `external`: the cluster
    (srun, torchrun, Kubernetes, mpirun) starts the same `hir run` once on every host; the one on host 0 runs the loop,
    the others start ranks for it. `slurm`: `hir run` starts `srun`, on a login node or in an allocation."""
    processes: int | Literal["auto"] = "auto"
    """Number of ranks on each machine. `auto` starts one rank per GPU, or one rank where there is no GPU. Ignored with
    a `hostfile`, whose slots decide."""
    hostfile: Path | None = None
    """File with one line `host slots=N` per machine, for a job on several machines, which are reached with ssh. Needs
    the `deepspeed` launcher. Unset: this machine only."""
    nodes: int | None = Field(None, ge=1)
    """Number of hosts, for `external` and `slurm`. Unset: what the cluster says in the environment."""
    node_rank: int | None = Field(None, ge=0)
    """Which of the hosts this one is, from 0, for `external`. Unset: what the cluster says in the environment."""
    master_addr: str | None = None
    """Address of host 0 as the other hosts reach it, for the ranks' collectives. Unset: the one over which the hosts
    are connected."""
    env: tuple[str, ...] = FORWARDED
    """Environment variables that the hosts of a `hostfile` get from this one, by name or as a pattern with `*`. What a
    pattern finds and looks like a secret (`*TOKEN`, `*KEY`, `*SECRET`, `*PASSWORD`) is left out."""
    srun: tuple[str, ...] = ()
    """Further options of `srun`, for `slurm`: partition, GPUs, time, as in [--partition=gpu, --gpus-per-node=8]."""
    join_timeout_s: float = Field(600.0, gt=0, allow_inf_nan=False)
    """Longest time in seconds that the hosts of a run may take to connect to host 0. Time in the queue of Slurm is not
    counted."""
    port: int | None = Field(None, ge=1024, le=65535)
    """TCP port on which the first rank waits for the others. Unset: a free port is chosen."""
    resident: bool = False
    """Whether the ranks wait after a job for the run's next one, instead of ending: a job then takes seconds less to
    start, and the ranks keep their memory until the run ends. Ranks on other hosts always end with
    their job, and so do those under ZeRO-3, whose memory DeepSpeed would keep."""
    grace_s: float = Field(30.0, ge=0, allow_inf_nan=False)
    """Longest time in seconds that ranks may take to save their work where the run is interrupted (Ctrl-C), or asked to
    end by a cluster (SIGTERM): a training finishes its optimizer step and saves a checkpoint. A second Ctrl-C or
    SIGTERM ends it at once. A launcher that gets the signal too waits for 30 seconds at most."""
    timeout_s: float | None = Field(None, gt=0)
    """Longest time in seconds that a job may take before its launch is stopped. Unset: no limit."""
    collective_timeout_s: float = Field(1800.0, gt=0, allow_inf_nan=False)
    """Longest time in seconds that a rank may wait for the others in a collective operation. Then the launch fails, and
    the message names the rank that was waited for. All ranks wait for the one that builds the model, and at the end of
    each step for the slowest one; both must take less than this."""

    @model_validator(mode="after")
    def _settings_belong_to_the_launcher(self) -> LaunchConfig:
        if self.hostfile is not None and self.launcher != "deepspeed":
            raise ValueError("launch.hostfile is read by the deepspeed launcher only: set launch.launcher to deepspeed")
        users = {"nodes": ("external", "slurm"), "node_rank": ("external",), "srun": ("slurm",)}
        for name, launchers in users.items():
            if getattr(self, name) not in (None, ()) and self.launcher not in launchers:
                raise ValueError(f"launch.{name} is for launch.launcher {' and '.join(launchers)}: leave it out")
        if self.node_rank is not None and self.nodes is not None and self.node_rank >= self.nodes:
            raise ValueError(f"launch.node_rank {self.node_rank}: the {self.nodes} hosts are counted from 0")
        return self

    @field_validator("processes", mode="before")
    @classmethod
    def _processes_is_auto_or_positive(cls, processes: Any) -> Any:
        # Before the union is tried: pydantic would report one problem for each of its members.
        if processes != "auto" and not (isinstance(processes, int) and processes >= 1):
            raise ValueError("expected auto or a whole number of at least 1")
        return processes
