"""A run whose launches are played by `ranks` of test_stages: a program, for a flow that is real and costs no launch.

    python scripted_run.py SETTINGS.json

Each launch touches `launched` and waits as long as there is a file `hold`; one that finds a file `lose` is lost.
"""

import json
import time
from pathlib import Path
from typing import Any

import typer
from test_stages import ranks

from flows import prefect_api
from flows.terminal import messages
from hir_core import stages
from hir_core.config import parse_config
from hir_core.errors import JobFailed


def patient(job_dir: Path, *arguments: object, **options: Any) -> None:
    Path("launched").touch()
    while Path("hold").exists():
        time.sleep(0.05)
    if Path("lose").exists():
        Path("lose").unlink()
        raise JobFailed("rank 0 was killed", is_lost=True)
    ranks(job_dir, *arguments, **options)


def main(settings: Path) -> None:
    stages.launch = patient
    with messages():
        prefect_api.connect()
        from flows.hindsight import hindsight

        prefect_api.call(hindsight, parse_config(json.loads(settings.read_text())))


if __name__ == "__main__":
    typer.run(main)
