"""The relabeler `quantiles`: the instruction names the level of the score (Quark, Lu et al. 2022, arXiv 2205.13636)."""

from __future__ import annotations

import polars as pl

from hir_core.config import QuantilesRelabel
from hir_core.relabelers.relabeler import Relabeler


class Quantiles(Relabeler):
    """p* = level j of K, where j = ceil(K * F(R)) and F is the share of the iteration's scores not above R.

    Equal scores share the level of the highest of them. The best level has the correct instruction, which is the one
    that is sampled and tested under; the others are told in the config's words, from 1, the worst.
    """

    name = "quantiles"
    config: QuantilesRelabel

    def instruction(self) -> pl.Expr:
        levels = self.config.levels
        text = self.config.instruction.replace("{levels}", str(levels))
        judged = pl.col("score").rank("max") / pl.col("score").count()
        level = (judged * levels).ceil().cast(pl.Int32)
        told = [text.replace("{level}", str(n)) for n in range(1, levels)]
        names = dict(enumerate([*told, self.instructions.correct], start=1))
        return level.replace_strict(names, return_dtype=pl.String, default=None)
