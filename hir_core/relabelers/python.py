"""The relabeler `python`: a function of the user's writes the instruction of every sample.

It is called once with all judged samples as dicts (`prompt_id`, `query`, `history`, `completion`, `score`, `parts` by
name, `is_correct`, `references`) and returns, for each, the instruction that its completion is right under, or None to
leave it out. Where other samples of the prompt got other instructions, these are the contrast.
"""

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
    """p* = what the function says.

    Raises:
        ConfigError: there is no such module or function.
    """

    name = "python"

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
        rows = judged.filter(pl.col("rejected").is_null()).select("sample_id", *COLUMNS)
        seen = [row | {"parts": _by_name(row["parts"])} for row in rows.select(COLUMNS).iter_rows(named=True)]
        written = self._function(seen, what="instruction") if seen else []
        for row, text in enumerate(written):
            if text is not None and not is_text(text):
                raise RewardError(
                    f"relabel {self._function.spec}: expected a text or None for each row, found {text!r} for row {row}"
                )
        told = rows.select("sample_id", instruction=pl.Series(written, dtype=pl.String))
        labeled = judged.join(told, on="sample_id", how="left", maintain_order="left")
        left_out = pl.when(pl.col("rejected").is_null() & pl.col("instruction").is_null()).then(pl.lit(LEFT_OUT))
        return labeled.with_columns(rejected=pl.coalesce("rejected", left_out), contrast=other_instructions())


def _by_name(parts: list[dict[str, Any]]) -> dict[str, float | None]:
    return {part["name"]: part["score"] for part in parts}
