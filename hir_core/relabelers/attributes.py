"""The relabeler `attributes`: the instruction tells how the output was judged in each attribute.

As in SteerLM (Dong et al. 2023, arXiv 2310.05344). Levels are shares of the observed range and not quantiles: an
attribute that an output has or has not is then told as the lowest or the highest level, however many outputs have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from hir_core.config import AttributesRelabel
from hir_core.relabelers.relabeler import Relabeler, other_instructions


class Attributes(Relabeler):
    """p* = level floor((L - 1) x + 1/2) of 0 to L - 1 for every attribute a, where x = (R_a - min) / (max - min).

    min and max are those of R_a over the kept samples. The best level in each of its attributes has the correct
    instruction, which is the one that is sampled and tested under; other outputs are told theirs in the config's words,
    in order of the names. An attribute that could not be judged is not told, and keeps its output from being the best.
    """

    name = "attributes"
    config: AttributesRelabel

    def is_judged(self) -> pl.Expr:
        return pl.col("parts").list.eval(pl.element().struct.field("score").is_not_null()).list.any()

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        del prompts
        judged = scored.with_columns(rejected=self.rejection())
        kept = judged.filter(pl.col("rejected").is_null()).select("sample_id", "parts")
        parts = kept.explode("parts").unnest("parts").with_columns(level=self._level())
        by_sample = parts.group_by("sample_id", maintain_order=True).agg("name", "level")
        texts = [self._told(names, levels) for names, levels in by_sample.select("name", "level").iter_rows()]
        told = by_sample.select("sample_id", instruction=pl.Series(texts, dtype=pl.String))
        labeled = judged.join(told, on="sample_id", how="left", maintain_order="left")
        return labeled.with_columns(contrast=other_instructions())

    def _level(self) -> pl.Expr:
        """The level of each score among those of its name; null where there is no score.

        Where all are the same there is no range to go by: all are best, or all worst, as they reach the threshold or
        not. Else an iteration without one right output would make every output a right one.
        """
        score = pl.col("score")
        low, high = score.min().over("name"), score.max().over("name")
        share = ((score - low) / (high - low)).fill_nan(1.0)  # inf / inf: the upper end of a range beyond all floats
        same = (score >= self.config.threshold).cast(pl.Float64)
        share = pl.when(low < high).then(share).otherwise(same)
        return (share * (self.config.levels - 1) + 0.5).floor().cast(pl.Int32)

    def _told(self, names: Sequence[str], levels: Sequence[int | None]) -> str:
        correct = self.instructions.correct
        if all(level == self.config.levels - 1 for level in levels):
            return correct
        told = [f"{name} {level}" for name, level in zip(names, levels, strict=True) if level is not None]
        return self.config.instruction.replace("{correct}", correct).replace("{attributes}", ", ".join(told))
