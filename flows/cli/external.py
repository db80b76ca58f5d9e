"""Commands that a cluster has started on every host: `launch.launcher: external`.

The process on host 0 runs the loop, and those on other hosts serve it, which `hir_core.launch.host` does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.config import RunConfig


def refuse_external(configs: Iterable[RunConfig]) -> None:
    """Checks that a command that starts runs itself is not to be started by a cluster on every host.

    Raises:
        ConfigError: one of the configs asks for it.
    """
    if any(config.launch.launcher == "external" for config in configs):
        raise ConfigError("launch.launcher external is for `hir run`: take slurm, or a hostfile")


def is_served_elsewhere(config: RunConfig) -> bool:
    """Serves a run whose loop another process runs, on the first of the hosts that a cluster has started; else False.

    Raises:
        HirError: the host cannot join, or the other process is gone.
        typer.Exit: a request has ended this process.
    """
    if config.launch.launcher != "external":
        return False
    from hir_core.launch.node_rank import find_node_rank

    place = find_node_rank(config.launch)
    if place.is_head:
        return False
    if not place.is_first_here:
        print(f"host {place.node} of {place.nodes}: its first process starts the ranks; this one has nothing to do")
        return True
    from hir_core.launch.host import serve_run

    print(f"host {place.node} of {place.nodes}: joins the run {config.run}", flush=True)
    if code := serve_run(config.launch, config.run_dir, place):
        raise typer.Exit(code)
    return True
