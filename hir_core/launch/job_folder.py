"""The folder of a job before its ranks begin: what an earlier launch has left there is moved into `attempt-N/`.

Moves the files that `rank` and `next_job` write, and the logs; leaves `job.json` and the files that it
names, which are the job itself.
"""

from __future__ import annotations

from pathlib import Path

from hir_core.launch.next_job import NEXT_JOB
from hir_core.store.plain_files import delete_half_written


def set_aside(job_dir: Path) -> None:
    """Moves the files of an earlier launch into a folder: an old done file would pass for success."""
    patterns = ("logs", "rank-*.json", "done-*.json", "progress.json", NEXT_JOB)
    earlier_files = [path for pattern in patterns for path in job_dir.glob(pattern)]
    if earlier_files:
        attempt = job_dir / f"attempt-{len([*job_dir.glob('attempt-*')]) + 1}"
        attempt.mkdir()
        for path in earlier_files:
            path.rename(attempt / path.name)
    delete_half_written(job_dir)
    (job_dir / "logs").mkdir()
