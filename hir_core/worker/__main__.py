"""The entry point of a rank: `python -m hir_core.worker JOB_DIR`, which a launch starts once per rank.

Imports nothing heavy until the rank's log is in place; the imports of `job` take seconds.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from hir_core.launch.rank import rank_process


def main() -> None:
    """Runs this rank's share of the job in the folder that the command line names."""
    with rank_process(Path(sys.argv[1])) as rank:
        # What the imports make stays: searching it for garbage again and again takes a fifth of their time.
        gc.disable()
        # dataframely imports it where it is installed, as it is with Prefect: a tenth of the imports, and unused here.
        sys.modules["sqlalchemy"] = None  # type: ignore[assignment]
        from hir_core.worker.job import run_job

        gc.freeze()
        gc.enable()
        run_job(rank)


if __name__ == "__main__":
    main()
    # All files are written and the process group is closed: unloading torch's modules one by one would take a second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
