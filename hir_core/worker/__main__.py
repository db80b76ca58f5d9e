"""The entry point of a rank: `python -m hir_core.worker JOB_DIR`, which a launch starts once per rank.

Imports nothing heavy until the rank's log is in place; the imports of `job` take seconds.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hir_core.launch.rank_process import RankProcess
from hir_core.light_imports import uncollected


def main() -> None:
    """Does this rank's share of the job in the folder that the command line names, and of those that follow it."""
    process = RankProcess(Path(sys.argv[1]))
    with process.job() as rank:
        with uncollected():
            from hir_core.worker.job import Jobs

            jobs = Jobs(rank)
        jobs.do(rank)
    while process.wait_for_next_job():
        with process.job() as rank:
            jobs.do(rank)


if __name__ == "__main__":
    main()
    # All files are written and the process group is closed: unloading torch's modules one by one would take a second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
