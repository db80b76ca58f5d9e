"""The relabeler `python`: a function of the user's, `module:function`, writes the instruction of every sample."""

from __future__ import annotations

from typing import Any

import polars as pl

from hir_core.config import Instructions, PythonRelabel
from hir_core.dynamic_imports import UserFunction, is_text
from hir_core.errors import RewardError
from hir_core.relabelers.relabeler import Relabeler, other_instructions

LEFT_OUT = "left out by the function"
COLUMNS = ("prompt_id", "query", "history", "completion", "score", "parts", "is_correct", "references")


class PythonFunction(Relabeler):
    """Calls a function of the user's once, with all judged samples: p* = function(samples).

    Each sample is a dict of `prompt_id`, `query`, `history`, `completion`, `score`, `parts` (a dict of scores by name),
    `is_correct` and `references`. The function returns for each the instruction that its completion is right under, or
    None to reject it. The contrast of a triple is what other samples of the same prompt got.

    Raises:
        ConfigError: there is no such module or function.
    """

    name = "python"
    compares_prompts = True

    def __init__(self, config: PythonRelabel, instructions: Instructions) -> None:
        super().__init__(config, instructions)
        self._function = UserFunction(config.function, "relabel.function")

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), **self._function.fingerprint()}

    def instruction(self) -> pl.Expr:
        return pl.col("instruction")

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        del prompts
        judged = scored.with_columns(rejected=self.rejection())
        kept = judged.filter(pl.col("rejected").is_null())
        samples = [
            row | {"parts": {part["name"]: part["score"] for part in row["parts"]}}
            for row in kept.select(COLUMNS).iter_rows(named=True)
        ]
        texts = self._function(samples, what="instruction") if samples else []
        for row, text in enumerate(texts):
            if text is not None and not is_text(text):
                raise RewardError(
                    f"relabel {self._function.spec}: expected a text or None for each row, found {text!r} for row {row}"
                )
        instructions = kept.select("sample_id", instruction=pl.Series(texts, dtype=pl.String))
        labeled = judged.join(instructions, on="sample_id", how="left", maintain_order="left")
        left_out = pl.when(pl.col("rejected").is_null() & pl.col("instruction").is_null()).then(pl.lit(LEFT_OUT))
        return labeled.with_columns(rejected=pl.coalesce("rejected", left_out), contrast=other_instructions())
