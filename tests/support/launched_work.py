"""Launches of small modules by a ten-line launcher in place of deepspeed's and torchrun's; the processes they leave."""

import time
from collections.abc import Callable
from pathlib import Path

PLAIN_LAUNCHER = """
import os, subprocess, sys, time
ranks, *command = sys.argv[1:]
places = [os.environ | {"RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": ranks} for r in range(int(ranks))]
running = [subprocess.Popen([sys.executable, "-m", *command], env=env) for env in places]
while any(process.poll() is None for process in running) and not any(process.poll() for process in running):
    time.sleep(0.05)
for process in running:
    process.terminate()
codes = [process.wait() for process in running]
sys.exit(next((code for code in codes if code not in (0, -15)), 0))
"""

WORK = """
import os, signal, subprocess, sys, time
from pathlib import Path
from hir_core.errors import ConfigError
from hir_core.launch.rank_process import RankProcess
from hir_core.progress import Progress

with RankProcess(Path(sys.argv[1])).job() as rank:
{body}
"""


READY = 'Path(sys.argv[1], f"ready-{rank.rank}").touch()'
"""Says that a rank has come to this line."""


def are_ready(job_dir: Path) -> bool:
    return (job_dir / "ready-0").exists() and (job_dir / "ready-1").exists()


def processes_of(marker: Path | str) -> list[int]:
    """Living processes whose command line names the folder."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(marker).encode() in (entry / "cmdline").read_bytes():
                pids.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids


def wait_until(is_true: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not is_true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(is_true())
