"""All examples of a training, as arrays: a token takes 4 bytes, and a prompt of several examples is there once.

Python objects would take about 30 bytes for each token, on every rank. So an `Example` is made of a row only when it is
asked for, as for the optimizer step that trains on it. Made from the examples of `examples`, one after the other; the
soft targets are added by `teacher`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hir_core.training.examples import Example, Exclusion
from hir_core.training.exclusion import SoftTarget

NOT_EXCLUDED = -1


@dataclass(frozen=True)
class Sequences:
    """Sequences of whole numbers, one after the other."""

    values: NDArray[np.int32]
    ends: NDArray[np.int64]
    """[number of sequences + 1]: where each begins and the one before it ends."""

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, number: int) -> tuple[int, ...]:
        return tuple(self.values[self.ends[number] : self.ends[number + 1]].tolist())

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each sequence."""
        return np.diff(self.ends)

    @classmethod
    def of(cls, values: array[int], ends: array[int]) -> Sequences:
        """The sequences in arrays of Python, whose memory they share."""
        return cls(np.frombuffer(values, np.int32), np.frombuffer(ends, np.int64))


@dataclass
class _Growing:
    """Sequences to which one after the other is added."""

    values: array[int] = field(default_factory=lambda: array("i"))
    ends: array[int] = field(default_factory=lambda: array("q", [0]))

    def add(self, sequence: Iterable[int]) -> None:
        self.values.extend(sequence)
        self.ends.append(len(self.values))

    def finish(self) -> Sequences:
        return Sequences.of(self.values, self.ends)


@dataclass(frozen=True)
class SoftTargetTable:
    """The soft targets of excluded outputs, as `teacher` computes them."""

    outputs: NDArray[np.int32]
    """[number of examples]: which of the outputs here each example has, or `NOT_EXCLUDED`."""
    sizes: Sequences
    """Of each output, for each of its target tokens: the tokens of its soft target; 0 where there is none."""
    rests: NDArray[np.float32]
    """Of each target token of all outputs."""
    weights: NDArray[np.float32]
    """As `rests`."""
    tokens: Sequences
    """Of each output: the tokens of its soft targets together."""
    probabilities: NDArray[np.float32]
    """Of each of these tokens of all outputs."""

    def __getitem__(self, example: int) -> tuple[SoftTarget | None, ...]:
        output = int(self.outputs[example])
        if output == NOT_EXCLUDED:
            return ()
        first = int(self.sizes.ends[output])
        start = int(self.tokens.ends[output])
        targets: list[SoftTarget | None] = []
        for place, size in enumerate(self.sizes[output], first):
            span = slice(start, start + size)
            start += size
            targets.append(
                None
                if not size
                else SoftTarget(
                    tuple(self.tokens.values[span].tolist()),
                    tuple(self.probabilities[span].tolist()),
                    float(self.rests[place]),
                    float(self.weights[place]),
                )
            )
        return tuple(targets)


class SoftTargetBuilder:
    """Makes a `SoftTargetTable` from the soft targets of one example after the other, in any order.

    Args:
        examples: number of all examples.
    """

    def __init__(self, examples: int) -> None:
        self._outputs = np.full(examples, NOT_EXCLUDED, np.int32)
        self._sizes, self._tokens = _Growing(), _Growing()
        self._rests, self._weights, self._probabilities = array("f"), array("f"), array("f")

    def add(self, example: int, targets: Sequence[SoftTarget | None]) -> None:
        """Adds the soft targets of an example's output: one, or None, for each target token."""
        self._outputs[example] = len(self._sizes.ends) - 1
        self._sizes.add(0 if target is None else len(target.tokens) for target in targets)
        self._tokens.add(token for target in targets if target is not None for token in target.tokens)
        for target in targets:
            self._rests.append(0.0 if target is None else target.rest)
            self._weights.append(0.0 if target is None else target.weight)
            self._probabilities.extend(() if target is None else target.probabilities)

    def finish(self) -> SoftTargetTable:
        """The table."""
        rests, weights, probabilities = (
            np.frombuffer(values, np.float32) for values in (self._rests, self._weights, self._probabilities)
        )
        return SoftTargetTable(
            self._outputs, self._sizes.finish(), rests, weights, self._tokens.finish(), probabilities
        )


@dataclass(frozen=True)
class ExampleTable:
    """Examples by their number, in the order in which they were added.

    The `share` of an exclusion follows from all examples that are excluded under the same prompt.
    """

    keys: pl.Series
    prompts: Sequences
    """The different prompts."""
    prompt_numbers: Sequences
    """Of each example, which of `prompts` it has."""
    prefixes: Sequences
    targets: Sequences
    weights: NDArray[np.float64]
    excluded_places: NDArray[np.int32]
    """Of each example, the place among its prompts of the one under which it is excluded, or `NOT_EXCLUDED`."""
    removed: NDArray[np.float64]
    """Of each example, as in `Exclusion`; 0 where it is not excluded."""
    excluded_counts: NDArray[np.int64]
    """Of each prompt, the examples that are excluded under it."""
    soft_targets: SoftTargetTable | None = None

    @classmethod
    def of(cls, examples: Iterable[Example]) -> ExampleTable:
        """The table of the examples, which are gone through once."""
        keys, weights, removed, places = list[str](), array("d"), array("d"), array("i")
        prompts, numbers, prefixes, targets = _Growing(), _Growing(), _Growing(), _Growing()
        known: dict[bytes, int] = {}

        def number_of(prompt: tuple[int, ...]) -> int:
            digest = hashlib.blake2b(array("i", prompt).tobytes(), digest_size=16).digest()
            if digest not in known:
                known[digest] = len(known)
                prompts.add(prompt)
            return known[digest]

        for example in examples:
            keys.append(example.key)
            numbers.add(map(number_of, example.prompts))
            prefixes.add(example.prefix_ids)
            targets.add(example.target_ids)
            weights.append(example.weight)
            places.append(NOT_EXCLUDED if example.exclusion is None else example.exclusion.prompt)
            removed.append(0.0 if example.exclusion is None else example.exclusion.removed)
        prompt_numbers, excluded_places = numbers.finish(), np.frombuffer(places, np.int32)
        is_excluded = excluded_places != NOT_EXCLUDED
        under = prompt_numbers.values[prompt_numbers.ends[:-1][is_excluded] + excluded_places[is_excluded]]
        return cls(
            pl.Series(keys, dtype=pl.String),
            prompts.finish(),
            prompt_numbers,
            prefixes.finish(),
            targets.finish(),
            np.frombuffer(weights, np.float64),
            excluded_places,
            np.frombuffer(removed, np.float64),
            np.bincount(under, minlength=len(known)),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, number: int) -> Example:
        numbers = self.prompt_numbers[number]
        place = int(self.excluded_places[number])
        exclusion = None
        if place != NOT_EXCLUDED:
            share = 1 / int(self.excluded_counts[numbers[place]])
            targets = () if self.soft_targets is None else self.soft_targets[number]
            exclusion = Exclusion(place, float(self.removed[number]), share, targets)
        return Example(
            key=str(self.keys[number]),
            prompts=tuple(self.prompts[prompt] for prompt in numbers),
            prefix_ids=self.prefixes[number],
            target_ids=self.targets[number],
            weight=float(self.weights[number]),
            exclusion=exclusion,
        )

    def __iter__(self) -> Iterator[Example]:
        return (self[number] for number in range(len(self)))

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of the longest sequence of each example, as `Example.length`."""
        of_prompts = self.prompts.lengths[self.prompt_numbers.values]
        longest = np.maximum.reduceat(of_prompts, self.prompt_numbers.ends[:-1])
        return longest + self.prefixes.lengths + self.targets.lengths

    def prompt_sets(self) -> NDArray[np.int64]:
        """A number for each example, equal where their prompts are the same; counted by first appearance."""
        known: dict[frozenset[int], int] = {}
        sets = (frozenset(self.prompt_numbers[number]) for number in range(len(self)))
        return np.array([known.setdefault(prompts, len(known)) for prompts in sets], np.int64)

    def excluded_by_prompt(self) -> list[list[int]]:
        """The numbers of the examples that are excluded under each prompt that has any."""
        groups: dict[int, list[int]] = {}
        for number in np.flatnonzero(self.excluded_places != NOT_EXCLUDED).tolist():
            prompt = self.prompt_numbers[number][self.excluded_places[number]]
            groups.setdefault(prompt, []).append(number)
        return list(groups.values())

    def with_soft_targets(self, soft_targets: SoftTargetTable) -> ExampleTable:
        """The same examples with soft targets for their excluded outputs."""
        return dataclasses.replace(self, soft_targets=soft_targets)
