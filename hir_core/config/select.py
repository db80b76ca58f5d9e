"""The section `select`: which relabeled samples are trained on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hir_core.config.section import Section


class SelectConfig(Section):
    """Which relabeled samples become triples and with what weight, for every relabeler. By default all of them do, with
    equal weight, or the one that the relabeler gives them."""

    drop_prompts: tuple[Literal["all_wrong", "all_right"], ...] = ()
    """Rejects the samples of prompts whose samples are all wrong, or all right. Such prompts offer nothing to contrast.
    Empty: no prompt is rejected."""
    deduplicate: bool = False
    """Keeps only one of several equal outputs of a prompt that have the same instruction."""
    others_per_correct: float | None = Field(None, ge=0)
    """Largest number of triples of each other instruction per triple of the correct instruction. Useful where wrong
    outputs far outnumber correct ones. An output that is ruled out stays so. Unset: no limit."""
    balance: bool = False
    """Weights the triples so that every instruction has the same share of the loss."""
    sub_outputs: float = Field(0.0, ge=0, le=1)
    """Share of the triples that are sub-outputs: the tokens before a random position are given, and only the rest of
    the output is trained on (the paper's sub-output relabeling). An output that is ruled out stays whole. 0: whole
    outputs only."""
    replay: int = Field(0, ge=0)
    """Number of earlier iterations whose samples are relabeled and trained on again. 0: this iteration's samples only.
    """
