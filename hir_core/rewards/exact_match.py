"""The reward `exact_match`: 1 where the completion equals an accepted answer, else 0."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from hir_core.progress import OnRows, counted, ignore
from hir_core.rewards.reward import (
    NO_PARTS,
    OUTCOME,
    PromptRow,
    RowReward,
    Verdict,
    needed_prompts,
    refuse_unknown_prompts,
    shortened,
)

_FULL_STOP = re.compile(r"\.(?!\d)")


def normalised(answer: str) -> str:
    """The answer in lower case, without whitespace and full stops; the point of a decimal number stays."""
    if "." in answer:
        answer = _FULL_STOP.sub("", answer)
    return "".join(answer.lower().split()).replace("。", "")


class ExactMatch(RowReward):
    """Compares the completion with every accepted answer; case, whitespace and full stops do not count.

    The metric of Zhang et al. 2023 (arXiv 2302.05206): R = 1 if norm(o) = norm(a) for a reference a, else 0. An empty
    completion is never right.
    """

    name = "exact_match"

    def unusable(self, prompt: PromptRow) -> str | None:
        if not any(normalised(reference) for reference in prompt["references"]):
            return "it has no reference: add `references`, or choose a reward that needs none"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        right, expected = _reasons(prompt["references"])
        reason = right.get(normalised(completion))
        return Verdict(0.0, expected) if reason is None else Verdict(1.0, reason)

    def judge(self, completions: pl.DataFrame, prompts: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """As `Reward.judge`, by joins with the right answers: faster than a verdict for each row."""
        needed = needed_prompts(completions, prompts)
        lists = needed.select("references").unique(maintain_order=True).with_row_index("list")
        reasons = [_reasons(references) for references in lists["references"].to_list()]
        if not all(right for right, _ in reasons):
            self.check_prompts(needed)
        refuse_unknown_prompts(completions, needed)
        right_answers = pl.DataFrame(
            [(number, answer, why) for number, (right, _) in enumerate(reasons) for answer, why in right.items()],
            schema={"list": pl.UInt32, "answer": pl.String, "why": pl.String},
            orient="row",
        )
        texts = completions["completion"].unique()
        answer_of = [normalised(text) for text in counted(texts.to_list(), texts.len(), on_rows)]
        by_text = pl.DataFrame({"completion": texts, "answer": pl.Series(answer_of, dtype=pl.String)})
        list_of_prompt = needed.select("prompt_id", "references").join(lists, on="references").drop("references")
        rows = (
            completions.select("prompt_id", "completion")
            .join(by_text, on="completion", how="left", maintain_order="left")
            .join(list_of_prompt, on="prompt_id", how="left", maintain_order="left")
            .join(right_answers, on=["list", "answer"], how="left", maintain_order="left")
        )
        expected = pl.Series([why for _, why in reasons], dtype=pl.String).gather(rows["list"])
        return completions.with_columns(
            outcome=pl.lit("scored", dtype=OUTCOME),
            score=rows["why"].is_not_null().cast(pl.Float64),
            reason=rows["why"].fill_null(expected),
            parts=NO_PARTS,
        )


def _reasons(references: Sequence[str]) -> tuple[dict[str, str], str]:
    """The reason for each right answer, by its normalised text, and the reason for any other."""
    right: dict[str, str] = {}
    for reference in references:
        if answer := normalised(reference):
            right.setdefault(answer, f"equals {shortened(reference)}")
    return right, f"expected {shortened(' or '.join(references))}"
