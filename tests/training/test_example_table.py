"""A table gives back every example that it was made of, in little memory; steps are those of a plain shuffle."""

import dataclasses
import math
import random
from collections import Counter

import numpy as np
import pytest

from hir_core.config import TrainingConfig
from hir_core.training.example_table import ExampleTable, SoftTargetBuilder
from hir_core.training.examples import Example, Exclusion
from hir_core.training.exclusion import SoftTarget
from hir_core.training.steps import plan_steps

Ids = tuple[int, ...]


def random_examples(seed: int, count: int = 60) -> list[Example]:
    """Examples of few prompts, a third of them excluded under one of theirs."""
    draw = random.Random(seed)

    def ids(least: int, most: int) -> Ids:
        return tuple(draw.randrange(200_000) for _ in range(draw.randint(least, most)))

    prompts = [ids(1, 9) for _ in range(8)]
    examples = []
    for number in range(count):
        own = tuple(dict.fromkeys(draw.choices(prompts, k=draw.randint(1, 3))))
        exclusion = Exclusion(draw.randrange(len(own)), draw.random(), 1.0) if draw.random() < 1 / 3 else None
        examples.append(Example(f"t{number}", own, ids(0, 3), ids(1, 9), draw.random(), exclusion))
    return examples


def random_targets(draw: random.Random, length: int) -> tuple[SoftTarget | None, ...]:
    """For about half of the tokens of an output."""

    def target() -> SoftTarget:
        tokens = tuple(draw.randrange(200_000) for _ in range(draw.randint(1, 5)))
        return SoftTarget(tokens, tuple(draw.random() for _ in tokens), draw.random(), draw.random())

    return tuple(target() if draw.random() < 0.5 else None for _ in range(length))


@pytest.mark.parametrize("seed", range(5))
def test_every_example_comes_back_with_its_share(seed):
    """The share is one over the examples that are excluded under the same prompt."""
    examples = random_examples(seed)
    counts = Counter(e.exclusion_prompt for e in examples if e.exclusion is not None)
    expected = [
        e
        if e.exclusion is None
        else dataclasses.replace(e, exclusion=dataclasses.replace(e.exclusion, share=1 / counts[e.exclusion_prompt]))
        for e in examples
    ]
    table = ExampleTable.of(iter(examples))
    assert list(table) == expected
    assert table.lengths.tolist() == [e.length for e in examples]
    groups = table.excluded_by_prompt()
    assert sorted(map(len, groups)) == sorted(counts.values())
    assert all(len({examples[n].exclusion_prompt for n in numbers}) == 1 for numbers in groups)


def test_soft_targets_come_back_to_the_precision_of_the_loss():
    draw, examples = random.Random(3), random_examples(3)
    table, builder, given = ExampleTable.of(examples), SoftTargetBuilder(len(examples)), {}
    for numbers in table.excluded_by_prompt():
        for number in numbers:
            given[number] = random_targets(draw, len(examples[number].target_ids))
            builder.add(number, given[number])
    found = list(table.with_soft_targets(builder.finish()))
    assert len(given) > 10
    for number, example in enumerate(found):
        if example.exclusion is None:
            assert example == examples[number]
            continue
        for one, other in zip(example.exclusion.targets, given[number], strict=True):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                assert one.tokens == other.tokens
                values = [*one.probabilities, one.rest, one.weight]
                assert values == np.float32([*other.probabilities, other.rest, other.weight]).tolist()


def test_a_table_without_examples_of_some_kind_is_one_too():
    assert len(ExampleTable.of([])) == 0
    plain = Example("a", ((1,),), (), (2,), 1.0)
    assert list(ExampleTable.of([plain])) == [plain]
    assert ExampleTable.of([plain]).excluded_by_prompt() == []


def test_a_token_takes_four_bytes_and_a_prompt_is_there_once():
    prompt = tuple(range(1000))
    examples = [Example(f"{n:016x}", (prompt,), (), tuple(range(n, n + 250)), 1.0) for n in range(1000)]
    table = ExampleTable.of(examples)
    parts = [part for one in (table.prompts, table.prompt_numbers, table.prefixes, table.targets)
             for part in (one.values, one.ends)]  # fmt: skip
    parts += [table.weights, table.excluded_places, table.removed, table.excluded_counts]
    size = sum(part.nbytes for part in parts) + table.keys.estimated_size()
    assert size < 1.1 * 4 * (1000 + 250 * 1000)


@pytest.mark.parametrize("shuffle", ["triples", "prompts"])
@pytest.mark.parametrize(("count", "batch_size"), [(60, 16), (7, 64), (64, 8)])
def test_steps_are_those_of_shuffled_groups_one_after_another(shuffle, count, batch_size):
    """Compared with lists: groups in the order of their first example, shuffled anew in each epoch."""
    examples = random_examples(1, count)
    groups: dict[object, list[int]] = {}
    for number, example in enumerate(examples):
        groups.setdefault(number if shuffle == "triples" else frozenset(example.prompts), []).append(number)
    by_number, expected = list(groups.values()), []
    for epoch in range(3):
        order = [
            row
            for group in np.random.default_rng([4, 2, epoch]).permutation(len(by_number))
            for row in by_number[group]
        ]
        expected += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    training = TrainingConfig(batch_size=batch_size, epochs=3, shuffle=shuffle)
    steps = plan_steps(ExampleTable.of(examples), training, (4, 2))
    assert len(steps) == 3 * math.ceil(count / batch_size)
    assert list(steps) == expected
    assert steps[2:5] == expected[2:5]
    assert steps[-1] == expected[-1]
    assert [steps[n] for n in reversed(range(len(steps)))] == expected[::-1]
