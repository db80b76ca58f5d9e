"""`LaunchConfig`, the section `launch`: how the rank processes of a job are started."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hir_core.config.section import Section


class LaunchConfig(Section):
    """How the rank processes of a job are started. No setting here changes a result."""

    launcher: Literal["deepspeed", "torchrun"] = "deepspeed"
    """The program that starts the ranks: DeepSpeed's launcher, or PyTorch's `torchrun` for a single machine. A single
    rank on this machine needs no launcher; `deepspeed` then starts it directly."""
    processes: int | Literal["auto"] = "auto"
    """Number of ranks on this machine. `auto` starts one rank per GPU, or one rank where there is no GPU. Ignored with
    a `hostfile`, whose slots decide."""
    hostfile: Path | None = None
    """File with one line `host slots=N` per machine, for a job on several machines. Needs the `deepspeed` launcher.
    Unset: this machine only."""
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
    def _hostfile_needs_deepspeed(self) -> LaunchConfig:
        if self.hostfile is not None and self.launcher != "deepspeed":
            raise ValueError("launch.hostfile is read by the deepspeed launcher only: set launch.launcher to deepspeed")
        return self

    @field_validator("processes", mode="before")
    @classmethod
    def _processes_is_auto_or_positive(cls, processes: Any) -> Any:
        # Before the union is tried: pydantic would report one problem for each of its members.
        if processes != "auto" and not (isinstance(processes, int) and processes >= 1):
            raise ValueError("expected auto or a whole number of at least 1")
        return processes
