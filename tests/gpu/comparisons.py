"""Comparisons on the GPU and on the CPU at the same time, within a time limit.

    python tests/gpu/comparisons.py FOLDER --limit 400 --gpu real_weights 6 --cpu four_tasks 10 'seeds=[0, 1, 2]'

Each `--gpu` and `--cpu` names a comparison, how many of its arms run at a time, and changes to it, and becomes a
`hir compare` of its own. Arms on the CPU have one thread each and a low priority: ranks on the GPU need cores too.

Writes into the folder the output of each command as `NAME.log`, and for every number of iterations N, in
`N-iterations/NAME`, what `hir compare` would write of the arms that have done so many: where the time was too short,
methods can still be compared after equally many iterations. The runs are in `--work`; the same command with the same
`--work` continues them. Models are large, so `--work` is deleted at the end unless it is given.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from measure import end  # noqa: E402 - beside this file

from flows.arm_process import HIR  # noqa: E402
from flows.cli.run import CONFIGS  # noqa: E402
from flows.compare import arm_result, write  # noqa: E402
from hir_core.config.comparison import load_comparison  # noqa: E402
from hir_core.config.load import find_config  # noqa: E402
from hir_core.errors import HirError  # noqa: E402
from hir_core.stages.prompts import check  # noqa: E402
from hir_core.stages.resume import completed_iterations  # noqa: E402
from hir_core.stages.run import Run  # noqa: E402


@dataclass(frozen=True)
class Command:
    """A comparison that is run."""

    device: str
    """`gpu` or `cpu`."""
    config: str
    """A shipped comparison, with or without its folder `comparisons`, or a YAML file."""
    jobs: int
    """How many of its arms run at a time."""
    changes: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The comparison's file."""
        shipped = CONFIGS / "comparisons" / f"{self.config}.yaml"
        return shipped if shipped.is_file() else find_config(self.config, CONFIGS)

    def start(self, work: Path, log: Path) -> subprocess.Popen[bytes]:
        """Starts `hir compare` in a session of its own."""
        call = [sys.executable, "-c", HIR, "compare", str(self.path), *self.changes, f"runs_dir={work / 'runs'}"]
        if self.jobs > 1:
            call += ["--jobs", str(self.jobs)]
        path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
        env = os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
        env |= {"PREFECT_HOME": str(work / f"prefect-{log.stem}"), "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
        env |= {"TORCHDYNAMO_DISABLE": "1"}  # nothing is compiled, and ranks start sooner
        if self.device == "cpu":
            env |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
            call = ["nice", "-n", "10", *call]
        with log.open("wb") as output:
            return subprocess.Popen(
                call, cwd=work, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )


def run(commands: Sequence[Command], folder: Path, work: Path, limit_s: float) -> bool:
    """Runs all commands at the same time for at most so many seconds; returns whether all were done."""
    started = time.monotonic()
    processes = [command.start(work, folder / f"{command.path.stem}.log") for command in commands]
    waiting = list(zip(commands, processes, strict=True))
    while waiting and time.monotonic() - started < limit_s:
        time.sleep(0.2)
        for command, process in [pair for pair in waiting if pair[1].poll() is not None]:
            waiting.remove((command, process))
            passed = time.monotonic() - started
            print(f"{command.path.stem}: status {process.returncode} after {passed:.0f} s", flush=True)
    for command, _ in waiting:
        print(f"{command.path.stem}: out of time", flush=True)
    with ThreadPoolExecutor() as pool:  # each may take seconds to end
        list(pool.map(end, [process for _, process in waiting]))
    return not waiting and not any(process.returncode for process in processes)


def write_results(command: Command, folder: Path, work: Path) -> None:
    """Writes a comparison's results after each number of iterations, of the arms that have done so many."""
    comparison, arms = load_comparison(command.path, CONFIGS, [*command.changes, f"runs_dir={work / 'runs'}"])
    runs = [Run(arm.config) for arm in arms]
    models = [completed_iterations(run, check(run).rows) for run in runs]
    for iterations in range(1, max(map(len, models))):
        results = [
            arm_result(arm, run, made[: iterations + 1])
            for arm, run, made in zip(arms, runs, models, strict=True)
            if len(made) > iterations
        ]
        tasks = {name: changes | {"iterations": iterations} for name, changes in comparison.tasks.items()}
        into = {"runs_dir": folder / f"{iterations}-iterations", "tasks": tasks}
        write(comparison.model_copy(update=into), results, len(arms))
        print(f"{comparison.compare}, {iterations} iterations: {len(results)} of {len(arms)} arms", flush=True)


def read_command(device: str, words: Sequence[str]) -> Command:
    """`NAME JOBS [KEY=VALUE ...]`."""
    config, jobs, *changes = words
    return Command(device, config, int(jobs), tuple(changes))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    for device in ("gpu", "cpu"):
        parser.add_argument(f"--{device}", nargs="+", action="append", default=[], metavar=("NAME JOBS", "KEY=VALUE"))
    parser.add_argument("--limit", type=float, default=480, help="seconds for the comparisons; results come after them")
    parser.add_argument("--work", type=Path, help="folder of the runs; a temporary one by default")
    options = parser.parse_args()
    commands = [read_command(device, words) for device in ("gpu", "cpu") for words in getattr(options, device)]
    folder = options.folder.resolve()
    work = Path(options.work or tempfile.mkdtemp(prefix="hir-comparisons-")).resolve()
    for made in (folder, work):
        made.mkdir(parents=True, exist_ok=True)
    try:
        is_done = run(commands, folder, work, options.limit)
        for command in commands:
            try:
                write_results(command, folder, work)
            except HirError as error:
                print(f"{command.path.stem}: no results: {error}", flush=True)
    finally:
        if options.work is None:
            shutil.rmtree(work, ignore_errors=True)
    sys.exit(not is_done)


if __name__ == "__main__":
    main()
