"""The stage `relabel`: every scored sample gets the instruction that it is a correct demonstration of.

Reads samples, rewards and, where a model wrote instructions, those. Writes the version `triples@i`, with every sample
that became none counted by its reason. Which instruction a sample gets is up to the relabeler of the config.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from hir_core.errors import ConfigError
from hir_core.relabelers.relabeler import RELABELED_COLUMNS
from hir_core.relabelers.verification import verification_metrics
from hir_core.stages.identity import Scored
from hir_core.stages.run import Run
from hir_core.store.manifest import value_counts
from hir_core.store.version import VersionRef


def relabel_samples(run: Run, prompts: VersionRef, scored: Sequence[Scored]) -> VersionRef:
    """The triples of an iteration.

    Args:
        scored: samples and rewards of this iteration last, after those of as many earlier iterations as
            `select.replay` says; earlier ones yet are ignored.

    Raises:
        ConfigError: nothing is left to train on.
    """
    scored = scored[-1 - run.config.select.replay :]
    identity = run.identities.triples(prompts, scored)
    if version := run.find(identity):
        return version
    samples = pl.concat([run.table(iteration.samples, RELABELED_COLUMNS) for iteration in scored])
    rewards = pl.concat([run.table(iteration.rewards) for iteration in scored])
    written = [run.table(iteration.instructions) for iteration in scored if iteration.instructions is not None]
    prompt_rows = run.table(prompts)
    triples, rejected = run.relabeler.relabel(
        samples,
        rewards,
        prompt_rows,
        run.config.select,
        pl.concat(written) if written else None,
        on_rows=run.row_counter("relabel", samples.height),
    )
    if triples.is_empty():
        raise ConfigError(
            f"relabel.type={run.relabeler.name} kept none of {samples.height} samples of {scored[-1].samples} "
            f"({rejected}): set warm_start, make the task easier, relax `select`, or use relabel.type=hindsight, "
            "which learns from wrong ones"
        )
    metrics: dict[str, Any] = {"instructions": value_counts(triples["instruction"])}
    if written:
        metrics["written"] = verification_metrics(written)
    writing = run.relabeler.writing_demonstrations(prompt_rows, run.config.seed)
    rows_in = samples.height + writing.height
    return run.commit(identity, pl.concat([triples, writing]), rows_in=rows_in, rejected=rejected, metrics=metrics)
