"""Runs of the recipe quickstart with changed settings, as a user starts them, and what their manifests say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.measure import CHECKOUT

QUICKSTART = CHECKOUT / "flows/configs/quickstart.yaml"
Manifest = dict[str, Any]


def settings(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe's settings with some sections replaced."""
    return {**yaml.safe_load(QUICKSTART.read_text()), **changes}


def start(folder: Path, changes: Mapping[str, Any]) -> subprocess.Popen[bytes]:
    """Starts `hir run` in a folder; the run is in `runs/quickstart` below it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(changes)))
    return subprocess.Popen([Path(sys.executable).with_name("hir"), "run", "config.yaml"], cwd=folder)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a run to end.

    Raises:
        RuntimeError: it failed.
    """
    if code := process.wait():
        raise RuntimeError(f"hir run ended with exit code {code}")


def manifests(run_dir: Path, stage: str) -> dict[int, Manifest]:
    """The manifests of a stage's versions by iteration."""
    paths = (run_dir / stage).glob("[0-9]*/manifest.json")
    return {int(path.parent.name.partition("-")[0]): json.loads(path.read_text()) for path in sorted(paths)}
