"""The summary of an evaluation: accuracy by task, with a confidence interval and a majority baseline.

The baseline is the accuracy of always giving the most frequent correct answer. Reads Evaluations and Prompts tables;
the answers come from a launch, their scores from the reward.
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
    """The score interval of a share (Wilson 1927), which stays within 0 and 1 and holds for few items too.

    With p = successes / total, n = total and z the normal quantile:
    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n). Without items it is 0 to 1.

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
    judged: pl.DataFrame, prompts: pl.DataFrame, threshold: float = 1.0, *, uses_references: bool = True
) -> dict[str, Any]:
    """Accuracy per task and over the run's own tasks, as plain JSON values.

    An answer is right where its score reaches the threshold. One without a score counts as not right, and is counted
    under `no_answer` or `not_judged` as well.

    Args:
        judged: one model's answers, as `Reward.judge` returns them, with their `task`.
        prompts: the whole table: a task is the run's own where it has train prompts; without any, every task is.
        threshold: the score of a right answer.
        uses_references: whether the reward judges by references; where it does not, there is no baseline.

    Returns:
        `tasks`: for each task `items`, `judged`, `no_answer`, `not_judged`, `accuracy`, `low`, `high`, `mean_score` (of
        those that were judged), `majority_baseline`, and where the reward judges several attributes `attributes`,
        each one's `mean` score and how many are `judged`;
        `overall`: the same over the run's own tasks, named in `overall.tasks`. Its baseline answers each task by that
        task's own most frequent answer.
    """
    answers = judged.select("prompt_id", "task", "outcome", "score", "parts", right=pl.col("score") >= threshold)
    answers = answers.join(prompts.select("prompt_id", "references"), on="prompt_id", how="left").sort("prompt_id")
    tasks = sorted(answers["task"].unique())
    by_task = {task: answers.filter(pl.col("task") == task) for task in tasks}
    baselines = {task: majority_baseline(rows) if uses_references else None for task, rows in by_task.items()}
    trained = set(prompts.filter(pl.col("split") == "train")["task"])
    own = [task for task in tasks if task in trained] or tasks
    pooled_baseline = None
    if own and all(baselines[task] is not None for task in own):
        right = sum((baselines[task] or 0.0) * by_task[task].height for task in own)
        pooled_baseline = right / sum(by_task[task].height for task in own)
    overall = _accuracy(answers.filter(pl.col("task").is_in(own)), pooled_baseline)
    per_task = {task: _accuracy(rows, baselines[task]) for task, rows in by_task.items()}
    return {"tasks": per_task, "overall": {"tasks": own, **overall}}


def _accuracy(rows: pl.DataFrame, baseline: float | None) -> dict[str, Any]:
    right, outcomes = int(rows["right"].sum()), Counter(rows["outcome"])
    low, high = wilson_interval(right, rows.height)
    return {
        "items": rows.height,
        "judged": outcomes["scored"],
        "no_answer": outcomes["no_answer"],
        "not_judged": outcomes["not_judged"],
        "accuracy": right / rows.height if rows.height else None,
        "low": low,
        "high": high,
        "mean_score": rows["score"].mean(),
        "majority_baseline": baseline,
        **attribute_means(rows),
    }
