"""`Stages`, the loop one stage at a time, for a notebook: each call makes one version as the loop would, or finds it.

    stages = hir.Stages(config)
    model = stages.initial_model()
    samples = stages.sample(model)
    rewards = stages.score(samples)
    triples = stages.relabel(rewards)
    model = stages.train(triples)

What a stage needs beside the version that it is given is found through that version's parents. So a stage can be tried
with another config, on what the stages before have made: its version lies beside the others. What a stage does is up to
`flows.loop` and `hir_core.stages`. Writes to the run's folder, whose lock is held during each call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from flows.cli.external import refuse_external
from flows.loop import Loop
from flows.terminal.run_table import RunTable
from hir_core.config import RunConfig
from hir_core.errors import ConfigError
from hir_core.stages.identity import Scored
from hir_core.stages.prompts import check, warnings
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


class Stages:
    """The stages of one run, one call each.

    With `launch.resident` the ranks wait between two calls, and keep their memory: `close` ends them, and so does the
    end of a `with` block or of the process.

    Args:
        config: the run.

    Raises:
        HirError: the config cannot be run; nothing was written. Each method raises it where its stage fails.
    """

    def __init__(self, config: RunConfig) -> None:
        refuse_external([config])
        self._table = RunTable(Store(config.run_dir))
        self._run = Run(config, self._table.show_progress)
        loaded = check(self._run)
        self._loop = Loop(self._run, loaded, self._table)
        self._prompts: VersionRef | None = None
        for warning in warnings(config, loaded.rows):
            self._loop.say(f"warning: {warning}")

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the ranks that wait for another call; the next one starts ranks anew."""
        self._run.waiting_ranks.close()

    def prompts(self) -> VersionRef:
        """The run's prompts, for training and for testing."""
        if self._prompts is None:
            with self._working(0):
                self._prompts = self._loop.read_prompts()
        return self._prompts

    def initial_model(self) -> VersionRef:
        """Model 0: trained on the demonstrations of the warm start, where the config has one, else as it is."""
        prompts = self.prompts()
        with self._working(0):
            return self._loop.train(prompts, self._loop.demonstrate(prompts)).model

    def sample(self, model: str | VersionRef) -> VersionRef:
        """The outputs that a model writes for prompts of the train split, for the next iteration."""
        samples = self._draw(model, with_samples=True).samples
        assert samples is not None
        return samples

    def evaluate(self, model: str | VersionRef) -> VersionRef:
        """A model's answers to the test prompts, scored; its manifest's `metrics["overall"]` has the accuracy."""
        return self._draw(model, with_samples=False).evaluation

    def score(self, samples: str | VersionRef) -> VersionRef:
        """The rewards of samples."""
        prompts, samples = self.prompts(), self._of_prompts(samples, "samples")
        with self._working(samples.iteration - 1):
            return self._loop.score(prompts, samples)

    def relabel(self, rewards: str | VersionRef) -> VersionRef:
        """The triples that scored samples become, with those of earlier iterations where `select.replay` asks for it.

        Where a model writes instructions (`relabel.type: learned`), it writes them first.
        """
        prompts, rewards = self.prompts(), self._of_prompts(rewards, "rewards")
        with self._working(rewards.iteration):
            samples = self._parent(rewards, "samples")
            scored = Scored(samples, rewards, self._loop.instruct(prompts, samples, rewards))
            return self._loop.relabel(prompts, [*self._replayed(samples), scored])

    def train(self, triples: str | VersionRef) -> VersionRef:
        """The model that is trained on triples, starting from the one that drew their samples.

        The same launch evaluates it and, but in the last iteration of the config, samples from it, as in `hir run`:
        `evaluate` and `sample` then find these versions.
        """
        prompts, triples = self.prompts(), self._of_prompts(triples, "triples")
        with self._working(triples.iteration):
            if triples.iteration == 0:
                return self._loop.train(prompts, triples).model
            samples = self._parent(triples, "samples")
            return self._loop.train(prompts, triples, samples, self._parent(samples, "models")).model

    @contextmanager
    def _working(self, model: int) -> Iterator[None]:
        """Holds the run's lock and shows the progress of steps that are about the model of this number."""
        self._table.model = model
        with self._run.store.lock(), self._table.status_line, self._run.hosts:
            yield

    def _draw(self, model: str | VersionRef, *, with_samples: bool) -> Outputs:
        prompts, model = self.prompts(), self._version(model, "models")
        with self._working(model.iteration):
            return self._loop.draw(prompts, model, with_samples=with_samples)

    def _version(self, version: str | VersionRef, stage: str) -> VersionRef:
        """The version of a name, which must be of this stage."""
        ref = self._run.store.resolve(str(version))
        if ref.stage != stage:
            raise ConfigError(f"expected a version of {stage}, found {ref}")
        return ref

    def _of_prompts(self, version: str | VersionRef, stage: str) -> VersionRef:
        """The version of a name, which must be of this stage and made from the prompts of the config."""
        ref = self._version(version, stage)
        made_from = self._run.store.manifest(ref).parents_of("prompts")
        if made_from != [str(self.prompts())]:
            raise ConfigError(
                f"{ref} is made from {', '.join(made_from)}, and this config has {self.prompts()}: sample for "
                "these, or take the config that made it"
            )
        return ref

    def _parent(self, ref: VersionRef, stage: str) -> VersionRef:
        """The parent of a version that is of this stage; where replay gave it several, that of its own iteration."""
        parents = map(self._run.store.resolve, self._run.store.manifest(ref).parents_of(stage))
        return max(parents, key=lambda parent: parent.iteration)

    def _replayed(self, samples: VersionRef) -> list[Scored]:
        """What the model that drew samples was trained on, and the models before it, as far back as replay goes."""
        scored: list[Scored] = []
        while len(scored) < self._run.config.select.replay:
            model = self._run.store.manifest(self._parent(samples, "models"))
            if model.iteration == 0:
                break
            triples = self._run.store.resolve(*model.parents_of("triples"))
            samples = self._parent(triples, "samples")
            written = self._run.store.manifest(triples).parents_of("instructions")
            instructions = self._parent(triples, "instructions") if written else None
            scored.insert(0, Scored(samples, self._parent(triples, "rewards"), instructions))
        return scored
