"""The loop of a run: sample, score, relabel, train and evaluate, iteration after iteration.

Every stage returns versions in the run's store. A version that is there already costs one look-up, so the same call
continues where the last one ended. Knows nothing of Prefect, and needs none: `flows.hindsight` makes this loop a flow,
and an `Observer` is told of every stage. What no stage waits for, such as the report, is done while the ranks of the
next launch work. A launch that was lost is tried once more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TypeVar

from flows.report.write import is_drawn, update_report
from flows.terminal.run_table import RunTable
from flows.trackers import Trackers
from hir_core.errors import JobFailed
from hir_core.stages.identity import Scored
from hir_core.stages.instruct import write_instructions
from hir_core.stages.prompts import LoadedPrompts, make_demonstrations, save_prompts, warnings
from hir_core.stages.relabel import relabel_samples
from hir_core.stages.run import Run
from hir_core.stages.score import score_samples
from hir_core.stages.train import Outputs, draw_from, train_iteration
from hir_core.store.version import VersionRef

T = TypeVar("T")


class Observer:
    """Follows a run from stage to stage. This one tells nobody; `orchestration.observer` tells Prefect."""

    def stage(self, name: str, subject: str, work: Callable[[], T]) -> T:
        """Does the work of a stage and returns what it makes.

        Args:
            name: the stage.
            subject: what it works on or makes, in words.
        """
        del name, subject
        return work()

    def iteration(self, outputs: Outputs, *inputs: VersionRef | None) -> None:
        """Hears that an iteration is complete: its outputs, and the versions that its model is made from."""

    def end(self) -> None:
        """Hears that the run is complete."""


class Loop:
    """The stages of one run in their order.

    Args:
        run: the caller holds its lock.
        loaded: the prompts that `stages.prompts.check` has read.
        table: shows each model in the terminal.
        observer: is told of every stage.
    """

    def __init__(self, run: Run, loaded: LoadedPrompts, table: RunTable, observer: Observer | None = None) -> None:
        self.run, self.loaded, self.table = run, loaded, table
        self.observer = observer or Observer()
        self.say = table.status_line.print_above

    def iterate(self) -> list[Outputs]:
        """Makes every iteration that the config asks for and the store does not hold; returns the outputs of each.

        Raises:
            HirError: a stage failed; what was committed is kept.
        """
        run, table, observer = self.run, self.table, self.observer
        with Trackers(run, self.say) as trackers, table, closing(run.waiting_ranks), run.hosts, run.deferring():
            for warning in warnings(run.config, self.loaded.rows):
                self.say(f"warning: {warning}")
            prompts = self.read_prompts()
            demonstrations = self.demonstrate(prompts)
            models = [self.train(prompts, demonstrations)]
            run.defer(partial(observer.iteration, models[-1], prompts, demonstrations))
            run.defer(partial(trackers.add, models[-1]))
            scored: list[Scored] = []
            for _ in range(run.config.iterations):
                previous, samples = models[-1], models[-1].samples
                assert samples is not None, "the last iteration alone has no samples"
                rewards = self.score(prompts, samples)
                scored.append(Scored(samples, rewards, self.instruct(prompts, samples, rewards)))
                table.add_row(previous, rewards)
                if table.has_new_versions:
                    run.defer(partial(update_report, run.store, previous.model, self.say))
                triples = self.relabel(prompts, scored)
                models.append(self.train(prompts, triples, samples, previous.model))
                run.defer(partial(observer.iteration, models[-1], *scored[-1], triples))
                run.defer(partial(trackers.add, models[-1], scored[-1]))
            table.add_row(models[-1])
            run.branch.complete()
            run.do_deferred()
            if table.has_new_versions or not is_drawn(run.store, models[-1].model):
                update_report(run.store, models[-1].model, self.say)
            observer.end()
        return models

    def read_prompts(self) -> VersionRef:
        """The run's prompts, train and test."""
        subject = f"prompts of {self.run.config.run}"
        return self.observer.stage("prompts", subject, lambda: save_prompts(self.run, self.loaded))

    def demonstrate(self, prompts: VersionRef) -> VersionRef | None:
        """Triples for the warm start, where there is one."""
        subject = f"demonstrations of {self.run.config.run}"
        return self.observer.stage("demonstrations", subject, lambda: make_demonstrations(self.run, prompts))

    def score(self, prompts: VersionRef, samples: VersionRef) -> VersionRef:
        """Rewards of the samples."""
        return self._launching("score", f"score {samples}", lambda: score_samples(self.run, prompts, samples))

    def instruct(self, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> VersionRef | None:
        """Instructions that a model writes for the samples, verified; None where rules relabel."""
        return self._launching(
            "instruct", f"instruct {samples}", lambda: write_instructions(self.run, prompts, samples, rewards)
        )

    def relabel(self, prompts: VersionRef, scored: Sequence[Scored]) -> VersionRef:
        """Triples: every sample with the instruction that it is a correct demonstration of."""
        subject = f"relabel {scored[-1].samples}"
        return self.observer.stage("relabel", subject, lambda: relabel_samples(self.run, prompts, scored))

    def train(
        self,
        prompts: VersionRef,
        triples: VersionRef | None,
        samples: VersionRef | None = None,
        previous_model: VersionRef | None = None,
    ) -> Outputs:
        """One launch: train, evaluate, sample for the next iteration; one more where the reward is a model."""
        model = self.run.model_identity(prompts, triples, previous_model).id
        return self._launching(
            "launch",
            f"launch models/{model}",
            lambda: train_iteration(self.run, prompts, triples, samples, previous_model),
        )

    def draw(self, prompts: VersionRef, model: VersionRef, *, with_samples: bool) -> Outputs:
        """One launch that trains nothing: answers to the test prompts and, where asked, samples."""
        return self._launching(
            "launch", f"launch {model}", lambda: draw_from(self.run, prompts, model, with_samples=with_samples)
        )

    def _launching(self, name: str, subject: str, work: Callable[[], T]) -> T:
        """Does the work of a stage that may launch ranks; a launch that was lost is tried once more, and said so."""

        def tried_twice() -> T:
            try:
                return work()
            except JobFailed as error:
                if not error.is_lost:
                    raise
                reason = error.reason
            self.say(f"warning: launch lost ({reason}): trying once more")
            return work()

        return self.observer.stage(name, subject, tried_twice)
