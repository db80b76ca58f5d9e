"""How a server for a model is started, for `hir serve`: the folder that it reads, and the command with its arguments.

The servers are those of vLLM and of `transformers`, which speak OpenAI's protocol; both read a folder that
`model_export` has written. Looks for installed programs. Starts nothing and writes nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Literal, NamedTuple

from hir_core.errors import ConfigError
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

Engine = Literal["vllm", "transformers"]
NEEDED = {"vllm": ("vllm",), "transformers": ("transformers", "fastapi", "uvicorn", "openai")}
"""The modules that each server needs."""
INSTALL = {"vllm": "pip install vllm", "transformers": 'pip install "transformers[serving]"'}


class Served(NamedTuple):
    """A server to start."""

    folder: Path
    """The model that it reads; it may have to be exported first."""
    command: list[str]
    engine: Engine


def plan_server(
    store: Store,
    ref: VersionRef,
    *,
    engine: Engine | None,
    host: str,
    port: int,
    is_plain: bool = False,
    folder: Path | None = None,
) -> Served:
    """The server for a model version.

    Args:
        engine: None: vLLM where it is installed, else that of `transformers`.
        is_plain: whether the model is asked without the instruction of its run.
        folder: None: one in `served`, of a name that says what is in it.
    """
    engine = engine or ("vllm" if is_installed("vllm") else "transformers")
    name = f"{store.run_dir.resolve().name}-{ref.id}{'-plain' if is_plain else ''}"
    folder = folder or Path("served") / name
    arguments = [_program(engine), "serve", str(folder), "--host", host, "--port", str(port)]
    return Served(folder, [*arguments, "--served-model-name", name] if engine == "vllm" else arguments, engine)


def check_installed(engine: Engine) -> None:
    """Raises ConfigError where a server cannot be started here; says how to install it."""
    if not is_installed(engine):
        raise ConfigError(
            f"the server of {engine} is not installed: {INSTALL[engine]}, or choose another with --engine"
        )


def is_installed(engine: Engine) -> bool:
    """Whether a server can be started here, by the modules that it needs."""
    return all(importlib.util.find_spec(module) for module in NEEDED[engine])


def _program(engine: Engine) -> str:
    """The program of this environment, which need not be on the search path; its name where there is none."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(engine, path=places) or engine
