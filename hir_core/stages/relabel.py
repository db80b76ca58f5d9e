"""The stage `relabel`: every scored sample gets the instruction that it is a correct demonstration of, or is ruled out.

Reads samples, rewards and, where a model wrote instructions, those. Writes the version `triples@i`, with every sample
that became none counted by its reason; a slice of the samples at a time, so that large tables need little memory. What
becomes of a sample is up to the relabeler of the config.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import polars as pl

from hir_core.errors import ConfigError
from hir_core.relabelers.relabeler import REWARD_COLUMNS, SLICE_COLUMNS, Relabeled
from hir_core.relabelers.verification import verification_metrics
from hir_core.stages.identity import Scored
from hir_core.stages.run import Run
from hir_core.store.draft import Draft
from hir_core.store.manifest import largest_counts
from hir_core.store.slices import SLICE_BYTES, SampleSlices, on_disk
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
    written = [run.table(iteration.instructions) for iteration in scored if iteration.instructions is not None]
    draft = run.store.draft(identity)
    counts = _write_triples(run, draft, prompts, scored, written)
    rejected = dict(sorted(counts.rejected.items()))
    if not counts.triples:
        draft.discard()
        raise ConfigError(
            f"relabel.type={run.relabeler.name} kept none of {counts.samples} samples of {scored[-1].samples} "
            f"({rejected}): set warm_start, make the task easier, relax `select`, or where outputs are "
            "cut off raise sampling.max_new_tokens"
        )
    metrics = counts.metrics()
    if written:
        metrics["written"] = verification_metrics(written)
    return draft.commit(rows_in=counts.samples + counts.shown, rejected=rejected, metrics=metrics)


def _write_triples(
    run: Run, draft: Draft, prompts: VersionRef, scored: Sequence[Scored], written: Sequence[pl.DataFrame]
) -> _Counts:
    """Writes a part for every slice of the samples; with the first of them, the triples that show how to write.

    The tables that it reads whole are gone when it returns, so that the commit has their memory.
    """
    prompt_rows = run.table(prompts)
    rewards = pl.concat([run.table(iteration.rewards, REWARD_COLUMNS) for iteration in scored], rechunk=True)
    writing = run.relabeler.writing_demonstrations(prompt_rows, run.config.seed)
    paths = [path for iteration in scored for path in run.store.parts(iteration.samples)]
    draft.delete_parts()
    with draft.working_folder() as folder:
        slices = SampleSlices(paths, SLICE_COLUMNS, folder, None if run.relabeler.compares_prompts else SLICE_BYTES)
        counts = _Counts(slices.rows, writing.height)
        relabeled = run.relabeler.relabel_slices(
            slices,
            rewards,
            prompt_rows,
            run.config.select,
            pl.concat(written) if written else None,
            count=slices.rows,
            put_aside=partial(on_disk, folder=folder) if slices.count > 1 else list,
            on_rows=run.row_counter("relabel", slices.rows),
        )
        for number, part in enumerate(relabeled):
            counts.add(part)
            draft.write(slices.part_name(number), part.triples if number else pl.concat([part.triples, writing]))
    return counts


class _Counts:
    """What is counted about the slices of the samples.

    Args:
        samples: how many there are in all slices.
        shown: how many triples show how to write; none of them is counted here.
    """

    def __init__(self, samples: int, shown: int) -> None:
        self.samples, self.shown = samples, shown
        self.triples = self.contrasted = self.ruled_out = self.judged_outputs = self.used_outputs = 0
        self.rejected, self.instructions = Counter[str](), Counter[str]()

    def add(self, relabeled: Relabeled) -> None:
        taught = relabeled.triples.filter(pl.col("weight") > 0)
        self.triples += relabeled.triples.height
        self.rejected += relabeled.rejected
        self.instructions.update(dict(taught["instruction"].value_counts().iter_rows()))
        self.contrasted += taught.filter(pl.col("contrast").list.len() > 0).height
        self.ruled_out += relabeled.triples.filter(pl.col("removed") > 0).height
        self.judged_outputs += relabeled.judged_outputs
        self.used_outputs += relabeled.used_outputs

    def metrics(self) -> dict[str, Any]:
        """For the manifest. `outputs_with_gradient`: the share of the distinct judged outputs that are learned from;
        None where none was judged."""
        return {
            "instructions": largest_counts(self.instructions),
            "contrasted": self.contrasted,
            "ruled_out": self.ruled_out,
            "judged_outputs": self.judged_outputs,
            "outputs_with_gradient": self.used_outputs / self.judged_outputs if self.judged_outputs else None,
        }
