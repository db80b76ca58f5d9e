"""`Relabeler`: what every relabeler has in common: scored samples in, triples and counted rejects out.

A relabeler says which samples it rejects and which instructions the others get; the tables are handled here. Every
sample becomes one triple or one reject.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import polars as pl

from hir_core.errors import SchemaError
from hir_core.schemas import Triples, content_key
from hir_core.sections import Instructions

CANNOT_JUDGE = "cannot judge"
EMPTY_COMPLETION = "empty completion"
BELOW_THRESHOLD = "below threshold"
SHAPE = Triples.create_empty().schema


class Relabeler(ABC):
    """An instruction generation function phi(p, q, o, R) of Zhang et al. 2023 (arXiv 2302.05206), given as rules."""

    name: str

    def __init__(self, threshold: float, instructions: Instructions) -> None:
        self.threshold = threshold
        self.instructions = instructions

    def law(self) -> dict[str, Any]:
        """What decides its triples, as plain JSON values."""
        return {"type": self.name, "threshold": self.threshold, "instructions": self.instructions.law()}

    @abstractmethod
    def instruction(self) -> pl.Expr:
        """The instruction that a kept sample is a correct demonstration of."""

    @abstractmethod
    def contrast(self) -> pl.Expr:
        """The other instructions, under which it should be unlikely."""

    def rejection(self) -> pl.Expr:
        """Why a sample is left out; null where it is kept."""
        return (
            pl.when(pl.col("score").is_null())
            .then(pl.lit(CANNOT_JUDGE))
            .when(pl.col("completion_ids").list.len() == 0)
            .then(pl.lit(EMPTY_COMPLETION))
        )

    def is_correct(self) -> pl.Expr:
        """Whether the score reaches the threshold."""
        return pl.col("score") >= self.threshold

    def relabel(
        self, samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """Turns scored samples into Triples, sorted by triple_id, and counts the rejected by reason.

        Raises:
            SchemaError: a sample has no reward or no prompt in these tables.
        """
        scored = _joined(samples, rewards, prompts).with_columns(rejected=self.rejection())
        kept = scored.filter(pl.col("rejected").is_null())
        counts = scored["rejected"].drop_nulls().value_counts(sort=True)
        return self._triples(kept), dict(sorted(counts.iter_rows()))

    def _triples(self, kept: pl.DataFrame) -> pl.DataFrame:
        triples = kept.with_columns(
            relabeler=pl.lit(self.name),
            instruction=self.instruction(),
            contrast=self.contrast(),
            output="completion",
            prefix_ids=pl.lit([], dtype=pl.List(pl.Int32)),
            target_ids="completion_ids",
            ends=pl.col("finish_reason") == "eos",
            weight=pl.lit(1.0),
        )
        return with_keys(triples, "sample_id")


def with_keys(triples: pl.DataFrame, parent: str) -> pl.DataFrame:
    """A sorted Triples table, its `triple_id` made of the parent's key, the relabeler and the instruction."""
    origins = triples.select(parent, "relabeler", "instruction").iter_rows()
    keys = pl.Series("triple_id", [content_key(*origin) for origin in origins], dtype=pl.String)
    return triples.with_columns(keys).select(list(SHAPE)).cast(SHAPE).sort("triple_id")


def _joined(samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    for key, table, name in (("sample_id", rewards, "rewards"), ("prompt_id", prompts, "prompts")):
        strangers = samples.join(table, on=key, how="anti")
        if not strangers.is_empty():
            raise SchemaError(
                f"{strangers.height} of {samples.height} samples have no row in {name}, first sample_id "
                f"{strangers['sample_id'].sort()[0]}: pass the tables of one iteration"
            )
    wanted = samples.select("sample_id", "prompt_id", "completion", "completion_ids", "finish_reason")
    scored = wanted.join(rewards.select("sample_id", "score"), on="sample_id", validate="1:1")
    return scored.join(prompts.select("prompt_id", "query"), on="prompt_id", validate="m:1")
