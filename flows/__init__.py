"""The application: flows, command line and recipes around `hir_core`; the only place that imports prefect.

Also what a notebook or a program imports, `import flows as hir`: the names of `flows.api`. They are imported when they
are first used, since the commands start without them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.api import HirError, RunConfig, Stages, StoredRun, VersionRef, load_config, open_run, run

__all__ = ["HirError", "RunConfig", "Stages", "StoredRun", "VersionRef", "load_config", "open_run", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("flows.api"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
