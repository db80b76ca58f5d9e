"""The relabeler `hindsight`: the correct instruction for a right sample, the wrong instruction for any other."""

from __future__ import annotations

import polars as pl

from hir_core.relabelers.relabeler import Relabeler


class Hindsight(Relabeler):
    """The fixed rule of hindsight instruction relabeling (Zhang et al. 2023, arXiv 2302.05206).

    p* = correct where R >= threshold, else wrong; the contrast is the other one of the two.
    """

    name = "hindsight"

    def instruction(self) -> pl.Expr:
        correct, wrong = self.instructions.correct, self.instructions.wrong
        return pl.when("is_correct").then(pl.lit(correct)).otherwise(pl.lit(wrong))

    def contrast(self) -> pl.Expr:
        correct, wrong = self.instructions.correct, self.instructions.wrong
        return pl.concat_list(pl.when("is_correct").then(pl.lit(wrong)).otherwise(pl.lit(correct)))
