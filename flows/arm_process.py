"""The process of one arm of a comparison whose arms run side by side: a `hir run` that ends with this process.

It reports to this process's Prefect server, which it finds in the environment, and shares the CPU cores with the other
arms. Writes the arm's config, and what the process prints, into a folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from hir_core import supervisor
from hir_core.config.comparison import Arm
from hir_core.errors import HirError, RunCancelled
from hir_core.store.files import write_text
from hir_core.store.plain_files import open_plain

ERROR = "error: "
"""The beginning of the line in which `hir run` says why it failed."""
HIR = "from flows.cli.app import app; app(prog_name='hir')"
"""The command `hir`, as code for an interpreter."""
SHARED_CORES = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")
"""The variables that say how many threads compute: ranks use torch's, and the process itself those of Polars."""


class ArmProcess:
    """Starts `hir run` for an arm.

    Args:
        arm: the arm; its run must not be written by another process.
        folder: for `<run>/<method>.yaml`, the arm's config, and `<run>/<method>.log`; created where needed.
        jobs: how many arms share the CPU cores of this machine.
    """

    def __init__(self, arm: Arm, folder: Path, jobs: int) -> None:
        self.arm = arm
        folder = folder / arm.config.run
        folder.mkdir(parents=True, exist_ok=True)
        config = write_text(folder / f"{arm.method}.yaml", yaml.safe_dump(arm.config.model_dump(mode="json")))
        self.log = folder / f"{arm.method}.log"
        command = [sys.executable, "-P", "-c", HIR, "run", str(config)]
        # As for a launch: isolated, in a session of its own, where a terminal's Ctrl-C reaches this process only. The
        # stop file is for other hosts: nobody looks for one here.
        grace_s = str(arm.config.launch.grace_s)
        supervised = [sys.executable, "-I", "-S", str(supervisor.__file__), os.devnull, grace_s, *command]
        with open_plain(self.log, "w") as log:
            self._process = subprocess.Popen(
                supervised,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(jobs),
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        """Whether the process and all below it have ended."""
        has_ended = self._process.poll() is not None
        if has_ended:
            self._close_pipe()
        return has_ended

    def close(self) -> None:
        """Asks the supervisor to end the process and all below it, once ranks that train have saved a checkpoint."""
        self._process.terminate()

    def wait(self) -> None:
        """Waits until the process and all below it have ended."""
        self._process.wait()
        self._close_pipe()

    def _close_pipe(self) -> None:
        """Closes the pipe whose end tells the supervisor that this process is gone."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def raise_error(self) -> None:
        """Returns where the process, which has ended, did what it was to do.

        Raises:
            RunCancelled: the arm was cancelled from Prefect, or its process was interrupted.
            HirError: it failed, as it says.
        """
        status = self._process.returncode
        if status == 0:
            return
        printed = self.log.read_text(encoding="utf-8", errors="replace")
        _, says_why, why = f"\n{printed}".rpartition(f"\n{ERROR}")
        if status == RunCancelled.exit_code:
            interrupted = f"{self.arm.name} was interrupted; the same command continues"
            raise RunCancelled(why.rstrip() if says_why else interrupted)
        if not says_why:
            raise HirError(f"its process ended with status {status}: see {self.log}")
        raise HirError(*why.rstrip().split("\n"), f"  log: {self.log}")


def end(processes: Sequence[ArmProcess]) -> None:
    """Ends processes and all that is below them; returns once they are gone.

    Where the wait is interrupted, they end with this process.
    """
    for process in processes:
        process.close()
    for process in processes:
        process.wait()


def environment(jobs: int) -> dict[str, str]:
    """The environment of an arm's process: this one's, with the arm's share of the CPU cores where it sets none."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
    return dict.fromkeys(SHARED_CORES, threads) | os.environ
