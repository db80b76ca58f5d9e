"""Triples as tokens: an `Example` for each, and the totals of those of an optimizer step.

All examples of a training are kept by `example_table`; which of them a step has is decided in `steps`, which rank works
on them in `micro_batches`. The tensors are left to `batches`, the loss to `losses`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hir_core.modeling.rendering import Renderer
from hir_core.schemas import History
from hir_core.training.exclusion import SoftTarget


@dataclass(frozen=True)
class Exclusion:
    """That an example's output is ruled out under one of its prompts."""

    prompt: int
    """The number of the prompt."""
    removed: float
    """The share of the output's probability that is taken away."""
    share: float
    """1 / n, where n outputs of the training are excluded under this prompt: with it, a term is a mean over prompts."""
    targets: tuple[SoftTarget | None, ...] = ()
    """For each target token, the distribution that it is trained towards; see `exclusion.soft_targets`."""


@dataclass(frozen=True)
class Example:
    """One triple, tokenised.

    `prompts[0]` is the prompt under the triple's own instruction, the others are those under its contrast instructions.
    The model is given `prefix_ids` and predicts `target_ids`.
    """

    key: str
    prompts: tuple[tuple[int, ...], ...]
    prefix_ids: tuple[int, ...]
    target_ids: tuple[int, ...]
    weight: float
    exclusion: Exclusion | None = None
    """None where the output is not excluded."""

    @property
    def exclusion_prompt(self) -> tuple[int, ...]:
        """The prompt under which the output is excluded."""
        assert self.exclusion is not None
        return self.prompts[self.exclusion.prompt]

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max(map(len, self.prompts)) + len(self.prefix_ids) + len(self.target_ids)


@dataclass(frozen=True)
class Totals:
    """The divisors of one optimizer step's losses, over all ranks and micro-batches."""

    tokens: float
    """Target tokens, each times the weight of its triple."""
    triples: float
    """The sum of the triples' weights."""
    excluding_prompts: float = 1.0
    """Prompts with excluded outputs; one counts in part where only some of its outputs are in the step."""


class RememberedPrompts:
    """Prompts as tokens, each of them tokenised once, however many triples have it."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._known: dict[bytes, array[int]] = {}

    def prompt_ids(self, instruction: str, query: str, history: History | None, *, of: str) -> tuple[int, ...]:
        """As `Renderer.prompt_ids`."""
        key = hashlib.blake2b(json.dumps([instruction, query, history]).encode(), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = array("i", self.renderer.prompt_ids(instruction, query, history, of=of))
        return tuple(self._known[key])


def make_example(row: dict[str, Any], prompts: RememberedPrompts, *, with_contrast: bool) -> Example:
    """One row of Triples, tokenised: sampled token ids are taken as they are, an output without them is tokenised.

    Args:
        with_contrast: whether the prompts under the contrast instructions are needed.
    """
    instructions = [str(row["instruction"]), *(row["contrast"] or [] if with_contrast else [])]
    query, history, of = str(row["query"]), row["history"], f"triple {row['triple_id']}"
    target_ids = row["target_ids"]
    exclusion = None
    if (excluded_from := row["excluded_from"]) is not None:
        if row["weight"] == 0:  # nothing is learned under the triple's own instruction
            instructions = [excluded_from]
        elif excluded_from not in instructions:
            instructions.append(excluded_from)
        exclusion = Exclusion(instructions.index(excluded_from), row["removed"], share=1.0)
    return Example(
        key=str(row["triple_id"]),
        prompts=tuple(prompts.prompt_ids(text, query, history, of=of) for text in instructions),
        prefix_ids=tuple(row["prefix_ids"]),
        target_ids=tuple(prompts.renderer.target_ids(str(row["output"])) if target_ids is None else target_ids),
        weight=float(row["weight"]),
        exclusion=exclusion,
    )


def placeholder(example: Example) -> Example:
    """The example with weight 0: it keeps the ranks in step and adds nothing to loss or gradient."""
    return dataclasses.replace(example, weight=0.0, exclusion=None)


def step_totals(examples: Sequence[Example]) -> Totals:
    """The divisors of one optimizer step."""
    # A total is 0 only where the sum that is divided by it is 0 as well.
    return Totals(
        tokens=sum(e.weight * len(e.target_ids) for e in examples) or 1.0,
        triples=sum(e.weight for e in examples) or 1.0,
        excluding_prompts=sum(e.exclusion.share for e in examples if e.exclusion is not None) or 1.0,
    )
