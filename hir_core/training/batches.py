"""Triples as tensors: which rows form an optimizer step, how a step is dealt to ranks, and one micro-batch's layout.

Every rank computes the same plan from the same table and seed, so the ranks agree on each step's rows and totals
without talking. A micro-batch holds, for R triples, first their R own sequences and then one sequence per contrast
instruction; each sequence is forwarded once. Leaves the mathematics to `losses`.
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
    """One triple, tokenised: its prompts under its own and the contrast instructions, and what is to be predicted.

    `prompts[0]` belongs to the triple's instruction. `prefix_ids` are given, `target_ids` are predicted.
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
    """What the losses of one optimizer step are divided by, over all ranks and micro-batches."""

    tokens: float
    triples: float


@dataclass(frozen=True)
class Batch:
    """One micro-batch as tensors. B sequences, T input tokens, U decoder tokens, N target tokens, R triples.

    `input_ids`, `attention_mask` [B, T]; `decoder_input_ids` [B, U] for encoder-decoders, else None;
    `target_mask` [B, T] (or [B, U]): positions whose next token is a target; `target_ids` [N]: those tokens, row by
    row; `target_rows` [N]: their sequence; `triples` [B]: the triple of each sequence; `weights` [R].
    The first R sequences are the triples' own; the rest are contrasts.
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_input_ids: Tensor | None
    target_mask: Tensor
    target_ids: Tensor
    target_rows: Tensor
    triples: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if value is not None}
        return dataclasses.replace(self, **moved)


def make_example(row: dict[str, Any], renderer: Renderer, *, with_contrast: bool) -> Example:
    """Tokenises one row of Triples; sampled ids are taken as they are, written outputs are tokenised here."""
    instructions = [str(row["instruction"]), *(row["contrast"] or [] if with_contrast else [])]
    query, history, of = str(row["query"]), row["history"], f"triple {row['triple_id']}"
    target = row["target_ids"]
    return Example(
        key=str(row["triple_id"]),
        prompts=tuple(tuple(renderer.prompt_ids(told, query, history, of=of)) for told in instructions),
        prefix_ids=tuple(row["prefix_ids"]),
        target_ids=tuple(renderer.target_ids(str(row["output"])) if target is None else target),
        weight=float(row["weight"]),
    )


def plan_steps(count: int, training: TrainingConfig, seed: Sequence[int]) -> list[list[int]]:
    """Row numbers of every optimizer step: each epoch is its own shuffle, its last step may be smaller."""
    per_epoch = math.ceil(count / training.batch_size)
    wanted = training.steps or per_epoch * training.epochs
    steps: list[list[int]] = []
    for epoch in range(math.ceil(wanted / per_epoch)):
        order = np.random.default_rng([*seed, epoch]).permutation(count).tolist()
        steps += [order[start : start + training.batch_size] for start in range(0, count, training.batch_size)]
    return steps[:wanted]


def contrast_in_batch(examples: Sequence[Example], ways: int) -> list[Example]:
    """The examples of one step, each contrasted with the prompts of up to `ways` - 1 others: the paper's in-batch form.

    Who meets whom is decided by the order of the step, not by micro-batches or ranks. Equal prompts meet once.
    """
    blocks = [examples[start : start + ways] for start in range(0, len(examples), ways)]
    return [
        dataclasses.replace(example, prompts=tuple(dict.fromkeys([example.prompts[0], *(e.prompts[0] for e in block)])))
        for block in blocks
        for example in block
    ]


def deal(rows: Sequence[int], lengths: Sequence[int], world_size: int, count: int) -> list[list[list[int]]]:
    """Splits one step's rows evenly into `count` micro-batches for each rank: `result[rank][n]` are row numbers.

    Rows of like length come together, so that little is padded. Where a step has fewer rows than micro-batches, the
    last ones are empty; every rank still has `count` of them.
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
    """Lays out one micro-batch; `decoder_start_id` is given for encoder-decoders. No example may be without targets."""
    rows = [(n, 0) for n in range(len(examples))]
    rows += [(n, i) for n, e in enumerate(examples) for i in range(1, len(e.prompts))]
    sources, decoders, masks = [], [], []
    for n, i in rows:
        prompt, prefix, target = examples[n].prompts[i], examples[n].prefix_ids, examples[n].target_ids
        if decoder_start_id is None:
            sources.append([*prompt, *prefix, *target[:-1]])
            masks.append([0] * (len(prompt) + len(prefix) - 1) + [1] * len(target))
        else:
            sources.append(list(prompt))
            decoders.append([decoder_start_id, *prefix, *target[:-1]])
            masks.append([0] * len(prefix) + [1] * len(target))
    targets = [examples[n].target_ids for n, _ in rows]
    return Batch(
        input_ids=_padded(sources, pad_id),
        attention_mask=_padded([[1] * len(source) for source in sources], 0),
        decoder_input_ids=_padded(decoders, pad_id) if decoders else None,
        target_mask=_padded(masks, 0).bool(),
        target_ids=torch.tensor([token for target in targets for token in target]),
        target_rows=torch.tensor([row for row, target in enumerate(targets) for _ in target]),
        triples=torch.tensor([n for n, _ in rows]),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


@dataclass(frozen=True)
class Layout:
    """What a batch needs to know of the model: padding and end tokens, decoder start (encoder-decoders), device."""

    pad_id: int
    end_ids: tuple[int, ...]
    """Every token that ends an output."""
    decoder_start_id: int | None
    device: torch.device

    def collate(self, examples: Sequence[Example]) -> Batch:
        """One micro-batch on the device."""
        return collate(examples, self.pad_id, self.decoder_start_id).to(self.device)
