"""Where the time of an iteration goes: starting ranks, loading, training, sampling, and what lies between launches."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from tests.benchmarks import recipe_runs
from tests.benchmarks.measure import Case, Figure, Result, Side, Work, spread
from tests.benchmarks.side_process import Clock

LOOK_EVERY_S = 0.02
PARTS = {
    "launcher": "from the job's file to the start of the rank",
    "imports": "from there until the rank loads the model",
    "load": "tokenizer, weights and prompts",
    "engine": "the engine, the checks before training, and what the model makes of the outputs that are ruled out",
    "training": "the optimizer steps",
    "save": "the model's files",
    "evaluate": "answers to the test prompts",
    "sample": "samples for the next iteration",
    "between launches": "all else until the next job's file: committing, scoring, relabeling",
}


def run_quickstart(clock: Clock, inputs: Path, iterations: int) -> Work:
    """Runs the recipe and takes its iterations apart; the first and the last one are left out.

    The first one trains the new model, and the last one draws no samples.
    """
    with clock:
        process = recipe_runs.start(Path(), {"iterations": iterations})
        loads = watch_loads(process, Path("runs/quickstart/launches"))
        recipe_runs.finish(process)
    jobs = sorted(Path("runs/quickstart/launches").iterdir())
    parts = [parts_of(job, following, loads.get(job.name)) for job, following in list(pairwise(jobs))[1:]]
    means = {name: mean(values[name] for values in parts) for name in PARTS}
    period = mean(begin(following) - begin(job) for job, following in list(pairwise(jobs))[1:])
    return Work(iterations, {**means, "whole iteration": period})


def watch_loads(process: Any, launches: Path) -> dict[str, float]:
    """When each launch began to load its model, by the launch's name: its progress file says so for a moment only."""
    loads: dict[str, float] = {}
    while process.poll() is None:
        for path in launches.glob("*/progress.json"):
            name = path.parent.name
            if name not in loads and json.loads(path.read_text())["step"] == "load":
                loads[name] = path.stat().st_mtime
        time.sleep(LOOK_EVERY_S)
    return loads


def begin(job: Path) -> float:
    """When a job was written, in seconds since the epoch."""
    return (job / "job.json").stat().st_mtime


def parts_of(job: Path, following: Path, load_began: float | None) -> dict[str, float]:
    """The seconds of each part, from the files that a rank leaves in the job's folder."""
    steps = list(_steps(job))
    [trained] = [result for name, result, _ in steps if name == "train"]
    seconds = {name: result["step_seconds"] for name, result, _ in steps}
    started = json.loads((job / "rank-0.started.json").read_text())["time"]
    first_step_began = steps[0][2] - steps[0][1]["step_seconds"]
    loaded = first_step_began if load_began is None else load_began
    parts = {
        "launcher": started - begin(job),
        "imports": loaded - started,
        "load": first_step_began - loaded,
        "engine": trained["step_seconds"] - trained["seconds"],
        "training": trained["seconds"],
        **{name: seconds[name] for name in ("save", "evaluate", "sample")},
    }
    return {**parts, "between launches": begin(following) - begin(job) - sum(parts.values())}


def _steps(job: Path) -> Iterator[tuple[str, dict[str, Any], float]]:
    """The name, the result and the end of each step."""
    for number, step in enumerate(json.loads((job / "job.json").read_text())["steps"]):
        done = job / f"done-{number}.json"
        yield step.get("name") or step["type"], json.loads(done.read_text()), done.stat().st_mtime


def parts(result: Result) -> list[Figure]:
    """The wall seconds of each part of an iteration."""
    measured = result.of("hir")
    names = [*PARTS, "whole iteration"] if measured else []
    return [spread(name, [float(m.facts[name]) for m in measured], "wall s") for name in names]


CASES = (
    Case(
        name="iteration",
        question="the parts of an iteration of the recipe quickstart, by the files that it leaves",
        unit="iterations",
        sides=(Side("hir", run_quickstart, {"iterations": 5}),),
        rounds=3,
        starts_inside=True,
        conclude=parts,
    ),
)
