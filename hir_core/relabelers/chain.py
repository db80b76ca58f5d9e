"""The relabeler `chain`: a wrong attempt stands before a correct one (Chain of Hindsight, Liu et al. 2023).

arXiv 2302.02676. Where a prompt has both, the query of a correct output shows a wrong one; where it has only correct
ones they are kept as they are, so that the model is also trained on queries as it will be asked.
"""

from __future__ import annotations

import polars as pl

from hir_core.config import ChainRelabel
from hir_core.relabelers.relabeler import BELOW_THRESHOLD, Relabeler

SHOWN = "shown as the wrong attempt only"


class Chain(Relabeler):
    """p* = correct, q* = (q, a wrong output of the same prompt), for every correct output."""

    name = "chain"
    config: ChainRelabel

    def rejection(self) -> pl.Expr:
        has_correct = pl.col("is_correct").any().over("prompt_id")
        wrong = pl.when(has_correct).then(pl.lit(SHOWN)).otherwise(pl.lit(BELOW_THRESHOLD))
        return pl.coalesce(super().rejection(), pl.when(~pl.col("is_correct")).then(wrong))

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        labeled = super().label(scored, prompts)
        wrong = labeled.filter(~pl.col("is_correct"), pl.col("rejected") == SHOWN)
        attempts = dict(wrong.group_by("prompt_id").agg(pl.col("completion").first()).iter_rows())
        rows = labeled.select("prompt_id", "query", "is_correct").iter_rows()
        queries = [
            self._chained(query, attempts[key]) if right and key in attempts else query for key, query, right in rows
        ]
        return labeled.with_columns(query=pl.Series(queries, dtype=pl.String))

    def _chained(self, query: str, wrong: str) -> str:
        before, _, after = self.config.query.partition("{wrong}")
        return before.replace("{query}", query) + wrong + after.replace("{query}", query)
