"""`hir` from Python: a config is loaded, run as `hir run` does, or run stage by stage, and a run is read.

    import flows as hir

    config = hir.load_config("mine.yaml", {"training.epochs": 2})
    outputs = hir.run(config)
    run = hir.open_run("mine")
    run.read("triples@3")

Nothing is done here that the commands do another way: each name calls what its command calls. Errors are `HirError`,
with the messages of the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.cli.external import refuse_external
from flows.stages import Stages
from flows.start import CONFIGS, run_to_end
from flows.stored_run import StoredRun
from hir_core.config import RunConfig
from hir_core.config.load import find_config
from hir_core.config.load import load_config as load_file
from hir_core.errors import HirError
from hir_core.stages.train import Outputs
from hir_core.store.references import select_run
from hir_core.store.version import VersionRef

__all__ = ["HirError", "RunConfig", "Stages", "StoredRun", "VersionRef", "load_config", "open_run", "run"]


def load_config(config: str | Path, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """The config in a YAML file, or of a shipped recipe, with changes applied.

    Args:
        config: the path of the file, or the name of a recipe such as `quickstart`.
        changes: new values by setting, as in `{"training.epochs": 2, "prompts.0.test_share": 0.1}`.

    Raises:
        HirError: there is no such config, or settings are wrong; names all of them.
    """
    return load_file(find_config(str(config), CONFIGS), changes or {})


def run(config: RunConfig) -> list[Outputs]:
    """Runs all iterations of a config, as `hir run` does; those that the run's folder holds are not run again.

    Prints a line per model, and says every 15 seconds what is being done. Interrupted, it loses nothing that was
    committed, and the same call continues.

    Returns:
        For each model, the first one included, its versions: `model`, `evaluation` and, but for the last one, the
        `samples` for the next iteration.

    Raises:
        HirError: the config cannot be run, another process writes to the run, or a stage failed.
    """
    refuse_external([config])
    return run_to_end(config)


def open_run(run: str | Path | RunConfig | None = None, runs_dir: str | Path = "runs") -> StoredRun:
    """A run's committed versions, to be read. Another process may be writing to the run.

    Args:
        run: its name, its folder, or its config; may be left out where there is only one.
        runs_dir: the folder of the runs.

    Raises:
        HirError: there is no such run, or several; the message lists those that exist.
    """
    name = run.run_dir if isinstance(run, RunConfig) else run
    return StoredRun(select_run(None if name is None else str(name), Path(runs_dir)))
