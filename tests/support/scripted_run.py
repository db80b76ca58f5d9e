"""A run whose launches are played by `ranks` of fake_launch: a program, for a flow that is real and costs no launch.

    python scripted_run.py SETTINGS.json

Each launch touches `launched` and waits as long as there is a file `hold`; one that finds a file `lose` is lost.
"""

import json
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
