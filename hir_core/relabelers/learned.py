"""The relabeler `learned`: a model wrote the instruction of each sample, and a check confirmed it.

The instruction generation function phi as a model (Zhang et al. 2023, arXiv 2302.05206, Algorithm 1). What it wrote,
and what is verified of it, stands in a WrittenInstructions table; what is not verified is relabeled by the fixed rule
or left out. Composes what the writer reads, and shows a model how to write; leaves writing and scoring to the
launch, and the checks to `believing`.
"""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from hir_core.config import Instructions, LearnedRelabel
from hir_core.relabelers.demonstrations import chosen_to_show
from hir_core.relabelers.hindsight import Hindsight
from hir_core.relabelers.relabeler import NO_IDS, NO_TEXTS, SHAPE
from hir_core.relabelers.verification import verdict_word
from hir_core.schemas import as_text, content_key

NOT_VERIFIED = "written instruction not verified"


class Learned(Hindsight):
    """p* = what the writer wrote for (q, o, R), where it is verified; else the fixed rule's, or nothing."""

    name = "learned"
    config: LearnedRelabel

    def fingerprint(self) -> dict[str, Any]:
        """Settings of relabeling only: those of writing and verifying decide the id of the parent, `instructions@i`."""
        fingerprint, shown = super().fingerprint(), self.writing_fingerprint()
        decides = {name: fingerprint[name] for name in ("type", "threshold", "instructions", "fallback")}
        return decides | ({"shown": shown} if shown else {})

    @property
    def instruction_model(self) -> LearnedRelabel:
        return self.config

    def writing_demonstrations(self, prompts: pl.DataFrame, seed: int) -> pl.DataFrame:
        return writing_demonstrations(prompts, self.config, self.instructions, seed)

    def writing_fingerprint(self) -> dict[str, Any]:
        if not self.config.shown:
            return {}
        settings = self.config.fingerprint()
        shown = {name: settings[name] for name in ("instruction", "query", "shown")}
        return {**shown, "instructions": self.instructions.fingerprint()}

    def tokenizer_texts(self) -> list[str]:
        return [self.config.instruction, self.config.query] if self.config.shown else []

    def rejection(self) -> pl.Expr:
        if self.config.fallback == "hindsight":
            return super().rejection()
        not_verified = pl.when(pl.col("verified").is_null()).then(pl.format(f"{NOT_VERIFIED}: {{}}", "refusal"))
        return pl.coalesce(super().rejection(), not_verified)

    def instruction(self) -> pl.Expr:
        return pl.coalesce("verified", super().instruction())

    def contrast(self) -> pl.Expr:
        """The instruction that it was sampled under; where that is the verified one, the other one of the two."""
        told, own = self.instruction(), self.instructions
        return pl.concat_list(pl.when(told == own.correct).then(pl.lit(own.wrong)).otherwise(pl.lit(own.correct)))

    def author(self) -> pl.Expr:
        return pl.when(pl.col("verified").is_null()).then(pl.lit(Hindsight.name)).otherwise(pl.lit(self.name))


def composed(config: LearnedRelabel, query: str, output: str, is_correct: bool) -> str:
    """What the writer reads below its instruction; braces inside a query or an output are text."""
    values = {"query": query, "output": output, "verdict": verdict_word(is_correct)}
    return re.sub(r"\{(query|output|verdict)\}", lambda field: values[field[1]], config.query)


def writing_demonstrations(prompts: pl.DataFrame, config: LearnedRelabel, own: Instructions, seed: int) -> pl.DataFrame:
    """Triples that show how to write: for each chosen prompt its reference, and one that is wrong for it.

    The wrong answer is the reference of the next chosen prompt whose answers are others; where there is none, only the
    right one is shown. No triples where none are asked for.

    Raises:
        ConfigError: there are too few train prompts, or one of the chosen has no reference.
    """
    chosen = chosen_to_show(prompts, config.shown, seed, "relabel.shown").to_dicts()
    if not chosen:
        return pl.DataFrame(schema=SHAPE)
    rows = []
    for place, row in enumerate(chosen):
        others = (other["references"][0] for other in [*chosen[place + 1 :], *chosen[:place]])
        wrong = next((answer for answer in others if answer not in row["references"]), None)
        rows.append(_demonstration(config, row, row["references"][0], True, own.correct))
        if wrong is not None:
            rows.append(_demonstration(config, row, wrong, False, own.wrong))
    shown = pl.DataFrame(rows).with_columns(
        sample_id=pl.lit(None), history=None, relabeler=pl.lit(Learned.name), contrast=NO_TEXTS, prefix_ids=NO_IDS,
        target_ids=pl.lit(None), ends=pl.lit(True), weight=pl.lit(1.0),
    )  # fmt: skip
    return shown.select(list(SHAPE)).cast(SHAPE).sort("triple_id")


def _demonstration(
    config: LearnedRelabel, row: dict[str, Any], answer: str, is_correct: bool, written: str
) -> dict[str, Any]:
    return {
        "triple_id": content_key(row["prompt_id"], Learned.name, verdict_word(is_correct)),
        "prompt_id": row["prompt_id"],
        "instruction": config.instruction,
        "query": composed(config, as_text(row["history"], row["query"]), answer, is_correct),
        "output": written,
    }
