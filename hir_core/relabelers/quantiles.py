"""The relabeler `quantiles`: the instruction names the quantile of the score."""

from __future__ import annotations

import polars as pl

from hir_core.config import QuantilesRelabel
from hir_core.relabelers.relabeler import Relabeler


class Quantiles(Relabeler):
    """Quantized reward conditioning, Quark (Lu et al. 2022, arXiv 2205.13636).

    p* = level j of K, where j = ceil(K F(R)) and F(R) is the share of the iteration's scores that are at most R. Equal
    scores share the level of the highest of them. The best level K gets the correct instruction, which is the one for
    sampling and evaluation; the other levels, from 1, the worst, get the config's text.
    """

    name = "quantiles"
    compares_prompts = True
    config: QuantilesRelabel

    def instruction(self) -> pl.Expr:
        levels = self.config.levels
        text = self.config.instruction.replace("{levels}", str(levels))
        share = pl.col("score").rank("max") / pl.col("score").count()
        level = (share * levels).ceil().cast(pl.Int32)
        lower = [text.replace("{level}", str(number)) for number in range(1, levels)]
        by_level = dict(enumerate([*lower, self.instructions.correct], start=1))
        return level.replace_strict(by_level, return_dtype=pl.String, default=None)
