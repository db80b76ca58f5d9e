"""Which train prompts an iteration samples: all of them, so many in turn, or a mix of tasks by their weights.

A choice follows from the prompts, the seed and the iteration's number alone, so that any iteration can be done again.
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
    """The prompts that an iteration samples: walks through shuffles of all of them, so that none is left out for long.

    With a mix, every task is walked through for itself, at the pace of its weight.

    Args:
        train: the train prompts.
        count: how many; None for all. An iteration that ends one shuffle and begins the next has fewer where a prompt
            comes up in both; with a mix it goes on until it has its number.
        iteration: from 1.
        mix: weights by task, as `check_mix` wants them.
    """
    ids = train["prompt_id"].to_list()
    if mix is not None and count is not None:
        chosen = _mixed(train, count, seed, iteration, mix)
    elif count is None or count >= len(ids):
        return train.sort("prompt_id")
    else:
        chosen = _walked(ids, seed, (iteration - 1) * count, iteration * count)
    return train.filter(pl.col("prompt_id").is_in(list(chosen))).sort("prompt_id")


def check_mix(train: pl.DataFrame, count: int, mix: Mapping[str, float]) -> None:
    """Makes sure that a mix says something about every task, and that no task has too few prompts for its share.

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


def _walked(ids: list[str], seed: int, start: int, end: int) -> set[str]:
    """What stands from `start` to `end` in an endless row of shuffles."""
    chosen: set[str] = set()
    for number in range(start // len(ids), (end - 1) // len(ids) + 1):
        first = number * len(ids)
        chosen.update(_shuffled(ids, seed, number)[max(0, start - first) : end - first])
    return chosen


def _mixed(train: pl.DataFrame, count: int, seed: int, iteration: int, mix: Mapping[str, float]) -> set[str]:
    shares = _shares(mix)
    before, after = _turns(shares, (iteration - 1) * count), _turns(shares, iteration * count)
    chosen: set[str] = set()
    for task in shares:
        ids = train.filter(pl.col("task") == task)["prompt_id"].to_list()
        chosen |= _next_different(ids, seed, before[task], after[task] - before[task])
    return chosen


def _next_different(ids: list[str], seed: int, start: int, size: int) -> set[str]:
    """So many different prompts of an endless row of shuffles, from `start` on."""
    chosen: set[str] = set()
    number, place = divmod(start, len(ids))
    while len(chosen) < min(size, len(ids)):
        for prompt_id in _shuffled(ids, seed, number)[place:]:
            if len(chosen) < size:
                chosen.add(prompt_id)
        number, place = number + 1, 0
    return chosen


def _shares(mix: Mapping[str, float]) -> dict[str, Fraction]:
    """Exact shares of the tasks that have one, in order of their names."""
    whole = sum(map(Fraction, mix.values()))
    return {task: Fraction(mix[task]) / whole for task in sorted(mix) if mix[task] > 0}


def _turns(shares: Mapping[str, Fraction], total: int) -> dict[str, int]:
    """How many of the first `total` turns each task has had (Sainte-Lague: never fewer of any task as they go on).

    A task's turns lie 1 / share apart, the first after half of that, and all tasks' turns are taken as they come.
    """
    had = {task: int(share * total + Fraction(1, 2)) for task, share in shares.items()}
    while sum(had.values()) > total:
        had[max(had, key=lambda task: ((had[task] - Fraction(1, 2)) / shares[task], task))] -= 1
    while sum(had.values()) < total:
        had[min(had, key=lambda task: ((had[task] + Fraction(1, 2)) / shares[task], task))] += 1
    return had


def _shuffled(ids: list[str], seed: int, number: int) -> list[str]:
    return sorted(ids, key=lambda prompt_id: content_key(seed, number, prompt_id))
