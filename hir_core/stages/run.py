"""`Run`: what the stages of one run share, and the few things that every stage does with it.

    samples@i -> rewards@i [-> instructions@i] -> triples@i -> models@i -> evaluations@i, samples@(i+1)

Each stage is a function of a `Run` and of versions, in the file of its name: `prompts`, `score`, `instruct`, `relabel`,
`train`. It looks its version up, and makes it only where the store does not hold it. Reads and writes through the
store. What decides a version's id is in `identity`; the stages import this module, and it imports none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.config import RunConfig
from hir_core.config.model import rendering
from hir_core.launch.devices import find_devices
from hir_core.launch.hosts import Hosts
from hir_core.launch.launcher import launch
from hir_core.launch.waiting_ranks import WaitingRanks
from hir_core.progress import OnRows, Progress, ignore
from hir_core.relabelers.registry import build_relabeler
from hir_core.rewards.registry import build_reward
from hir_core.stages.identity import Identities
from hir_core.stages.reward_launch import ScoreLaunch
from hir_core.store.adapters import base_of
from hir_core.store.branches import BranchLog
from hir_core.store.manifest import Identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


class Run:
    """One run: its config, store, reward and relabeler, and the ids of its versions.

    Args:
        config: the settings of the run.
        on_progress: called with the progress of launches and of work on the driver, a few times per second at most.

    Attributes:
        branch: the log of the versions that this config uses; the flow completes it when the run ends.
        waiting_ranks: those that wait for the run's next job; the flow ends them when the run ends.
        hosts: the other machines of the run, where it has some; the flow ends them too.

    Raises:
        ConfigError: the reward or the relabeler cannot be built.
    """

    def __init__(self, config: RunConfig, on_progress: Callable[[Progress], None] = ignore) -> None:
        self.config = config
        self.on_progress = on_progress
        self.store = Store(config.run_dir)
        self.branch = BranchLog(config.run_dir, config.branch, config.retention)
        self.waiting_ranks = WaitingRanks()
        self.hosts = Hosts(config.launch, config.run_dir)
        self.reward = build_reward(config.reward, ScoreLaunch(config, self.run_job))
        self.relabeler = build_relabeler(
            config.relabel,
            config.instructions,
            rendering(config.model).thinking,
            are_distinct=config.sampling.distinct,
        )
        self.identities = Identities(config, self.reward, self.relabeler)
        self._deferred: list[Callable[[], None]] = []

    def model_identity(
        self, prompts: VersionRef, triples: VersionRef | None, previous_model: VersionRef | None
    ) -> Identity:
        """The identity of a model, as `Identities.model`; its arguments are committed versions."""
        base = None if self.config.lora is None or previous_model is None else base_of(self.store, previous_model)
        return self.identities.model(prompts, triples, previous_model, base)

    def find(self, identity: Identity) -> VersionRef | None:
        """The version of this identity, or None where it is still to be made; logged as used by this run either way."""
        self.branch.record(identity)
        return self.store.find(identity)

    def commit(
        self,
        identity: Identity,
        rows: pl.DataFrame,
        *,
        rows_in: int | None = None,
        rejected: dict[str, int] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> VersionRef:
        """Writes a table as the version of this identity.

        Args:
            rows_in: rows that the stage was given.
            rejected: rows that it was given and left out, counted by reason.
            metrics: measurements for the manifest, as plain JSON values.
        """
        draft = self.store.draft(identity)
        draft.write("0", rows)
        return draft.commit(rows_in=rows_in, rejected=rejected, metrics=metrics)

    def table(self, ref: VersionRef, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """A version's rows, with all columns or some; its files are checked against their digests."""
        rows = self.store.table(ref)
        # In one chunk: joins gather lists from the many chunks of a Parquet file ten times as slowly.
        return (rows if columns is None else rows.select(columns)).collect().rechunk()

    def metrics(self, ref: VersionRef) -> Mapping[str, Any]:
        """The measurements in a version's manifest."""
        return self.store.manifest(ref).metrics

    def run_job(self, job_dir: Path, on_step: Callable[[int], None] = ignore, uses_devices: bool = True) -> None:
        """Has ranks do the job of a folder and waits for its end.

        Args:
            on_step: gets the number of each finished step.
            uses_devices: whether the ranks themselves compute on the GPUs; where not, vLLM does, and needs them whole.
        """
        self.on_progress(Progress("launch"))
        # DeepSpeed keeps hold of models that ZeRO-3 has partitioned: ranks that stay would need more memory each time.
        waiting = None if self.config.zero_stage == 3 else self.waiting_ranks
        if not uses_devices and find_devices().gpus:
            self.waiting_ranks.close()
            waiting = None
        launch(
            job_dir,
            self.config.launch,
            waiting=waiting,
            hosts=self.hosts,
            on_begun=self.do_deferred,
            on_progress=self.on_progress,
            on_step=on_step,
        )

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """A context at the end of which, whatever ends it, all work is done that was deferred in it."""
        try:
            yield
        finally:
            self.do_deferred()

    def defer(self, work: Callable[[], None]) -> None:
        """Has work that no stage waits for done once the ranks of the next launch are busy, in a copy of this context.

        So Prefect counts what it is told then to the flow, and not to the launch.
        """
        self._deferred.append(partial(copy_context().run, work))

    def do_deferred(self) -> None:
        """Does the deferred work in its order."""
        while self._deferred:
            self._deferred.pop(0)()

    def row_counter(self, step: str, total: int) -> OnRows:
        """Reports that work on so many rows begins, and returns the callback for the rows that are done."""
        started = time.monotonic()

        def on_rows(done: int, total: int) -> None:
            self.on_progress(Progress(step, done, total, "samples", seconds=time.monotonic() - started))

        on_rows(0, total)
        return on_rows
