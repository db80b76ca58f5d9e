"""The stage `relabel`: every scored sample gets the instruction that it is a correct demonstration of, or is ruled out.

Reads samples, rewards and, where a model wrote instructions, those. Writes the version `triples@i`, with every sample
that became none counted by its reason. What becomes of a sample is up to the relabeler of the config.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from hir_core.errors import ConfigError
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
    samples = pl.concat([run.store.table(iteration.samples) for iteration in scored])
    count = sum(run.store.manifest(iteration.samples).rows or 0 for iteration in scored)
    rewards = pl.concat([run.table(iteration.rewards) for iteration in scored])
    written = [run.table(iteration.instructions) for iteration in scored if iteration.instructions is not None]
    prompt_rows = run.table(prompts)
    triples, rejected = run.relabeler.relabel(
        samples,
        rewards,
        prompt_rows,
        run.config.select,
        pl.concat(written) if written else None,
        on_rows=run.row_counter("relabel", count),
    )
    if triples.is_empty():
        raise ConfigError(
            f"relabel.type={run.relabeler.name} kept none of {count} samples of {scored[-1].samples} "
            f"({rejected}): set warm_start, make the task easier, relax `select`, or use relabel.type=hindsight, "
            "which learns from wrong ones"
        )
    taught = triples.filter(pl.col("weight") > 0)
    metrics: dict[str, Any] = {
        "instructions": value_counts(taught["instruction"]),
        "contrasted": taught.filter(pl.col("contrast").list.len() > 0).height,
        "ruled_out": triples.filter(pl.col("removed") > 0).height,
        **output_metrics(samples, rewards, triples),
    }
    if written:
        metrics["written"] = verification_metrics(written)
    writing = run.relabeler.writing_demonstrations(prompt_rows, run.config.seed)
    rows_in = count + writing.height
    return run.commit(identity, pl.concat([triples, writing]), rows_in=rows_in, rejected=rejected, metrics=metrics)


def output_metrics(
    samples: pl.DataFrame | pl.LazyFrame, rewards: pl.DataFrame, triples: pl.DataFrame
) -> dict[str, Any]:
    """How many distinct outputs were judged, and the share of them from which the model learns; None where none was.

    Outputs are distinct if their prompt or their token ids differ. One is judged if it has a score or names no answer.
    The model learns from it if one of its samples is a demonstration with a weight above 0, or is ruled out.
    """
    judged = rewards.lazy().filter(pl.col("outcome") != "not_judged").select("sample_id")
    used = triples.lazy().filter((pl.col("weight") > 0) | (pl.col("removed") > 0)).select("sample_id", used=True)
    by_sample = samples.lazy().select("sample_id", "prompt_id", "completion_ids").join(judged, on="sample_id")
    by_sample = by_sample.join(used, on="sample_id", how="left")
    by_output = by_sample.group_by("prompt_id", "completion_ids").agg(pl.col("used").any())
    metrics = by_output.select(judged_outputs=pl.len(), outputs_with_gradient=pl.col("used").mean())
    return metrics.collect().row(0, named=True)
