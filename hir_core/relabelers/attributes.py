"""The relabeler `attributes`: the instruction says how the output was judged in each attribute."""

from __future__ import annotations

import polars as pl

from hir_core.config import AttributesRelabel
from hir_core.relabelers.relabeler import Relabeler, other_instructions


class Attributes(Relabeler):
    """Attribute-conditioned training, as in SteerLM (Dong et al. 2023, arXiv 2310.05344).

    Level of attribute a = floor((L - 1) x + 1/2), one of 0 to L - 1, where x = (R_a - min) / (max - min) over the kept
    samples. An output with the best level in each of its attributes gets the correct instruction, which is the one for
    sampling and evaluation; any other output gets the config's text with its levels, sorted by attribute name. An
    attribute that could not be judged is not mentioned, and its output is never the best.

    Levels are shares of the range and not quantiles, so that an attribute that an output has or has not always becomes
    the highest or the lowest level, however many outputs have it.
    """

    name = "attributes"
    compares_prompts = True
    config: AttributesRelabel

    def is_judged(self) -> pl.Expr:
        return pl.col("parts").list.eval(pl.element().struct.field("score").is_not_null()).list.any()

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        del prompts
        judged = scored.with_columns(rejected=self.rejection())
        kept = judged.filter(pl.col("rejected").is_null()).select("sample_id", "parts")
        parts = kept.explode("parts").unnest("parts").with_columns(level=self._level())
        by_sample = parts.group_by("sample_id", maintain_order=True).agg("name", "level")
        correct, best = self.instructions.correct, self.config.levels - 1
        texts = []
        for names, levels in by_sample.select("name", "level").iter_rows():
            if all(level == best for level in levels):
                texts.append(correct)
                continue
            known = [f"{name} {level}" for name, level in zip(names, levels, strict=True) if level is not None]
            text = self.config.instruction.replace("{correct}", correct)
            text = text.replace("{attributes}", ", ".join(known))
            texts.append(text if correct else text.strip())
        instructions = by_sample.select("sample_id", instruction=pl.Series(texts, dtype=pl.String))
        labeled = judged.join(instructions, on="sample_id", how="left", maintain_order="left")
        return labeled.with_columns(contrast=other_instructions())

    def _level(self) -> pl.Expr:
        """The level of each score among the scores of its attribute; null where there is no score.

        Where all scores are equal there is no range: the level is then the best or the worst, depending on whether
        they reach the threshold. Otherwise an iteration without one right output would treat every output as right.
        """
        score = pl.col("score")
        low, high = score.min().over("name"), score.max().over("name")
        share = ((score - low) / (high - low)).fill_nan(1.0)  # inf / inf: the upper end of a range beyond all floats
        all_equal = (score >= self.config.threshold).cast(pl.Float64)
        share = pl.when(low < high).then(share).otherwise(all_equal)
        return (share * (self.config.levels - 1) + 0.5).floor().cast(pl.Int32)
