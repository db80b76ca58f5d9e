"""What a person sees while a run works: what it is, how far it is, and a table that grows by a row per model.

A terminal gets a live bar; anything else a line whenever nothing was said for a while. Reads manifests; writes to
standard output only.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from flows.wording import NOTHING, accuracy, duration, number, printable
from hir_core.config import RunConfig
from hir_core.devices import find_place
from hir_core.rank import Progress
from hir_core.stages import Outputs, Run
from hir_core.versions import StageRef

SILENCE_S = 15.0
"""Where there is no terminal, a line of progress comes when nothing was said for so long."""
COLUMNS = (
    ("", "model", 5),
    ("", "accuracy [95 %]", 20),
    ("majority", "baseline", 8),
    ("correct", "samples", 7),
    ("", "loss", 5),
    ("sampled", "tok/s", 7),
    ("trained", "tok/s", 7),
    ("", "s/step", 6),
    ("", "time", 6),
)
"""Two lines of header and a width: together they fit into 80 columns."""
DOING = {
    "train": "training",
    "save": "saving",
    "evaluate": "evaluating",
    "sample": "sampling from",
    "score": "scoring outputs of",
    "write": "writing instructions with",
    "weigh": "weighing instructions with",
}


class Display:
    """Shows one run; use it as a context manager, around a store that nobody else writes to."""

    def __init__(self, run: Run, console: Console | None = None) -> None:
        self.run = run
        self.console = console or Console(highlight=False, markup=False, soft_wrap=True)
        bar = (
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self.bars = Bars(*bar, console=self.console, transient=True)
        self.doing = "starting the launch for model 0"
        self.bar = self.bars.add_task(self.doing, total=None, note="")
        self.there = set(run.store.versions())
        self.models: list[Outputs] = []
        self.spoke = self.row_started = time.monotonic()

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self.bars.stop()
        if kind is None:
            self.end()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.console.print(printable(line))  # tasks are named in files of others
        self.spoke = time.monotonic()

    def progress(self, progress: Progress) -> None:
        """Shows how far a step of the launch has come."""
        doing = f"{DOING.get(progress.step, progress.step)} model {len(self.models)}"
        note = _note(progress)
        if doing != self.doing:
            self._now(doing)
        self.bars.update(self.bar, completed=progress.done, total=progress.total, note=note)
        if not self.console.is_terminal and time.monotonic() - self.spoke > SILENCE_S:
            self.say(f"  {doing}: {note}")

    def row(self, outputs: Outputs, rewards: StageRef | None = None) -> None:
        """Adds a model's row to the table."""
        if not self.models:
            self._begin_table(outputs)
        seconds, self.row_started = time.monotonic() - self.row_started, time.monotonic()
        refs = [outputs.model, outputs.evaluation, outputs.samples, rewards]
        is_new = any(ref is not None and ref not in self.there for ref in refs)
        self.say(_line([*row_cells(self.run, outputs, rewards), duration(seconds) if is_new else NOTHING]))
        self.models.append(outputs)
        self._now(f"starting the launch for model {len(self.models)}")

    def end(self) -> None:
        """Says what came out of it, and where it is."""
        self.say("")
        if set(self.run.store.versions()) == self.there:
            self.say(f"nothing to do: {_all_there(self.run.config.iterations)}")
        for line in task_lines(self.run, self.models[0].evaluation, self.models[-1].evaluation):
            self.say(line)
        self.say(f"model   {self.models[-1].model.path}   (plain transformers)")

    def _now(self, doing: str) -> None:
        """Starts the bar anew: the speed of one step says nothing about the next."""
        self.doing = doing
        self.bars.reset(self.bar, description=doing, total=None, note="")

    def _begin_table(self, outputs: Outputs) -> None:
        weights = self.run.facts(outputs.samples or outputs.evaluation).get("weights")
        if weights:
            self.say(f"sampling: {weights}")
        self.say("")
        for place in (0, 1):
            self.say(_line([names[place] for *names, _ in COLUMNS]))


def headline(config: RunConfig) -> str:
    """What runs where, in a line: printed before anything slow is imported."""
    facts = [
        config.run,
        _count(config.iterations, "iteration"),
        _processes(config),
        _memory(config.deepspeed_settings()),
        str(config.run_dir),
    ]
    return " · ".join(facts)


def row_cells(run: Run, outputs: Outputs, rewards: StageRef | None) -> list[str]:
    """The cells of a model's row but the time, from the manifests of what its launch left."""
    trained, tested = run.facts(outputs.model), run.facts(outputs.evaluation)
    sampled = run.facts(outputs.samples) if outputs.samples else {}
    steps = trained.get("steps")
    return [
        str(outputs.model.iteration),
        accuracy(tested["overall"]),
        number(tested["overall"]["majority_baseline"], ".3f"),
        number(run.facts(rewards)["correct_share"] if rewards else None, ".3f"),
        number(trained.get("loss"), ".3f"),
        number(sampled.get("tokens_per_s"), ",.0f"),
        number(trained.get("tokens_per_s"), ",.0f"),
        number(trained["seconds"] / steps if steps else None, ".2f"),
    ]


def task_lines(run: Run, first: StageRef, last: StageRef) -> list[str]:
    """Accuracy by task, before and after, where there is more than one task."""
    before, after = run.facts(first)["tasks"], run.facts(last)["tasks"]
    if len(after) < 2:
        return []
    width = max(map(len, after))
    return [
        f"{'' if place else 'tasks':<8}{task:<{width}}  {_rise(before.get(task, {}), facts)}"
        for place, (task, facts) in enumerate(after.items())
    ]


def _rise(before: dict[str, Any], after: dict[str, Any]) -> str:
    return (
        f"{number(before.get('accuracy'), '.3f')} → {accuracy(after)}   "
        f"majority {number(after['majority_baseline'], '.3f')}, {number(after['items'])} items"
    )


def _all_there(iterations: int) -> str:
    if iterations < 2:
        return f"model {iterations} and its evaluation are there"
    return f"all {iterations} iterations are there"


def _note(progress: Progress) -> str:
    facts = [f"{progress.done:,} of {progress.total:,} {progress.unit}"]
    if progress.tokens and progress.seconds:
        facts.append(f"{progress.tokens / progress.seconds:,.0f} tok/s")
    if progress.loss is not None:
        facts.append(f"loss {progress.loss:.3f}")
    return " · ".join(facts)


def _line(cells: list[str]) -> str:
    return " ".join(f"{cell:>{width}}" for cell, (*_, width) in zip(cells, COLUMNS, strict=True)).rstrip()


def _processes(config: RunConfig) -> str:
    place = find_place(config.launch)
    if place.is_remote:
        return f"{_count(place.ranks, 'process', 'es')} on {_count(len(place.hosts), 'host')}"
    return f"{_count(place.ranks, 'process', 'es')} on {'GPU' if place.devices.gpus else 'CPU'}"


def _memory(settings: dict[str, Any]) -> str:
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    kind = "bf16" if settings.get("bf16", {}).get("enabled") else "fp32"
    return f"ZeRO-{stage} {kind}" if stage else f"no ZeRO, {kind}"


def _count(count: int, word: str, plural: str = "s") -> str:
    return f"{count} {word}{'' if count == 1 else plural}"
