"""Where the ranks run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hir_core.config.section import Section


class LaunchConfig(Section):
    """Where the ranks run; none of it changes a result."""

    launcher: Literal["deepspeed", "torchrun"] = "deepspeed"
    processes: int | Literal["auto"] = "auto"
    """Ranks on this machine; `auto`: one per GPU, or one where there is none. With a hostfile its slots decide."""
    hostfile: Path | None = None
    """Lines of `host slots=N`, for several machines (`deepspeed` launcher)."""
    port: int | None = Field(None, ge=1024, le=65535)
    """Port of the first rank; left out: a free one."""
    timeout_s: float | None = Field(None, gt=0)
    """Ends a launch that takes longer."""

    @model_validator(mode="after")
    def _hostfile_needs_deepspeed(self) -> LaunchConfig:
        if self.hostfile is not None and self.launcher != "deepspeed":
            raise ValueError("launch.hostfile is read by the deepspeed launcher only: set launch.launcher to deepspeed")
        return self

    @field_validator("processes", mode="before")
    @classmethod
    def _some_processes(cls, processes: Any) -> Any:
        # Before the union is tried: it would complain once for each of its members.
        if processes != "auto" and not (isinstance(processes, int) and processes >= 1):
            raise ValueError("expected auto or a whole number of at least 1")
        return processes
