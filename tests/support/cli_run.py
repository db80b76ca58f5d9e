"""`hir run` as a person runs it, on a model that is made in a second: what the tests of real runs share."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl
import yaml

from flows.orchestration import private_server_process
from flows.orchestration.private_server import DATABASE_IN_MEMORY
from hir_core import supervisor
from hir_core.launch.ports import free_port
from hir_core.store.store import Store

ROUNDED = {"logprobs": 1e-3, "probability": 1e-2}
"""Columns that rounding changes, and by how much at most: the probability is that of all tokens of an output."""
HOST = "127.0.0.1"
CORES = len(os.sched_getaffinity(0))
GONE_WITHIN_S = 10
"""What is promised of the processes of a run that has ended, in whatever way."""
PATIENCE_S = 900
"""How long to wait for what has to come, where the time itself is no claim: within the time limit of a test."""
TINY: dict[str, Any] = {
    "run": "tiny",
    "iterations": 1,
    "reward": {"type": "exact_match"},
    "model": {
        "type": "scratch",
        "hidden_size": 32,
        "layers": 1,
        "heads": 2,
        "intermediate_size": 64,
        "context": 96,
    },
    "prompts": [
        {
            "type": "synthetic",
            "task": "object_counting",
            "size": 60,
            "test_share": 0.3,
            "dials": {
                "min_kinds": 2,
                "max_kinds": 2,
                "count_weights": [1, 1, 1],
                "decoy_share": 0,
                "categories": ["fruits"],
                "words": 4,
            },
        }
    ],
    "warm_start": {"demonstrations": 32, "epochs": 12, "batch_size": 8, "learning_rate": 0.01},
    "sampling": {"k": 2, "max_new_tokens": 4},
    "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.001, "label_smoothing": 0.0},
    "deepspeed": "ds_configs/laptop.json",
    "launch": {"processes": 1, "resident": True},
}
TWO_RANKS = {"processes": min(2, CORES)}
"""The section `launch` of tests about ranks: a second rank adds half to what a launch costs."""


def write_config(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """Writes the tiny config with these top-level settings in the place of its own."""
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(TINY | {"run": name} | changes))
    return path


def command(*arguments: str) -> list[str]:
    return [str(Path(sysconfig.get_path("scripts")) / "hir"), *arguments]


def environment(prefect_home: Path) -> dict[str, str]:
    """Everything on the CPU, and Prefect's files out of the user's home."""
    return os.environ | {"PREFECT_HOME": str(prefect_home), "DS_ACCELERATOR": "cpu", "COLUMNS": "100"}


def hir(folder: Path, prefect_home: Path, *arguments: str, code: int = 0) -> str:
    """What `hir` prints when it is called in a folder; it must end with this code."""
    call = {"cwd": folder, "env": environment(prefect_home), "timeout": PATIENCE_S}
    done = subprocess.run(command(*arguments), **call, text=True, capture_output=True)
    assert done.returncode == code, f"hir {' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_until(is_true: Callable[[], object], what: str, every_s: float = 0.05) -> None:
    """Waits for what has to come, however busy the machine is, and asks that often whether it is there."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < deadline, f"it never came: {what}"
        time.sleep(every_s)


def start_prefect_server(home: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Starts a Prefect server with all that it has, and returns the URL of its API once it answers."""
    return _start_server(
        home, [sys.executable, "-m", "prefect", "server", "start", "--no-ui", "--host", HOST, "--port"]
    )


def start_light_prefect_server(home: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Starts a server that only keeps what is reported to it, as a run's private one, but answers without a secret."""
    return _start_server(home, [sys.executable, "-P", private_server_process.__file__], DATABASE_IN_MEMORY)


def _start_server(
    home: Path, command: list[str], settings: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, subprocess.Popen[bytes]]:
    """Starts a server, whose last argument is a free port; what it prints is in `server.log`.

    It ends with this process, however that ends.
    """
    port = str(free_port())
    watched = [sys.executable, "-I", "-S", supervisor.__file__, os.devnull, "0", *command, port]
    quiet = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    with (home / "server.log").open("wb") as log:
        process = subprocess.Popen(
            watched,
            env=environment(home) | quiet | settings,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    url = f"http://{HOST}:{port}/api"
    try:
        wait_until(lambda: process.poll() is not None or _answers(url), f"Prefect's server of {home}")
        assert process.poll() is None, (home / "server.log").read_text()
    except BaseException:
        end(process)
        raise
    return url, process


def name_server(home: Path, url: str) -> Path:
    """Makes this the server to which runs with this Prefect home report; they start none of their own then.

    Returns:
        The profile that names it.
    """
    profile = home / "profiles.toml"
    profile.write_text(f'active = "tests"\n\n[profiles.tests]\nPREFECT_API_URL = "{url}"\n')
    return profile


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except (urllib.error.URLError, TimeoutError):
        return False
    return True


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process that a test started in a session of its own, and its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def digests(run_dir: Path) -> dict[str, str]:
    """A digest of every file of every committed version."""
    files = (path for ref in Store(run_dir).versions() for path in ref.path.rglob("*") if path.is_file())
    return {str(path.relative_to(run_dir)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def manifest(run_dir: Path, version: str) -> dict[str, Any]:
    """The manifest of a version, read as anybody can."""
    found: dict[str, Any] = json.loads((Store(run_dir).resolve(version).path / "manifest.json").read_text())
    return found


def processes_with(text: str) -> list[str]:
    """Living processes with the text in the environment that they were started with, each as `pid: command`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes():
                arguments = (entry / "cmdline").read_bytes().split(b"\0")
                found.append(f"{entry.name}: {b' '.join(arguments).decode()}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def left_alive(mark: str) -> list[str]:
    """Processes with the mark in their environment that are alive when all of them should be gone."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def assert_same_content(one: Path, other: Path) -> None:
    """Two runs have the same versions, and in them the same rows and, but for rounding, the same numbers."""
    from transformers import AutoModelForCausalLM

    there, here = Store(one).versions(), Store(other).versions()
    assert [str(ref) for ref in there] == [str(ref) for ref in here]
    for mine, theirs in zip(there, here, strict=True):
        if mine.stage == "models":
            weights = [AutoModelForCausalLM.from_pretrained(ref.path).state_dict() for ref in (mine, theirs)]
            for name in weights[0]:
                gaps = (weights[0][name] - weights[1][name]).abs()
                # Adam turns a gradient that is all rounding into a step of the learning rate, 1e-3 here: a single
                # weight may be off by one, their mean may not.
                assert gaps.max() <= 1e-3, name
                assert gaps.mean() <= 1e-5, name
            _assert_same_state(mine.path, theirs.path)
        else:
            tables = [_sorted(ref.path) for ref in (mine, theirs)]
            assert tables[0].drop(ROUNDED, strict=False).equals(tables[1].drop(ROUNDED, strict=False)), mine
            for name in ROUNDED.keys() & set(tables[0].columns):
                columns = [table[name] for table in tables]
                if name == "logprobs":
                    columns = [column.explode(empty_as_null=False) for column in columns]
                assert columns[0].is_null().equals(columns[1].is_null()), mine
                apart = float((columns[0] - columns[1]).abs().max() or 0)  # type: ignore[arg-type]
                assert apart < ROUNDED[name], mine


def _assert_same_state(one: Path, other: Path) -> None:
    """Two models have the same state of the optimizer beside them, but for rounding."""
    from safetensors.torch import load_file

    files = [sorted(folder.glob("optimizer-*.safetensors")) for folder in (one, other)]
    assert [path.name for path in files[0]] == [path.name for path in files[1]]
    for mine, theirs in zip(*files, strict=True):
        ours, expected = load_file(mine), load_file(theirs)
        for name, values in expected.items():
            assert (ours[name] - values).abs().mean() <= 1e-3 * values.abs().mean(), name


def _sorted(version: Path) -> pl.DataFrame:
    rows = pl.read_parquet(version / "part-*.parquet")
    return rows.sort(rows.columns[0])
