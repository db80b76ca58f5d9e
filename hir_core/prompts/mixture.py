"""The train prompts that an iteration samples: all of them, a number of them, or a mix of tasks by weights.

The choice depends on the prompts, the seed and the iteration's number only, so that any iteration can be repeated. A
number of prompts is taken from an endless sequence of shuffles of all prompts: each iteration goes on where the
iteration before it ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import polars as pl

from hir_core.errors import ConfigError, did_you_mean
from hir_core.schemas import content_key


def choose_prompts(
    train: pl.DataFrame, count: int | None, seed: int, iteration: int, mix: Mapping[str, float] | None = None
) -> pl.DataFrame:
    """The prompts that an iteration samples, sorted by prompt_id.

    Without a mix, one sequence of shuffles holds all prompts. With a mix, each task has a sequence of its own and gets
    its share of the iteration's prompts.

    Args:
        train: the train prompts.
        count: how many; None for all. An iteration that spans two shuffles has fewer prompts where both shuffles give
            it the same one; with a mix it takes the next ones instead.
        iteration: from 1.
        mix: weights by task, as `check_mix` requires them.
    """
    if count is None or (mix is None and count >= train.height):
        return train.sort("prompt_id")
    start, end = (iteration - 1) * count, iteration * count
    chosen: set[str] = set()
    if mix is None:
        ids = train["prompt_id"].to_list()
        for number in range(start // len(ids), (end - 1) // len(ids) + 1):
            first = number * len(ids)
            chosen.update(_shuffled(ids, seed, number)[max(0, start - first) : end - first])
    else:
        shares = _shares(mix)
        taken_before, taken_after = _turns(shares, start), _turns(shares, end)
        for task in shares:
            ids = train.filter(pl.col("task") == task)["prompt_id"].to_list()
            chosen |= _next_different(ids, seed, taken_before[task], taken_after[task] - taken_before[task])
    return train.filter(pl.col("prompt_id").is_in(list(chosen))).sort("prompt_id")


def check_mix(train: pl.DataFrame, count: int, mix: Mapping[str, float]) -> None:
    """Raises an error unless the mix has a weight for every task and every task has enough prompts for its share.

    Raises:
        ConfigError: names the task, and what to set.
    """
    sizes = dict(train.group_by("task").len().sort("task").iter_rows())
    for task in mix:
        if task not in sizes:
            hint = did_you_mean(task, sizes) or f"; there are {', '.join(sizes)}"
            raise ConfigError(f"sampling.mix: no train prompts of a task `{task}`{hint}")
    if missing := [task for task in sizes if task not in mix]:
        raise ConfigError(f"sampling.mix: no weight for {', '.join(missing)}: give one, 0 to leave a task out")
    for task, share in _shares(mix).items():
        if share * count > sizes[task]:
            raise ConfigError(
                f"sampling.mix: {task} should have {float(share * count):g} of an iteration's {count} prompts, but "
                f"there are {sizes[task]} of it: lower its weight or sampling.prompts, or add prompts"
            )


def _shares(mix: Mapping[str, float]) -> dict[str, Fraction]:
    """The exact share of each task whose weight is not 0, sorted by task."""
    total = sum(map(Fraction, mix.values()))
    return {task: Fraction(mix[task]) / total for task in sorted(mix) if mix[task] > 0}


def _turns(shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """How many of the first `total` prompts each task gets (Sainte-Lague: no count falls as the total grows).

    The prompts of a task are 1 / share apart, the first at half that distance, and all tasks are merged in this order.
    """
    counts = {task: int(share * total + Fraction(1, 2)) for task, share in shares.items()}
    while sum(counts.values()) > total:
        counts[max(counts, key=lambda task: ((counts[task] - Fraction(1, 2)) / shares[task], task))] -= 1
    while sum(counts.values()) < total:
        counts[min(counts, key=lambda task: ((counts[task] + Fraction(1, 2)) / shares[task], task))] += 1
    return counts


def _next_different(ids: list[str], seed: int, start: int, size: int) -> set[str]:
    """`size` different prompts of the sequence of shuffles, from position `start` on."""
    chosen: set[str] = set()
    number, offset = divmod(start, len(ids))
    while len(chosen) < min(size, len(ids)):
        for prompt_id in _shuffled(ids, seed, number)[offset:]:
            if len(chosen) < size:
                chosen.add(prompt_id)
        number, offset = number + 1, 0
    return chosen


def _shuffled(ids: list[str], seed: int, number: int) -> list[str]:
    """The ids in the order of shuffle `number`."""
    return sorted(ids, key=lambda prompt_id: content_key(seed, number, prompt_id))
