"""The trackers of a run: TensorBoard and others get its curves, model by model, from a process of their own.

Reads the versions that led to a model; writes lines to `hir_core.tracker_process`, which holds torch and the trackers'
libraries. Nothing here ends or holds up a run: whatever goes wrong is one line, and what is not handed over `WAIT_S`
seconds after the end of a run is left to the process, which outlives it. Points are at the optimizer step, counted over
all iterations.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from flows.terminal.formatting import clipped, number
from flows.terminal.version import flat
from hir_core.inspect.examples import SampleExample, sample_examples
from hir_core.inspect.history import Iteration
from hir_core.stages.identity import Scored
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.graph import VersionGraph
from hir_core.store.manifest import canonical_json
from hir_core.store.training_log import read_training_log
from hir_core.store.version import VersionRef
from hir_core.tracker_process import record_path, recorded_models

WAIT_S = 10.0
TEXT_CHARACTERS = 300
PROBLEM_CHARACTERS = 300
LOG = "log.txt"
"""The file in which the trackers' process leaves what trackers print."""
Values = dict[str, float | str]


class Trackers:
    """The trackers that a run's config names; entered while the run's loop goes on.

    Args:
        run: one whose iterations are all told of, from the first one on.
        say: prints a line.
    """

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self._run, self._say = run, say
        self.names = list(dict.fromkeys(run.config.trackers))
        self.folder = run.config.run_dir / "trackers"
        self.run_name = f"{run.config.run}-{_settings_digest(run)}"
        self._steps = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: deque[str] = deque()
        self._listener: threading.Thread | None = None

    def __enter__(self) -> Trackers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._tolerated():
            self._end(wait_s=WAIT_S if kind is None else 0.0)

    def add(self, outputs: Outputs, scored: Scored | None = None) -> None:
        """Hands over a model, where a tracker does not have it yet.

        Args:
            outputs: of the next iteration.
            scored: the samples that it was trained on.
        """
        with self._tolerated():
            if not self.names:
                return
            model, before = outputs.model, self._steps
            self._steps += self._run.metrics(model).get("steps") or 0
            paths = [record_path(self.folder, self.run_name, name) for name in self.names]
            if any(str(model) not in recorded_models(path) for path in paths):
                points = [
                    *step_points(self._run, model, before),
                    (self._steps, model_values(self._run, outputs, scored)),
                ]
                settings = dict(flat(self._run.config.model_dump(mode="json")))
                self._send({"model": str(model), "settings": settings, "points": points})
            self._say_answers()

    # --- the process -------------------------------------------------------------------------------------------------

    def _send(self, entry: dict[str, Any]) -> None:
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(json.dumps(entry).encode() + b"\n")
        process.stdin.flush()

    def _start(self) -> subprocess.Popen[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        # Whatever launch this process is part of, and whatever GPUs there are, the trackers' is alone and needs none.
        env = {name: value for name, value in os.environ.items() if name not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        command = [sys.executable, "-m", "hir_core.tracker_process", str(self.folder), self._run.config.run]
        with (self.folder / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [*command, self.run_name, *self.names],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=env | {"CUDA_VISIBLE_DEVICES": ""},
                start_new_session=True,  # Ctrl-C is for the run; the process ends with its input
            )
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        return self._process

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._answers.append(line.decode(errors="replace").strip())

    def _say_answers(self) -> None:
        while self._answers:
            self._warn(clipped(self._answers.popleft(), PROBLEM_CHARACTERS))

    def _end(self, wait_s: float) -> None:
        process, self._process = self._process, None
        if process is None or process.stdin is None or self._listener is None:
            return
        process.stdin.close()
        if not wait_s:
            return
        names = ", ".join(self.names)
        try:
            if process.wait(wait_s):
                self._warn(f"the trackers ({names}) were not given all of this run")
            self._listener.join(1.0)
        except subprocess.TimeoutExpired:
            self._say(f"the trackers ({names}) are still given the end of this run, by process {process.pid}")
        self._say_answers()

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        """A context in which whatever goes wrong is said in one line; the trackers then get nothing more."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a run must not fail because its trackers do
            names, self.names = self.names, []
            problem = clipped(f"{type(error).__name__}: {error}", PROBLEM_CHARACTERS)
            self._warn(f"the trackers ({', '.join(names)}) get no more of this run: {problem}")

    def _warn(self, problem: str) -> None:
        self._say(f"warning: {problem}; see {self.folder / LOG}")


# --- what trackers get -----------------------------------------------------------------------------------------------


def step_points(run: Run, model: VersionRef, before: int) -> Iterator[tuple[int, Values]]:
    """What was measured at each optimizer step of a model's training.

    Args:
        before: optimizer steps of the models before.
    """
    for row in read_training_log(run.store, model).iter_rows(named=True):
        yield before + row["step"], {f"train/{name}": value for name, value in row.items() if name != "step"}


def model_values(run: Run, outputs: Outputs, scored: Scored | None) -> Values:
    """What is known of a model when it is complete: the numbers of its row in the run's table, and some samples."""
    tested = run.metrics(outputs.evaluation)
    numbers: dict[str, Any] = {"iteration": outputs.model.iteration}
    for name in ("accuracy", "low", "high", "mean_score", "majority_baseline"):
        numbers[f"evaluation/{name}"] = tested["overall"].get(name)
    if len(tested["tasks"]) > 1:
        for task, summary in tested["tasks"].items():
            numbers[f"evaluation by task/{task}"] = summary.get("accuracy")
    numbers["speed/evaluation, tokens per s"] = tested.get("tokens_per_s")
    numbers["speed/training, tokens per s"] = run.metrics(outputs.model).get("tokens_per_s")
    texts: Values = {}
    if scored is not None:
        sampled, rewards = run.metrics(scored.samples), run.metrics(scored.rewards)
        triples = run.store.parents(outputs.model, "triples")
        numbers["speed/sampling, tokens per s"] = sampled.get("tokens_per_s")
        numbers["samples/correct"] = rewards.get("correct_share")
        numbers["samples/cut off"] = (sampled.get("cut_off") or 0) / (run.store.manifest(scored.samples).rows or 1)
        numbers["samples/used"] = triples[0].metrics.get("outputs_with_gradient") if triples else None
        for name, mean in rewards.get("attributes", {}).items():
            numbers[f"attributes/{name}"] = mean.get("mean")
        texts["samples"] = samples_text(run, scored)
    return {name: float(value) for name, value in numbers.items() if value is not None} | texts


def samples_text(run: Run, scored: Scored) -> str:
    """A Markdown table of a few samples of an iteration: best, worst, and without a score."""
    iteration = Iteration(scored.samples.iteration, samples=scored.samples, rewards=scored.rewards)
    examples = sample_examples(VersionGraph(run.store), iteration)
    shown = [*examples.best, *examples.worst, *examples.unscored]
    rows = [_row(example) for example in dict.fromkeys(shown)]
    return "\n".join(["| score | query | output |", "|---|---|---|", *rows])


def _row(example: SampleExample) -> str:
    cells = number(example.score, ".4g"), example.asked.query.text, example.completion.text
    return f"| {' | '.join(map(as_cell, cells))} |"


def as_cell(text: str) -> str:
    """A text from data in a table of Markdown, on one line; trackers render Markdown and HTML, and it is neither."""
    marks: dict[str, str | int | None] = {mark: f"\\{mark}" for mark in "\\`*_[]|~#"}
    marks |= {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
    return clipped(text, TEXT_CHARACTERS).translate(str.maketrans(marks))


def _settings_digest(run: Run) -> str:
    """Eight digits that are the same for runs with the same settings: further iterations continue a tracker's run."""
    settings = [run.config.fingerprint(), run.reward.fingerprint(), run.relabeler.fingerprint()]
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:8]
