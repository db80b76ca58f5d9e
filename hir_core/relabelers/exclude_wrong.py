"""The relabeler `exclude_wrong`: right samples are demonstrations, wrong ones are ruled out."""

from __future__ import annotations

import polars as pl

from hir_core.config import ExcludeWrongRelabel
from hir_core.relabelers.hindsight import Hindsight
from hir_core.relabelers.relabeler import NO_TEXTS
from hir_core.relabelers.select import DUPLICATE

CUT_OFF = "cut off, so not ruled out"
NEAR_BEST = "wrong, but its score is too high to take anything away"


class ExcludeWrong(Hindsight):
    """Conditioning on what is known to be wrong: p*(o) is proportional to p(o) (1 - removed(o)).

    p is the policy under the correct instruction, and removed(o) is 0 for every output but the distinct wrong ones W
    that were sampled. With removed = 1 on W, p* is p given that the output is not in W. With a temperature T, removed
    is 1 - exp(-(1 - R) / T), so that p* weights the sampled wrong outputs by exp(-(1 - R) / T) and all others by 1.

    An output is ruled out only if the model or a stop text ended it, because ruling out the beginning of an output
    rules out all of its continuations. Wrong outputs keep the wrong instruction of `hindsight`, with the weight
    `relabel_weight`.
    """

    name = "exclude_wrong"
    config: ExcludeWrongRelabel

    def is_judged(self) -> pl.Expr:
        return pl.col("outcome") != "not_judged"

    def rejection(self) -> pl.Expr:
        is_taught, is_ruled_out = self.weight() > 0, self.removed() > 0
        why_neither = pl.when(_has_ended()).then(pl.lit(NEAR_BEST)).otherwise(pl.lit(CUT_OFF))
        is_first = pl.struct("prompt_id", "completion_ids", is_ruled_out.alias("is_ruled_out")).is_first_distinct()
        return pl.coalesce(
            super().rejection(),
            pl.when(~is_taught & ~is_ruled_out).then(why_neither),
            pl.when(is_ruled_out & ~is_first).then(pl.lit(DUPLICATE)),
        )

    def contrast(self) -> pl.Expr:
        is_taught_as_wrong = ~_is_right() & (self.weight() > 0)
        return pl.when(is_taught_as_wrong).then(super().contrast()).otherwise(NO_TEXTS)

    def weight(self) -> pl.Expr:
        as_wrong = pl.when(pl.col("score").is_null()).then(0.0).otherwise(self.config.relabel_weight)
        return pl.when(_is_right()).then(1.0).otherwise(as_wrong)

    def removed(self) -> pl.Expr:
        share = pl.lit(self.config.removed)
        if self.config.temperature is not None:
            by_score = (1 - ((pl.col("score") - 1) / self.config.temperature).exp()).clip(0, 1)
            share = pl.coalesce(by_score, share)
        return pl.when(self.is_judged() & ~_is_right() & _has_ended()).then(share).otherwise(0.0)


def _is_right() -> pl.Expr:
    """Whether the score reaches the threshold; an output that names no answer has no score, and is not right."""
    return pl.col("is_correct").fill_null(value=False)


def _has_ended() -> pl.Expr:
    """Whether an output is whole: after a stop text, too, nothing else could have followed."""
    return pl.col("finish_reason") != "length"
