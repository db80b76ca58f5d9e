"""The relabeler `chain`: the query of a correct output shows a wrong output of the same prompt first."""

from __future__ import annotations

import polars as pl

from hir_core.config import ChainRelabel
from hir_core.relabelers.relabeler import BELOW_THRESHOLD, Relabeler

SHOWN = "wrong: used only inside the query of a correct output"


class Chain(Relabeler):
    """Chain of Hindsight (Liu et al. 2023, arXiv 2302.02676).

    p* = correct, q* = (q, a wrong output of the same prompt), for every correct output. Correct outputs of prompts
    without a wrong one keep their query, so that the model is also trained on queries as they are sampled.
    """

    name = "chain"
    config: ChainRelabel

    def rejection(self) -> pl.Expr:
        has_correct = pl.col("is_correct").any().over("prompt_id")
        wrong = pl.when(has_correct).then(pl.lit(SHOWN)).otherwise(pl.lit(BELOW_THRESHOLD))
        return pl.coalesce(super().rejection(), pl.when(~pl.col("is_correct")).then(wrong))

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        labeled = super().label(scored, prompts)
        wrong = labeled.filter(~pl.col("is_correct"), pl.col("rejected") == SHOWN)
        shown = wrong.unique("prompt_id", keep="first", maintain_order=True)
        first_wrong = dict(zip(shown["prompt_id"], self.answers(shown["completion"]), strict=True))
        # The text around `{wrong}` is filled in by itself: braces inside a wrong output are text.
        before, _, after = self.config.query.partition("{wrong}")
        queries = []
        for prompt_id, query, is_correct in labeled.select("prompt_id", "query", "is_correct").iter_rows():
            if is_correct and prompt_id in first_wrong:
                query = before.replace("{query}", query) + first_wrong[prompt_id] + after.replace("{query}", query)
            queries.append(query)
        return labeled.with_columns(query=pl.Series(queries, dtype=pl.String))
