"""A run whose launches are played by `ranks` of fake_launch: a program, for a flow that is real and costs no launch.

    python scripted_run.py SETTINGS.json

`write_scripted` writes what it reads, and `scripted_command` is how to call it.

Each launch touches `launched` and waits as long as there is a file `hold`; one that finds a file `lose` is lost.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import typer
from fake_launch import ranks

from flows.cli.options import messages
from flows.orchestration import server
from hir_core.config.load import parse_config
from hir_core.errors import JobFailed
from hir_core.stages import run as run_module

ROWS = [{"query": f"{n} + 1?", "references": [str(n + 1)], "split": "test" if n < 3 else "train"} for n in range(9)]
SCRIPTED: dict[str, Any] = {
    "run": "scripted",
    "iterations": 2,
    "model": {"type": "scratch", "hidden_size": 16, "heads": 2},
    "prompts": [{"path": "rows.jsonl"}],
    "reward": {"type": "exact_match"},
    "sampling": {"k": 3},
    "deepspeed": "ds_configs/laptop.json",
}
SUPPORT = Path(__file__).resolve().parent
ON_PATH = {"PYTHONPATH": os.pathsep.join([str(SUPPORT), str(SUPPORT.parents[1])])}
"""What the program needs in its environment."""


def write_scripted(folder: Path) -> Path:
    """Writes the settings and prompts of a run of two iterations."""
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (folder / "scripted.json").write_text(json.dumps(SCRIPTED))
    return folder


def scripted_command() -> list[str]:
    return [sys.executable, str(SUPPORT / "scripted_run.py"), "scripted.json"]


def patient(job_dir: Path, *arguments: object, **options: Any) -> None:
    Path("launched").touch()
    while Path("hold").exists():
        time.sleep(0.05)
    if Path("lose").exists():
        Path("lose").unlink()
        raise JobFailed("rank 0 was killed", is_lost=True)
    ranks(job_dir, *arguments, **options)


def main(settings: Path) -> None:
    run_module.launch = patient
    with server.ended_at_once_if_lost(), messages():
        server.connect(print)
        from flows.hindsight import hindsight

        server.call(hindsight, parse_config(json.loads(settings.read_text())))


if __name__ == "__main__":
    typer.run(main)
