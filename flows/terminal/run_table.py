"""What `hir run` prints while it works: a headline, the status line, a table with a row per model, and the results.

Reads manifests. How the status line is drawn is left to `flows.terminal.progress_bar`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console

from flows.terminal.formatting import NOTHING, accuracy, duration, number, quantity
from flows.terminal.progress_bar import StatusLine
from hir_core.config import RunConfig
from hir_core.inspect.diagnostics import (
    cut_off_advice,
    distinguishes_instructions,
    graded_score,
    reward_advice,
    too_long_advice,
    variety_advice,
)
from hir_core.inspect.report import page_path
from hir_core.launch.devices import find_place
from hir_core.progress import Progress
from hir_core.stages.train import Outputs
from hir_core.store.adapters import base_of
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

COLUMNS = (
    ("", "model", 5, 0),
    ("", "accuracy [95 %]", 20, 0),
    ("majority", "baseline", 8, 1),
    ("correct", "samples", 7, 2),
    ("", "used", 5, 4),
    ("", "loss", 5, 3),
    ("sampled", "tok/s", 7, 5),
    ("trained", "tok/s", 7, 6),
    ("", "time", 6, 0),
)
"""Of each column two lines of header, the width, and a rank: in a narrow terminal the highest rank is left out first,
rank 0 never. All columns fit into 80 characters. `used` is the share of the distinct judged outputs from which
the model has learned: demonstrations, and outputs that are ruled out."""
STEP_TEXTS = {
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
"""What the status line shows for a step of a launch, or of the driver between launches."""
HARDLY_DISTINGUISHED = "hardly distinguishes the two instructions: set select.others_per_correct"


class RunTable:
    """The table and status line of one run; use it as a context manager while the run's lock is held.

    Attributes:
        model: the number of the model that the steps shown are about.
    """

    def __init__(self, store: Store, console: Console | None = None) -> None:
        self.store = store
        self.status_line = StatusLine(console)
        console = self.status_line.console
        self.columns = fitting_columns(console.width if console.is_terminal else None)
        self.versions_before: set[VersionRef] = set()
        self.models: list[Outputs] = []
        self.model = 0
        self._row_started_at = time.monotonic()
        self._note = ""

    def __enter__(self) -> RunTable:
        self.versions_before = set(self.store.versions())
        self._row_started_at = time.monotonic()
        self.status_line.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.status_line.__exit__(kind, error, trace)
        if kind is None:
            self.print_results()

    @property
    def has_new_versions(self) -> bool:
        """Whether a version was committed since the table was entered."""
        return set(self.store.versions()) != self.versions_before

    def show_progress(self, progress: Progress) -> None:
        """Shows how far a step of the run is, and its note once, on a line of its own."""
        if progress.note not in ("", self._note):
            self.status_line.print_above(f"model {self.model} {progress.note}")
        self._note = progress.note
        self.status_line.update(STEP_TEXTS[progress.step].format(self.model), progress)

    def add_row(self, outputs: Outputs, rewards: VersionRef | None = None) -> None:
        """Adds a model's row to the table; the first one below the header."""
        if not self.models:
            facts = self.store.manifest(outputs.samples or outputs.evaluation).metrics
            if facts.get("weights"):
                self.status_line.print_above(f"sampling: {facts['weights']}")
            if facts.get("preset"):
                taken = ", ".join(f"{name} {value:g}" for name, value in facts["preset"].items())
                self.status_line.print_above(f"sampling: {taken}, as the model's own settings say")
            self.status_line.print_above("")
            for place in (0, 1):
                self._print_cells([str(column[place]) for column in COLUMNS])
        seconds, self._row_started_at = time.monotonic() - self._row_started_at, time.monotonic()
        refs = [outputs.model, outputs.evaluation, outputs.samples, rewards]
        is_new = any(ref is not None and ref not in self.versions_before for ref in refs)
        self._print_cells([*row_cells(self.store, outputs, rewards), duration(seconds) if is_new else NOTHING])
        manifest = self.store.manifest(outputs.model)
        trained_on = self.store.parents(outputs.model, "triples")
        if any(distinguishes_instructions(manifest, triples) is False for triples in trained_on):
            self.status_line.print_above(f"      {HARDLY_DISTINGUISHED}")
        if left_out := too_long_advice(manifest):
            self.status_line.print_above(f"      {outputs.model.stage}: {left_out}")
        for ref in (outputs.evaluation, outputs.samples):
            if ref is not None:
                made = self.store.manifest(ref)
                notes = (made.metrics.get("smaller_batches"), cut_off_advice(made), too_long_advice(made))
                for note in filter(None, notes):
                    self.status_line.print_above(f"      {ref.stage}: {note}")
        for note in score_notes(self.store, outputs, rewards):
            self.status_line.print_above(f"      {note}")
        self.models.append(outputs)
        self.model = len(self.models)

    def print_results(self) -> None:
        """Prints the accuracies by task, and where the last model and the report are."""
        self.status_line.print_above("")
        if not self.has_new_versions:
            iterations = len(self.models) - 1
            done = (
                f"all {iterations} iterations are" if iterations > 1 else f"model {iterations} and its evaluation are"
            )
            self.status_line.print_above(f"nothing to do: {done} there")
        for line in task_lines(self.store, self.models[0].evaluation, self.models[-1].evaluation):
            self.status_line.print_above(line)
        model = self.models[-1].model
        is_whole = base_of(self.store, model) == model
        export = f"hir export {self.store.run_dir.name}/{model} DIR"
        kind = "plain transformers" if is_whole else f"LoRA adapter; a whole model: {export}"
        self.status_line.print_above(f"model   {model.path}   ({kind})")
        if page_path(self.store).is_file():
            self.status_line.print_above(f"report  {page_path(self.store)}")

    def _print_cells(self, cells: list[str]) -> None:
        line = " ".join(f"{cells[n]:>{COLUMNS[n][2]}}" for n in self.columns)
        self.status_line.print_above(line.rstrip())


def fitting_columns(width: int | None) -> list[int]:
    """The places of the columns that fit into so many characters; of all columns without a limit."""
    kept = list(range(len(COLUMNS)))
    while width is not None and sum(COLUMNS[n][2] + 1 for n in kept) - 1 > width and any(COLUMNS[n][3] for n in kept):
        kept.remove(max(kept, key=lambda n: COLUMNS[n][3]))
    return kept


def headline(config: RunConfig) -> str:
    """One line that says what runs where; printed before anything slow is imported."""
    place, settings = find_place(config.launch), config.deepspeed_settings()
    device = "GPU" if place.devices.gpus else "CPU"
    machines = quantity(len(place.hosts), "host") if place.is_remote else device
    stage = settings.get("zero_optimization", {}).get("stage", 0)
    dtype = "bf16" if settings.get("bf16", {}).get("enabled") else "fp32"
    facts = [
        config.run,
        quantity(config.iterations, "iteration"),
        f"{quantity(place.ranks, 'process', 'es')} on {machines}",
        f"ZeRO-{stage} {dtype}" if stage else f"no ZeRO, {dtype}",
        str(config.run_dir),
    ]
    return " · ".join(facts)


def row_cells(store: Store, outputs: Outputs, rewards: VersionRef | None) -> list[str]:
    """The cells of a model's row but the time, from the manifests of what its launch left."""
    trained, tested = store.manifest(outputs.model).metrics, store.manifest(outputs.evaluation).metrics
    sampled = store.manifest(outputs.samples).metrics if outputs.samples else {}
    used = [triples.metrics.get("outputs_with_gradient") for triples in store.parents(outputs.model, "triples")]
    return [
        str(outputs.model.iteration),
        accuracy(tested["overall"]),
        number(tested["overall"]["majority_baseline"], ".3f"),
        number(store.manifest(rewards).metrics["correct_share"] if rewards else None, ".3f"),
        number(used[0] if used else None, ".3f"),
        number(trained.get("loss"), ".3f"),
        number(sampled.get("tokens_per_s"), ",.0f"),
        number(trained.get("tokens_per_s"), ",.0f"),
    ]


def score_notes(store: Store, outputs: Outputs, rewards: VersionRef | None) -> Iterator[str]:
    """Lines about the scores of a model's outputs: their mean where they are graded, and what is odd about them."""
    scored = None if rewards is None else store.manifest(rewards)
    tested, drawn = graded_score(store.manifest(outputs.evaluation)), scored and graded_score(scored)
    means = [f"{name} {mean:.3f}" for name, mean in (("test answers", tested), ("samples", drawn)) if mean is not None]
    if means:
        yield f"mean score: {', '.join(means)}"
    if answers := store.manifest(outputs.evaluation).metrics.get("sampled"):
        *_, (k, share) = answers["pass_at"].items()
        yield f"sampled test answers: {answers['correct_share']:.3f} correct, pass@{k} {share:.3f}"
    if scored is not None and (advice := reward_advice(scored)):
        yield f"rewards: {advice}"
    if outputs.samples is not None and (advice := variety_advice(store.manifest(outputs.samples), scored)):
        yield f"samples: {advice}"


def task_lines(store: Store, first: VersionRef, last: VersionRef) -> list[str]:
    """Accuracy by task in the first and the last evaluation, where there is more than one task."""
    before, after = store.manifest(first).metrics["tasks"], store.manifest(last).metrics["tasks"]
    if len(after) < 2:
        return []
    width, lines = max(map(len, after)), []
    for place, (task, facts) in enumerate(after.items()):
        rise = f"{number(before.get(task, {}).get('accuracy'), '.3f')} → {accuracy(facts)}"
        items = f"majority {number(facts['majority_baseline'], '.3f')}, {number(facts['items'])} items"
        lines.append(f"{'' if place else 'tasks':<8}{task:<{width}}  {rise}   {items}")
    return lines
