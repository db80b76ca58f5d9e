"""Comparisons: methods by tasks by seeds, what each arm runs, and what the arms' accuracies say together.

All methods of one task and seed share a run directory, so the warm start, its evaluation and the first samples are
made once and are the same for all of them; from the first difference on, a method's versions fork. Reads YAML; leaves
running the arms and drawing to `flows`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import polars as pl

# Student's t at 97.5 % for 1, 2, ... degrees of freedom; beyond these the normal quantile is near enough.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_NORMAL975 = 1.96


# --- results ---------------------------------------------------------------------------------------------------------


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % interval by Student's t; one value says nothing of its spread, so its interval is infinite.

    mean ± t(n - 1) * s / sqrt(n), with s the sample standard deviation.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, -math.inf, math.inf
    freedom = len(values) - 1
    t = _T975[freedom - 1] if freedom <= len(_T975) else _NORMAL975
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def last_points(curves: pl.DataFrame) -> pl.DataFrame:
    """The last iteration of each arm.

    Args:
        curves: one row per arm and iteration, with `task`, `method`, `seed`, `iteration` and `accuracy`.
    """
    return curves.filter(pl.col("iteration") == pl.col("iteration").max().over("task", "method", "seed"))


def paired(curves: pl.DataFrame, method: str, reference: str) -> pl.DataFrame:
    """How far a method ends ahead of the reference: a row with the `gap` for every `task` and `seed` that both ran."""
    last = last_points(curves).select("task", "seed", "method", "accuracy")
    of = {name: last.filter(pl.col("method") == name) for name in (method, reference)}
    both = of[method].join(of[reference], on=["task", "seed"], suffix="_reference")
    return both.select("task", "seed", gap=pl.col("accuracy") - pl.col("accuracy_reference"))


def differences(pairs: pl.DataFrame) -> list[float]:
    """The mean gap over the tasks, seed by seed."""
    return pairs.group_by("seed").agg(pl.col("gap").mean()).sort("seed")["gap"].to_list()


def verdict(curves: pl.DataFrame, method: str, reference: str) -> str:
    """One sentence on whether a method is ahead of the reference, and whether the seeds show it."""
    pairs = paired(curves, method, reference)
    gaps = differences(pairs)
    mean, low, high = t_interval(gaps)
    where = f"{_counted(pairs['task'].n_unique(), 'task')}, {_counted(len(gaps), 'seed')}"
    if len(gaps) < 2:
        return f"{method} ends {_points(mean)} {reference} ({where}): one seed shows nothing"
    shown = "" if low > 0 or high < 0 else ": not shown"
    return f"{method} ends {_points(mean)} {reference} [{100 * low:+.1f}, {100 * high:+.1f}] ({where}){shown}"


def _points(gap: float) -> str:
    return f"{abs(100 * gap):.1f} points {'ahead of' if gap >= 0 else 'behind'}"


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
