"""The section `evaluation`: how the test prompts are answered, and further test prompts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hir_core.config.prompts import PromptSource
from hir_core.config.section import DefaultExcludedFromId, Section


class EvaluationConfig(Section):
    """How every model version is evaluated: by greedy completions of the test prompts."""

    max_new_tokens: int | None = Field(None, ge=1)
    """Longest completion in tokens. Unset: as in `sampling`."""
    samples: Annotated[int | None, DefaultExcludedFromId] = Field(None, ge=1)
    """Number of answers to each test prompt that are drawn as the section `sampling` says, beside the greedy one. The
    evaluation then also has the share of these that are correct, and pass@k: the share of prompts with a correct one
    among k of them. Unset: the greedy answer only."""
    also: tuple[PromptSource, ...] = ()
    """Further prompt sources that are used for evaluation only: all of their prompts are test prompts, whatever their
    `test_share`. Empty: the test prompts of `prompts` only."""
