"""The next job of ranks that stay: the driver names it beside the job that they have done, where they look for it.

    next.json   in the folder of the job that is done: the folder of the next one, and its number in this launch

A rank looks for the file several times per second and takes part in nothing meanwhile, so a wait has no limit. Which
ranks stay is up to the setting `launch.resident`. `launcher` gives jobs, `worker` does them. Imports nothing heavy.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from hir_core.store.plain_files import write_whole

NEXT_JOB = "next.json"
POLL_S = 0.02


def give_next_job(done: Path, job_dir: Path, number: int) -> None:
    """Tells the ranks that have done the job in one folder to do that in another, or once more in the same.

    Args:
        number: how many jobs this launch has done before.
    """
    given = json.dumps({"job_dir": str(job_dir), "number": number}).encode()
    write_whole(done / NEXT_JOB, lambda file: file.write(given), is_synced=False)


def wait_for_next_job(done: Path, number: int) -> Path:
    """The folder of this launch's next job, once it is given; this process is ended by a signal if there is none."""
    while True:
        try:
            given = json.loads((done / NEXT_JOB).read_text())
        except FileNotFoundError:
            given = {}
        if given.get("number") == number:  # an earlier one may be there, where a folder is used again
            return Path(given["job_dir"])
        time.sleep(POLL_S)
