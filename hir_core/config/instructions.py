"""The section `instructions`: the instruction for a correct answer, and that for a wrong one."""

from __future__ import annotations

from pydantic import model_validator

from hir_core.config.section import Section


class Instructions(Section):
    """The two instructions of the paper's rule. Sampling, training and evaluation use exactly these texts."""

    correct: str = "Generate a correct answer to this problem."
    """Instruction under which the model is sampled and evaluated, and on which correct outputs are trained."""
    wrong: str = "Generate a wrong answer to this problem."
    """Instruction on which wrong outputs are trained."""

    @model_validator(mode="after")
    def _instructions_differ(self) -> Instructions:
        if self.correct == self.wrong:
            raise ValueError(
                "instructions.correct and instructions.wrong are the same text, so relabeling would change nothing: "
                "give each its own"
            )
        return self
