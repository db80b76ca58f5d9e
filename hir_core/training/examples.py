"""Triples as tokens: the examples of a training, those of each optimizer step, and their assignment to ranks.

Every rank computes the same plan from the same table and seed, so the ranks agree on each step's examples and totals
without communication. The tensors are left to `batches`, the loss to `losses`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hir_core.config import TrainingConfig
from hir_core.modeling.rendering import Renderer
from hir_core.training.exclusion import SoftTarget


@dataclass(frozen=True)
class Exclusion:
    """That an example's output is ruled out under one of its prompts."""

    prompt: int
    """The number of the prompt."""
    removed: float
    """The share of the output's probability that is taken away."""
    share: float
    """1 / n, where n outputs are excluded under this prompt: with it, a term is a mean over prompts."""
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


def make_example(row: dict[str, Any], renderer: Renderer, *, with_contrast: bool) -> Example:
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
        prompts=tuple(tuple(renderer.prompt_ids(text, query, history, of=of)) for text in instructions),
        prefix_ids=tuple(row["prefix_ids"]),
        target_ids=tuple(renderer.target_ids(str(row["output"])) if target_ids is None else target_ids),
        weight=float(row["weight"]),
        exclusion=exclusion,
    )


def with_shares(examples: Sequence[Example]) -> list[Example]:
    """The examples, with the `share` of every exclusion."""
    counts = Counter(example.exclusion_prompt for example in examples if example.exclusion is not None)
    return [
        example
        if example.exclusion is None
        else dataclasses.replace(
            example, exclusion=dataclasses.replace(example.exclusion, share=1 / counts[example.exclusion_prompt])
        )
        for example in examples
    ]


def placeholder(example: Example) -> Example:
    """The example with weight 0: it keeps the ranks in step and adds nothing to loss or gradient."""
    return dataclasses.replace(example, weight=0.0, exclusion=None)


def plan_steps(examples: Sequence[Example], training: TrainingConfig, seed: Sequence[int]) -> list[list[int]]:
    """Row numbers of every optimizer step; each epoch is shuffled anew, and its last step may have fewer rows.

    Where `training.shuffle` is `prompts`, rows with equal prompts follow one another, so most are in one step.
    """
    count = len(examples)
    groups: dict[object, list[int]] = {}
    for row, example in enumerate(examples):
        groups.setdefault(row if training.shuffle == "triples" else frozenset(example.prompts), []).append(row)
    by_number = list(groups.values())
    per_epoch = math.ceil(count / training.batch_size)
    step_count = training.steps or per_epoch * training.epochs
    steps: list[list[int]] = []
    for epoch in range(math.ceil(step_count / per_epoch)):
        shuffled = np.random.default_rng([*seed, epoch]).permutation(len(by_number)).tolist()
        order = [row for number in shuffled for row in by_number[number]]
        steps += [order[start : start + training.batch_size] for start in range(0, count, training.batch_size)]
    return steps[:step_count]


def examples_of_step(examples: Sequence[Example], rows: Sequence[int], training: TrainingConfig) -> list[Example]:
    """The examples of one optimizer step, with their in-batch contrast where the config asks for it.

    Args:
        rows: one item of `plan_steps`.
    """
    chosen = [examples[row] for row in rows]
    if training.contrastive > 0 and training.contrast == "batch":
        return contrast_in_batch(chosen, training.contrast_ways)
    return chosen


def contrast_in_batch(examples: Sequence[Example], ways: int) -> list[Example]:
    """The examples of one step, each contrasted with the prompts of up to `ways` - 1 others.

    This is the in-batch contrast of the paper (Zhang et al., ICML 2023, arXiv 2302.05206), over blocks of `ways`
    examples in the order of the step, so that micro-batches and ranks do not change it. Equal prompts are used once.
    """
    blocks = [examples[start : start + ways] for start in range(0, len(examples), ways)]
    return [
        dataclasses.replace(example, prompts=tuple(dict.fromkeys([example.prompts[0], *(e.prompts[0] for e in block)])))
        for block in blocks
        for example in block
    ]


def assign_micro_batches(examples: Sequence[Example], world_size: int, count: int) -> list[list[list[int]]]:
    """Splits one step's examples evenly into `count` micro-batches for each rank: `result[rank][n]` are their numbers.

    Examples of similar length share a micro-batch, so that there is little padding, and those with equal prompts follow
    one another. Where a step has fewer examples than there are micro-batches, the last ones are empty; every rank still
    has `count` of them.
    """
    groups: dict[frozenset[tuple[int, ...]], list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(frozenset(example.prompts), []).append(number)
    for numbers in groups.values():
        numbers.sort(key=lambda number: -examples[number].length)
    longest_first = sorted(groups.values(), key=lambda numbers: -examples[numbers[0]].length)
    ordered = [number for numbers in longest_first for number in numbers]
    size, larger = divmod(len(ordered), world_size * count)
    ends = [size * n + min(n, larger) for n in range(world_size * count + 1)]
    micro_batches = [ordered[start:end] for start, end in itertools.pairwise(ends)]
    return [micro_batches[rank::world_size] for rank in range(world_size)]


def step_totals(examples: Sequence[Example]) -> Totals:
    """The divisors of one optimizer step."""
    # A total is 0 only where the sum that is divided by it is 0 as well.
    return Totals(
        tokens=sum(e.weight * len(e.target_ids) for e in examples) or 1.0,
        triples=sum(e.weight for e in examples) or 1.0,
        excluding_prompts=sum(e.exclusion.share for e in examples if e.exclusion is not None) or 1.0,
    )
