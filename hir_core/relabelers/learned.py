"""The relabeler `learned`: a model wrote the instruction of each sample, and a check verified it.

Composes the writer's input, and the triples that show a model how to write. What was written, and whether it is
verified, comes as a WrittenInstructions table from the stage `instruct`: writing and scoring are left to its launch,
and the checks to `verification`. Reads and writes tables in memory only.
"""

from __future__ import annotations

import re
from typing import Any

import polars as pl

from hir_core.config import Instructions, LearnedRelabel
from hir_core.relabelers.demonstrations import chosen_to_show
from hir_core.relabelers.hindsight import Hindsight
from hir_core.relabelers.relabeler import NO_IDS, NO_TEXTS, TRIPLE_SCHEMA
from hir_core.relabelers.verification import verdict_word
from hir_core.schemas import as_text, content_key

NOT_VERIFIED = "written instruction not verified"


class Learned(Hindsight):
    """The instruction generation function phi as a model (Zhang et al. 2023, arXiv 2302.05206, Algorithm 1).

    p* = phi(p, q, o, R), as the writer wrote it, where it is verified. Otherwise the fixed rule decides
    (`fallback: hindsight`), or the sample is rejected (`fallback: reject`).
    """

    name = "learned"
    config: LearnedRelabel

    def fingerprint(self) -> dict[str, Any]:
        """Settings of relabeling only: those of writing and verifying decide the id of the parent, `instructions@i`."""
        fingerprint, shown = super().fingerprint(), self.writing_fingerprint()
        decisive = {name: fingerprint[name] for name in ("type", "threshold", "instructions", "fallback")}
        return decisive | ({"shown": shown} if shown else {})

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
        """The correct instruction, under which samples are drawn; where that is the instruction, the wrong one."""
        instruction, own = self.instruction(), self.instructions
        return pl.concat_list(
            pl.when(instruction == own.correct).then(pl.lit(own.wrong)).otherwise(pl.lit(own.correct))
        )

    def author(self) -> pl.Expr:
        return pl.when(pl.col("verified").is_null()).then(pl.lit(Hindsight.name)).otherwise(pl.lit(self.name))


def writer_query(config: LearnedRelabel, query: str, output: str, is_correct: bool) -> str:
    """The query of the writer, which follows its instruction; braces inside a query or an output are text."""
    values = {"query": query, "output": output, "verdict": verdict_word(is_correct)}
    return re.sub(r"\{(query|output|verdict)\}", lambda field: values[field[1]], config.query)


def writing_demonstrations(prompts: pl.DataFrame, config: LearnedRelabel, own: Instructions, seed: int) -> pl.DataFrame:
    """Triples that show how to write instructions: `config.shown` train prompts, each with a right and a wrong answer.

    The right answer is the prompt's first reference. The wrong answer is the first reference of another chosen prompt,
    of the nearest after it in order of choice that this prompt does not accept; where there is none, only the right
    answer is shown.

    Args:
        own: the run's two instructions, which are the outputs to learn.

    Raises:
        ConfigError: there are too few train prompts, or one of the chosen has no reference.
    """
    chosen = chosen_to_show(prompts, config.shown, seed, "relabel.shown").to_dicts()
    if not chosen:
        return pl.DataFrame(schema=TRIPLE_SCHEMA)
    rows = []
    for index, prompt in enumerate(chosen):
        right = prompt["references"][0]
        others = (other["references"][0] for other in [*chosen[index + 1 :], *chosen[:index]])
        wrong = next((answer for answer in others if answer not in prompt["references"]), None)
        for answer, is_correct, instruction in ((right, True, own.correct), (wrong, False, own.wrong)):
            if answer is not None:
                query = as_text(prompt["history"], prompt["query"])
                rows.append({
                    "triple_id": content_key(prompt["prompt_id"], Learned.name, verdict_word(is_correct)),
                    "prompt_id": prompt["prompt_id"],
                    "instruction": config.instruction,
                    "query": writer_query(config, query, answer, is_correct),
                    "output": instruction,
                })  # fmt: skip
    triples = pl.DataFrame(rows).with_columns(
        sample_id=pl.lit(None), history=None, relabeler=pl.lit(Learned.name), contrast=NO_TEXTS, prefix_ids=NO_IDS,
        target_ids=pl.lit(None), ends=pl.lit(True), weight=pl.lit(1.0), excluded_from=pl.lit(None),
        removed=pl.lit(0.0), probability=pl.lit(None),
    )  # fmt: skip
    return triples.select(list(TRIPLE_SCHEMA)).cast(TRIPLE_SCHEMA).sort("triple_id")
