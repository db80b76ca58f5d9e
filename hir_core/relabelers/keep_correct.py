"""The relabeler `keep_correct`: the baseline that trains on correct samples only."""

from __future__ import annotations

import polars as pl

from hir_core.relabelers.relabeler import BELOW_THRESHOLD, Relabeler


class KeepCorrect(Relabeler):
    """Rejection-sampling fine-tuning, as in Yuan et al. 2023 (arXiv 2308.01825).

    p* = correct where R >= threshold, without a contrast; every other sample is rejected.
    """

    name = "keep_correct"

    def rejection(self) -> pl.Expr:
        below = pl.when(~pl.col("is_correct")).then(pl.lit(BELOW_THRESHOLD))
        return pl.coalesce(super().rejection(), below)
