"""The optimizer steps of a training: which examples each has, and with what they are contrasted.

Every rank computes the same steps from the same table and seed, without communication. Their division among the ranks
is left to `micro_batches`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from hir_core.config import TrainingConfig
from hir_core.training.example_table import ExampleTable
from hir_core.training.examples import Example


class Steps(Sequence[list[int]]):
    """The examples' numbers of every optimizer step; an epoch's order is computed when one of its steps is asked for.

    Args:
        groups: a number for each example, equal for those that follow one another; counted by first appearance.
    """

    def __init__(self, groups: NDArray[np.int64], training: TrainingConfig, seed: Sequence[int]) -> None:
        self._groups, self._batch_size, self._seed = groups, training.batch_size, tuple(seed)
        self._per_epoch = math.ceil(len(groups) / training.batch_size)
        self._count = training.steps or self._per_epoch * training.epochs
        self._epoch, self._order = -1, groups

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, number: int) -> list[int]: ...
    @overload
    def __getitem__(self, number: slice) -> list[list[int]]: ...
    def __getitem__(self, number: int | slice) -> list[int] | list[list[int]]:
        if isinstance(number, slice):
            return [self[n] for n in range(self._count)[number]]
        epoch, place = divmod(range(self._count)[number], self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        start = place * self._batch_size
        rows: list[int] = self._order[start : start + self._batch_size].tolist()
        return rows

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        """All examples' numbers, group by group in random order."""
        count = int(self._groups.max()) + 1
        shuffled = np.random.default_rng([*self._seed, epoch]).permutation(count)
        places = np.empty(count, np.int64)
        places[shuffled] = np.arange(count)
        return np.argsort(places[self._groups], kind="stable")


def plan_steps(examples: ExampleTable, training: TrainingConfig, seed: Sequence[int]) -> Steps:
    """The steps of a training; each epoch is shuffled anew, and its last step may have fewer examples.

    Where `training.shuffle` is `prompts`, examples with equal prompts follow one another, so most are in one step.
    """
    is_by_prompt = training.shuffle == "prompts"
    return Steps(examples.prompt_sets() if is_by_prompt else np.arange(len(examples)), training, seed)


def examples_of_step(examples: ExampleTable, rows: Sequence[int], training: TrainingConfig) -> list[Example]:
    """The examples of one optimizer step, with their in-batch contrast where the config asks for it.

    Args:
        rows: one of `plan_steps`.
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
