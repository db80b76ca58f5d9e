"""Triples as tensors: the rows of each optimizer step, their assignment to ranks, and one micro-batch's layout.

Every rank computes the same plan from the same table and seed, so the ranks agree on each step's rows and totals
without communication. A micro-batch has, for R triples, first their R own sequences and then one sequence per contrast
instruction; each sequence is forwarded once. The loss is in `losses`.

Shapes, here and in `losses`: B sequences of a micro-batch, T input tokens, U decoder tokens, M target tokens of all
sequences together, R triples, N instructions of the triple that has the most, V vocabulary, H hidden size.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hir_core.config import TrainingConfig
from hir_core.modeling.rendering import Renderer


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


@dataclass(frozen=True)
class Batch:
    """One micro-batch as tensors; its first R sequences are the triples' own, the others are contrasts."""

    input_ids: Tensor
    """[B, T]"""
    attention_mask: Tensor
    """[B, T]: 1 at tokens, 0 at padding."""
    decoder_input_ids: Tensor | None
    """[B, U] for encoder-decoders, else None."""
    target_mask: Tensor
    """[B, T], or [B, U] for encoder-decoders: true at positions whose next token is a target."""
    target_ids: Tensor
    """[M]: the target tokens, row by row."""
    target_rows: Tensor
    """[M]: the sequence of each target token."""
    triples: Tensor
    """[B]: the triple of each sequence."""
    weights: Tensor
    """[R]: the weight of each triple."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if value is not None}
        return dataclasses.replace(self, **moved)


def make_example(row: dict[str, Any], renderer: Renderer, *, with_contrast: bool) -> Example:
    """One row of Triples, tokenised: sampled token ids are taken as they are, an output without them is tokenised.

    Args:
        with_contrast: whether the prompts under the contrast instructions are needed.
    """
    instructions = [str(row["instruction"]), *(row["contrast"] or [] if with_contrast else [])]
    query, history, of = str(row["query"]), row["history"], f"triple {row['triple_id']}"
    target_ids = row["target_ids"]
    return Example(
        key=str(row["triple_id"]),
        prompts=tuple(tuple(renderer.prompt_ids(text, query, history, of=of)) for text in instructions),
        prefix_ids=tuple(row["prefix_ids"]),
        target_ids=tuple(renderer.target_ids(str(row["output"])) if target_ids is None else target_ids),
        weight=float(row["weight"]),
    )


def plan_steps(count: int, training: TrainingConfig, seed: Sequence[int]) -> list[list[int]]:
    """Row numbers of every optimizer step; each epoch is shuffled anew, and its last step may have fewer rows.

    Args:
        count: the number of triples.
    """
    per_epoch = math.ceil(count / training.batch_size)
    step_count = training.steps or per_epoch * training.epochs
    steps: list[list[int]] = []
    for epoch in range(math.ceil(step_count / per_epoch)):
        order = np.random.default_rng([*seed, epoch]).permutation(count).tolist()
        steps += [order[start : start + training.batch_size] for start in range(0, count, training.batch_size)]
    return steps[:step_count]


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


def assign_micro_batches(
    rows: Sequence[int], lengths: Sequence[int], world_size: int, count: int
) -> list[list[list[int]]]:
    """Splits one step's rows evenly into `count` micro-batches for each rank: `result[rank][n]` are row numbers.

    Rows of similar length share a micro-batch, so that there is little padding. Where a step has fewer rows than there
    are micro-batches, the last ones are empty; every rank still has `count` of them.

    Args:
        lengths: tokens of every row, by row number.
    """
    ordered = sorted(rows, key=lambda row: (-lengths[row], row))
    size, larger = divmod(len(ordered), world_size * count)
    ends = [size * n + min(n, larger) for n in range(world_size * count + 1)]
    groups = [ordered[start:end] for start, end in itertools.pairwise(ends)]
    return [groups[rank::world_size] for rank in range(world_size)]


def step_totals(examples: Sequence[Example]) -> Totals:
    """Weighted target tokens and weighted triples of one optimizer step."""
    return Totals(sum(e.weight * len(e.target_ids) for e in examples), sum(e.weight for e in examples))


def collate(examples: Sequence[Example], pad_id: int, decoder_start_id: int | None) -> Batch:
    """One micro-batch; every example must have targets.

    Args:
        decoder_start_id: for encoder-decoders; None for decoder-only models.
    """
    sequences = [(n, 0) for n in range(len(examples))]  # example and prompt
    sequences += [(n, i) for n, e in enumerate(examples) for i in range(1, len(e.prompts))]
    inputs, decoder_inputs, masks = [], [], []
    for n, i in sequences:
        prompt, prefix, target = examples[n].prompts[i], examples[n].prefix_ids, examples[n].target_ids
        if decoder_start_id is None:
            inputs.append([*prompt, *prefix, *target[:-1]])
            masks.append([0] * (len(prompt) + len(prefix) - 1) + [1] * len(target))
        else:
            inputs.append(list(prompt))
            decoder_inputs.append([decoder_start_id, *prefix, *target[:-1]])
            masks.append([0] * len(prefix) + [1] * len(target))
    targets = [examples[n].target_ids for n, _ in sequences]
    return Batch(
        input_ids=_padded(inputs, pad_id),
        attention_mask=_padded([[1] * len(ids) for ids in inputs], 0),
        decoder_input_ids=_padded(decoder_inputs, pad_id) if decoder_inputs else None,
        target_mask=_padded(masks, 0).bool(),
        target_ids=torch.tensor([token for target in targets for token in target]),
        target_rows=torch.tensor([row for row, target in enumerate(targets) for _ in target]),
        triples=torch.tensor([n for n, _ in sequences]),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


@dataclass(frozen=True)
class BatchLayout:
    """The properties of a model that its batches depend on, and the device."""

    pad_id: int
    end_ids: tuple[int, ...]
    """Every token that ends an output."""
    decoder_start_id: int | None
    """For encoder-decoders; None for decoder-only models."""
    device: torch.device

    def collate(self, examples: Sequence[Example]) -> Batch:
        """One micro-batch on the device."""
        return collate(examples, self.pad_id, self.decoder_start_id).to(self.device)
