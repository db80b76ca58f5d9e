"""The section `instructions`: the instruction for a correct answer, and that for a wrong one."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator, model_validator

from hir_core.config.section import Section


class Instructions(Section):
    """The two instructions of the paper's rule. Sampling, training and evaluation use exactly these texts."""

    correct: str = "Generate a correct answer to this problem."
    """Instruction under which the model is sampled and evaluated, and on which correct outputs are trained. Empty or
    null: none, so that prompts are the queries alone, and so is what the trained model is asked later."""
    wrong: str = "Generate a wrong answer to this problem."
    """Instruction on which wrong outputs are trained."""

    @field_validator("correct", mode="before")
    @classmethod
    def _blank_is_none(cls, text: Any) -> Any:
        return "" if text is None or (isinstance(text, str) and not text.strip()) else text

    @model_validator(mode="after")
    def _instructions_differ(self) -> Instructions:
        if not self.wrong.strip():
            raise ValueError("instructions.wrong is empty: only instructions.correct may be, give wrong outputs a text")
        if self.correct == self.wrong:
            raise ValueError(
                "instructions.correct and instructions.wrong are the same text, so relabeling would change nothing: "
                "give each its own"
            )
        return self
