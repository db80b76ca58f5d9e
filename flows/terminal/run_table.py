"""What a person sees while a run works: what it is, how far it is, and a table that grows by a row per model.

Reads manifests; leaves drawing to `bar`.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console

from flows.terminal.formatting import NOTHING, accuracy, duration, number
from flows.terminal.progress_bar import StatusLine
from hir_core.config import RunConfig
from hir_core.inspect.diagnostics import distinguishes_instructions
from hir_core.inspect.report import page_path
from hir_core.launch.devices import find_place
from hir_core.progress import Progress
from hir_core.stages.train import Outputs
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

COLUMNS = (
    ("", "model", 5, 0),
    ("", "accuracy [95 %]", 20, 0),
    ("majority", "baseline", 8, 1),
    ("correct", "samples", 7, 2),
    ("", "loss", 5, 3),
    ("sampled", "tok/s", 7, 4),
    ("trained", "tok/s", 7, 5),
    ("", "s/step", 6, 6),
    ("", "time", 6, 0),
)
"""Two lines of header, a width, and how soon it is left out where the terminal is too narrow; all fit into 80."""
DOING = {
    "launch": "starting the launch for model {}",
    "load": "loading weights for model {}",
    "train": "training model {}",
    "save": "saving model {}",
    "evaluate": "evaluating model {}",
    "sample": "sampling from model {}",
    "score": "scoring outputs of model {}",
    "write": "writing instructions with model {}",
    "logprobs": "scoring instructions with model {}",
    "end": "ending the launch of model {}",
    "verify": "checking instructions of model {}",
    "relabel": "relabeling samples for model {}",
}
"""What a person reads for the steps of a launch, and for those of the driver between launches."""
BLIND = "it hardly tells the two instructions apart: fewer wrong outputs may help"


class RunTable:
    """Shows one run; use it as a context manager, while no other process writes to the run."""

    def __init__(self, store: Store, console: Console | None = None) -> None:
        self.store = store
        self.bar = StatusLine(console)
        console = self.bar.console
        self.columns = fitting_columns(console.width if console.is_terminal else None)
        self.there: set[VersionRef] = set()
        self.models: list[Outputs] = []
        self.row_started = time.monotonic()

    def __enter__(self) -> RunTable:
        self.there = set(self.store.versions())
        self.row_started = time.monotonic()
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.__exit__(kind, error, trace)
        if kind is None:
            self.end()

    def progress(self, progress: Progress) -> None:
        """Shows how far a step of the run has come."""
        self.bar.tell(DOING[progress.step].format(len(self.models)), progress)

    def row(self, outputs: Outputs, rewards: VersionRef | None = None) -> None:
        """Adds a model's row to the table."""
        if not self.models:
            self._begin_table(outputs)
        seconds, self.row_started = time.monotonic() - self.row_started, time.monotonic()
        refs = [outputs.model, outputs.evaluation, outputs.samples, rewards]
        is_new = any(ref is not None and ref not in self.there for ref in refs)
        self._line([*row_cells(self.store, outputs, rewards), duration(seconds) if is_new else NOTHING])
        if self._is_blind(outputs.model):
            self.bar.say(f"      {BLIND}")
        self.models.append(outputs)

    def _is_blind(self, model: VersionRef) -> bool:
        """Whether an output is as likely under the wrong instruction as under the correct one."""
        manifest = self.store.manifest(model)
        return any(
            distinguishes_instructions(manifest, triples) is False for triples in self.store.parents(model, "triples")
        )

    def end(self) -> None:
        """Says what came out of it, and where it is."""
        self.bar.say("")
        if set(self.store.versions()) == self.there:
            self.bar.say(f"nothing to do: {_all_there(len(self.models) - 1)}")
        for line in task_lines(self.store, self.models[0].evaluation, self.models[-1].evaluation):
            self.bar.say(line)
        self.bar.say(f"model   {self.models[-1].model.path}   (plain transformers)")
        if page_path(self.store).is_file():
            self.bar.say(f"report  {page_path(self.store)}")

    def _begin_table(self, outputs: Outputs) -> None:
        weights = self.store.manifest(outputs.samples or outputs.evaluation).metrics.get("weights")
        if weights:
            self.bar.say(f"sampling: {weights}")
        self.bar.say("")
        for place in (0, 1):
            self._line([str(column[place]) for column in COLUMNS])

    def _line(self, cells: list[str]) -> None:
        self.bar.say(" ".join(f"{cells[n]:>{COLUMNS[n][2]}}" for n in self.columns).rstrip())


def fitting_columns(width: int | None) -> list[int]:
    """The places of the table's columns that fit into so many characters; of all without a limit."""
    kept = list(range(len(COLUMNS)))
    while width is not None and sum(COLUMNS[n][2] + 1 for n in kept) - 1 > width and any(COLUMNS[n][3] for n in kept):
        kept.remove(max(kept, key=lambda n: COLUMNS[n][3]))
    return kept


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


def row_cells(store: Store, outputs: Outputs, rewards: VersionRef | None) -> list[str]:
    """The cells of a model's row but the time, from the manifests of what its launch left."""
    trained, tested = store.manifest(outputs.model).metrics, store.manifest(outputs.evaluation).metrics
    sampled = store.manifest(outputs.samples).metrics if outputs.samples else {}
    steps = trained.get("steps")
    return [
        str(outputs.model.iteration),
        accuracy(tested["overall"]),
        number(tested["overall"]["majority_baseline"], ".3f"),
        number(store.manifest(rewards).metrics["correct_share"] if rewards else None, ".3f"),
        number(trained.get("loss"), ".3f"),
        number(sampled.get("tokens_per_s"), ",.0f"),
        number(trained.get("tokens_per_s"), ",.0f"),
        number(trained["seconds"] / steps if steps else None, ".2f"),
    ]


def task_lines(store: Store, first: VersionRef, last: VersionRef) -> list[str]:
    """Accuracy by task, before and after, where there is more than one task."""
    before, after = store.manifest(first).metrics["tasks"], store.manifest(last).metrics["tasks"]
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
