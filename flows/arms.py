"""How the arms of a comparison are run: one after the other in this process, or several at a time as `hir run`s.

The arms of one task and seed are in one run: they share its first model and samples, and a run has one writer. So they
go one after the other, and arms of different runs side by side, each in a process of its own (see `arm_process`).
Writes what those need into `arms` in the comparison's folder. Leaves the results to `compare`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NamedTuple

from flows.arm_process import ArmProcess, end
from flows.hindsight import hindsight
from flows.orchestration import server
from flows.terminal.formatting import accuracy
from flows.terminal.progress_bar import StatusLine
from hir_core.config.comparison import Arm
from hir_core.errors import HirError, RunCancelled
from hir_core.progress import Progress
from hir_core.stages.prompts import check
from hir_core.stages.resume import completed_iterations
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs

POLL_S = 0.2


class Ended(NamedTuple):
    """What became of an arm."""

    arm: Arm
    models: Sequence[Outputs] = ()
    """Those of every iteration; none where it failed."""
    is_new: bool = False
    """Whether something was made for it; else all of it was there already."""
    error: HirError | None = None
    """Why it failed."""


def one_by_one(arms: Sequence[Arm]) -> Generator[Ended]:
    """Runs the arms in this process, in their order, and shows the table of each.

    Raises:
        RunCancelled: an arm was cancelled from Prefect.
    """
    for number, arm in enumerate(arms, start=1):
        print(f"\n{arm.name} · arm {number} of {len(arms)}", flush=True)
        run = Run(arm.config)
        versions_before = run.store.versions()
        try:
            models = completed_models(run)
            if models:
                print(f"nothing to do: model {arm.config.iterations} is there", flush=True)
            else:
                models = server.call(hindsight, arm.config)
            ended = Ended(arm, models, is_new=run.store.versions() != versions_before)
        except RunCancelled:
            raise
        except HirError as error:
            print(f"error: {error}\nthe comparison goes on", file=sys.stderr, flush=True)
            ended = Ended(arm, error=error)
        yield ended


def side_by_side(arms: Sequence[Arm], jobs: int, folder: Path) -> Generator[Ended]:
    """Runs up to `jobs` arms at a time, and prints a line for each one that ends.

    Close the generator where its caller stops: that ends the arms which are running.

    Args:
        arms: those of one run are run in their order.
        folder: for what each arm is given and prints; created where needed.

    Raises:
        RunCancelled: an arm was cancelled from Prefect, or its process was interrupted.
    """
    waiting: dict[Path, list[Arm]] = {}
    for arm in arms:
        waiting.setdefault(arm.config.run_dir, []).append(arm)
    running: list[ArmProcess] = []
    done, started_at = 0, time.monotonic()
    try:
        with StatusLine() as status_line:
            while done < len(arms):
                for ended in [*_start(waiting, running, jobs, folder), *_stopped(running)]:
                    done += 1
                    status_line.print_above(_line(ended, done, len(arms)))
                    yield ended
                passed = time.monotonic() - started_at
                status_line.update(
                    f"{len(running)} arms running", Progress("arms", done, len(arms), "arms", seconds=passed)
                )
                time.sleep(POLL_S)
    finally:
        end(running)


def completed_models(run: Run) -> list[Outputs]:
    """The models of an arm that is complete, none of any other: a flow takes seconds to find nothing to do."""
    wanted = run.config.iterations + 1
    completed = completed_iterations(run, check(run).rows)
    return completed[:wanted] if len(completed) >= wanted else []


def _start(waiting: dict[Path, list[Arm]], running: list[ArmProcess], jobs: int, folder: Path) -> list[Ended]:
    """Starts as many arms as may run beside those that are running; returns those that were complete already."""
    complete: list[Ended] = []
    while len(running) < jobs and (arm := _next(waiting, running)) is not None:
        if models := completed_models(Run(arm.config)):
            complete.append(Ended(arm, models))
        else:
            running.append(ArmProcess(arm, folder, jobs))
    return complete


def _next(waiting: dict[Path, list[Arm]], running: Sequence[ArmProcess]) -> Arm | None:
    """Takes the next arm that can start: of a run that no arm is running in, and of these the one with most to do."""
    busy = {process.arm.config.run_dir for process in running}
    free = [run_dir for run_dir, arms in waiting.items() if arms and run_dir not in busy]
    return waiting[max(free, key=lambda run_dir: len(waiting[run_dir]))].pop(0) if free else None


def _stopped(running: list[ArmProcess]) -> list[Ended]:
    """Takes the arms whose processes have ended, with what became of them.

    Raises:
        RunCancelled: an arm was cancelled from Prefect, or its process was interrupted.
    """
    stopped = [process for process in running if process.has_ended()]
    end(stopped)
    ended: list[Ended] = []
    for process in stopped:
        running.remove(process)
        try:
            process.raise_error()
            models = completed_models(Run(process.arm.config))
            if not models:
                raise HirError(f"its process ended without a last model: see {process.log}")
            ended.append(Ended(process.arm, models, is_new=True))
        except RunCancelled:
            raise
        except HirError as error:
            ended.append(Ended(process.arm, error=error))
    return ended


def _line(ended: Ended, number: int, planned: int) -> str:
    """An arm that has ended, in a line: its last model's accuracy, or why there is none."""
    if ended.error is not None:
        what = f"error: {ended.error.lines[0]}"
    else:
        overall = Run(ended.arm.config).metrics(ended.models[-1].evaluation)["overall"]
        what = f"accuracy {accuracy(overall)}" + ("" if ended.is_new else " · nothing to do")
    return f"{number:4} of {planned} · {ended.arm.name} · {what}"
