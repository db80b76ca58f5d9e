"""The relabeler `best_of_k`: the baseline that imitates the best sample of each prompt."""

from __future__ import annotations

import polars as pl

from hir_core.relabelers.relabeler import Relabeler

NOT_BEST = "not the best of its prompt"


class BestOfK(Relabeler):
    """Reward-ranked fine-tuning, RAFT (Dong et al. 2023, arXiv 2304.06767).

    p* = correct for o = argmax over the k samples of R(p, q, o); of equal scores the first by sample_id. The best
    sample is kept whatever its score, even where all samples of a prompt are wrong. To leave such prompts out, set
    `select.drop_prompts: [all_wrong]`.
    """

    name = "best_of_k"

    def rejection(self) -> pl.Expr:
        rejected = super().rejection()
        usable_score = pl.when(rejected.is_null()).then("score")
        rank = usable_score.rank("ordinal", descending=True).over("prompt_id")  # the rows come sorted by sample_id
        return pl.coalesce(rejected, pl.when(rank > 1).then(pl.lit(NOT_BEST)))
