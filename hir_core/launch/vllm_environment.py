"""The environment in which vLLM is installed: whether it is there, of the release that a config names, and complete.

Starts the environment's Python for a moment; reads and writes no files. The launch that uses it is started by
`launcher`, vLLM itself by its ranks.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from hir_core import vllm_worker
from hir_core.config import VllmEngine
from hir_core.errors import ConfigError
from hir_core.launch.devices import Place

HOW = "make one as in `python -m venv vllm-env && vllm-env/bin/pip install vllm=={release}`"
LIMIT_S = 120.0
IMPORT_LIMIT_S = 600.0
_IMPORT = "import vllm.v1.engine.llm_engine"


def check_vllm(settings: VllmEngine, place: Place) -> None:
    """Checks what would make a launch of vLLM fail, within a second; loads nothing.

    Raises:
        ConfigError: there is no such Python, no vLLM in its environment, or another release; or the ranks cannot be
            divided into groups of `tensor_parallel`.
    """
    if place.ranks % settings.tensor_parallel:
        raise ConfigError(
            f"sampling.engine.tensor_parallel is {settings.tensor_parallel}, and a launch has {place.ranks} rank(s), "
            "one for each GPU that vLLM may use: set launch.processes to a multiple of it, or lower it"
        )
    releases = describe(settings)
    how = HOW.format(release=settings.release)
    if "vllm" not in releases:
        raise ConfigError(f"sampling.engine.python: vLLM is not installed for {settings.python}: {how}")
    if releases["vllm"].partition("+")[0] != settings.release:
        raise ConfigError(
            f"sampling.engine.release is {settings.release}, and {settings.python} has vLLM {releases['vllm']}: set "
            f"the release to that, which makes new versions, or name another environment: {how}"
        )


def describe(settings: VllmEngine) -> dict[str, str]:
    """The releases of Python, vLLM, torch and transformers in the environment; what is not installed is left out.

    Raises:
        ConfigError: its Python cannot be run.
    """
    told = _run(settings.python, [vllm_worker.__file__, "--describe"], LIMIT_S)
    try:
        releases: dict[str, str] = json.loads(told.stdout)
    except ValueError:
        raise ConfigError(
            f"sampling.engine.python: {settings.python} is no Python 3.10 or later: it ended with status "
            f"{told.returncode}{_last_line(told.stderr)}"
        ) from None
    return releases


def import_problem(settings: VllmEngine) -> str:
    """Why vLLM cannot be imported in its environment, in one line; empty where it can. Takes ten seconds or more.

    Raises:
        ConfigError: its Python cannot be run.
    """
    told = _run(settings.python, ["-c", _IMPORT], IMPORT_LIMIT_S)
    return "" if told.returncode == 0 else _last_line(told.stderr).removeprefix(": ") or f"status {told.returncode}"


def _run(python: Path, arguments: list[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(python), "-I", *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
        )
    except subprocess.TimeoutExpired:
        raise ConfigError(f"sampling.engine.python: {python} does not answer within {limit_s:g} s") from None
    except OSError as error:
        raise ConfigError(f"sampling.engine.python: cannot run {python}: {error.strerror}") from None


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:300]}" if lines else ""
