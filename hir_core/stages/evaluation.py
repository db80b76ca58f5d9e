"""Evaluation: accuracy with an interval and a baseline, from Evaluations and Prompts tables.

A number alone says little: beside every accuracy stand the interval that its sample size allows and what always giving
the most frequent answer would reach. Reads tables only; leaves answering to the launch and scoring to the rewards.
"""

from __future__ import annotations

import math
from collections import Counter
from statistics import NormalDist
from typing import Any

import polars as pl

from hir_core.rewards.exact_match import normalised
from hir_core.rewards.reward import attribute_means


def wilson_interval(successes: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The share's score interval (Wilson 1927), which stays within 0 and 1 and is honest for few items.

    With p = successes / total, n = total and z the normal quantile:
    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). No items at all: nothing is known, so 0 to 1.

    Raises:
        ValueError: successes are not within 0 and total.
    """
    if not 0 <= successes <= total:
        raise ValueError(f"expected successes from 0 to {total}, found {successes}")
    if total == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, extra = successes / total, z * z / total
    middle = (share + extra / 2) / (1 + extra)
    half = z * math.sqrt(share * (1 - share) / total + extra / (4 * total)) / (1 + extra)
    return max(0.0, middle - half), min(1.0, middle + half)


def majority_baseline(prompts: pl.DataFrame) -> float | None:
    """The share of one task's prompts that is right by always giving the most frequent accepted answer.

    An option counts by letter and by text, whichever is right more often. None where no prompt has a reference.
    """
    accepted = [{normalised(reference) for reference in row} for row in prompts["references"].to_list()]
    counts = Counter(answer for answers in accepted for answer in answers)
    return max(counts.values()) / prompts.height if counts else None


def summarise(
    judged: pl.DataFrame, prompts: pl.DataFrame, threshold: float = 1.0, *, compares: bool = True
) -> dict[str, Any]:
    """Accuracy per task and over the run's own tasks, as plain JSON values.

    An answer is right where its score reaches the threshold. One that could not be judged counts as not right, and is
    counted under `not_judged` as well.

    Args:
        judged: one model's answers, as `Reward.judge` returns them, with their `task`.
        prompts: the whole table: a task is the run's own where it has train prompts; without any, every task is.
        threshold: the score of a right answer.
        compares: whether the reward judges by references; where it does not, there is no baseline.

    Returns:
        `tasks`: for each task `items`, `judged`, `not_judged`, `accuracy`, `low`, `high`, `mean_score` (of those that
        were judged), `majority_baseline`, and where the reward judges several attributes `attributes`, each one's
        `mean` score and how many are `judged`;
        `overall`: the same over the run's own tasks, named in `overall.tasks`. Its baseline answers each task by that
        task's own most frequent answer.
    """
    answered = judged.select("prompt_id", "task", "score", "parts", right=pl.col("score") >= threshold)
    asked = answered.join(prompts.select("prompt_id", "references"), on="prompt_id", how="left").sort("prompt_id")
    tasks = sorted(asked["task"].unique())
    by_task = {task: asked.filter(pl.col("task") == task) for task in tasks}
    baselines = {task: majority_baseline(rows) if compares else None for task, rows in by_task.items()}
    trained = set(prompts.filter(pl.col("split") == "train")["task"])
    own = [task for task in tasks if task in trained] or tasks
    overall = _accuracy(asked.filter(pl.col("task").is_in(own)), _pooled(by_task, baselines, own))
    per_task = {task: _accuracy(rows, baselines[task]) for task, rows in by_task.items()}
    return {"tasks": per_task, "overall": {"tasks": own, **overall}}


def _accuracy(rows: pl.DataFrame, baseline: float | None) -> dict[str, Any]:
    right, judged = int(rows["right"].sum()), rows["right"].count()
    low, high = wilson_interval(right, rows.height)
    return {
        "items": rows.height,
        "judged": judged,
        "not_judged": rows.height - judged,
        "accuracy": right / rows.height if rows.height else None,
        "low": low,
        "high": high,
        "mean_score": rows["score"].mean(),
        "majority_baseline": baseline,
        **attribute_means(rows),
    }


def _pooled(by_task: dict[str, pl.DataFrame], baselines: dict[str, float | None], own: list[str]) -> float | None:
    """The baselines of the own tasks, each by its number of items; None where one is unknown."""
    if not own or any(baselines[task] is None for task in own):
        return None
    right = sum((baselines[task] or 0.0) * by_task[task].height for task in own)
    return right / sum(by_task[task].height for task in own)
