"""Evaluation: accuracies against hand arithmetic, with their intervals and baselines."""

import json

import polars as pl
import pytest

from hir_core.schemas import Evaluations, Prompts, Rewards
from hir_core.stages.evaluation import majority_baseline, summarise, wilson_interval


def prompts(**tasks):
    """Prompts of each task, given as lists of (split, references)."""
    rows = [
        {"prompt_id": f"{task}{n}", "task": task, "group": f"{n}", "split": split, "query": "q", "options": None,
         "references": references, "metadata": None}
        for task, items in tasks.items()
        for n, (split, references) in enumerate(items)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=Prompts.create_empty().schema)


def evaluations(**tasks):
    """Answers to the first prompts of each task, given as scores."""
    rows = [
        {"prompt_id": f"{task}{n}", "model": "m", "task": task, "instruction": "i", "completion": "c",
         "finish_reason": "eos", "outcome": "not_judged" if score is None else "scored", "score": score}
        for task, scores in tasks.items()
        for n, score in enumerate(scores)
    ]  # fmt: skip
    scores = pl.DataFrame(rows, schema=Evaluations.create_empty().schema)
    return scores.with_columns(parts=pl.lit([], Rewards.create_empty().schema["parts"]))


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # z = 1.959964, z² = 3.841459. 8/10: (0.8 + 0.192073) / 1.384146 ± 1.959964 √(0.016 + 0.009604) / 1.384146
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0.0, 0.277533),  # z² / (n + z²) = 3.841459 / 13.841459
        (10, 10, 0.722467, 1.0),
        (1, 2, 0.094531, 0.905469),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_by_hand(successes, total, low, high):
    assert wilson_interval(successes, total) == pytest.approx((low, high), abs=1e-6)


def test_the_interval_narrows_with_items_and_widens_with_confidence():
    def width(interval):
        return interval[1] - interval[0]

    assert width(wilson_interval(400, 1000)) < width(wilson_interval(40, 100))
    assert width(wilson_interval(40, 100, confidence=0.99)) > width(wilson_interval(40, 100))


def test_more_successes_than_items_are_refused():
    with pytest.raises(ValueError, match="expected successes from 0 to 2, found 3"):
        wilson_interval(3, 2)


@pytest.mark.parametrize(
    ("references", "share"),
    [
        ([["8", "eight"], ["8"], ["9"], ["Eight."]], 0.5),  # "8" is right twice, "eight" twice
        ([["(A)", "red"], ["(B)", "red"], ["(C)", "red"], ["(A)", "blue"]], 0.75),  # by text more often than by letter
        ([["(A)", "red"], ["(A)", "blue"]], 1.0),
        ([["8", "8."], ["9"]], 0.5),
        ([["8"], []], 0.5),
        ([[], []], None),
        ([], None),
    ],
)
def test_the_majority_baseline_is_the_best_single_answer(references, share):
    assert majority_baseline(prompts(t=[("test", row) for row in references])) == share


def test_summary_of_two_tasks_and_one_that_is_only_evaluated():
    asked = prompts(
        sums=[("test", ["1"]), ("test", ["1"]), ("test", ["2"]), ("test", ["3"]), ("train", ["1"])],
        words=[("test", ["a"]), ("test", ["b"]), ("train", ["a"])],
        bench=[("test", ["x"])],
    )
    found = summarise(evaluations(sums=[1.0, 0.0, None, 1.0], words=[1.0, 0.5], bench=[0.0]), asked)
    assert json.loads(json.dumps(found)) == found
    low, high = wilson_interval(2, 4)
    assert found["tasks"]["sums"] == {
        "items": 4, "judged": 3, "no_answer": 0, "not_judged": 1, "accuracy": 0.5, "low": low, "high": high,
        "mean_score": 2 / 3, "majority_baseline": 0.5,
    }  # fmt: skip
    assert found["tasks"]["words"]["accuracy"] == 0.5
    assert found["tasks"]["bench"]["accuracy"] == 0.0
    low, high = wilson_interval(3, 6)
    assert found["overall"] == {
        "tasks": ["sums", "words"],
        "items": 6, "judged": 5, "no_answer": 0, "not_judged": 1, "accuracy": 0.5, "low": low, "high": high,
        "mean_score": 3.5 / 5, "majority_baseline": (2 + 1) / 6,
    }  # fmt: skip


def test_without_train_prompts_every_task_counts():
    asked = prompts(a=[("test", ["1"])], b=[("test", ["1"])])
    assert summarise(evaluations(a=[1.0], b=[0.0]), asked)["overall"]["accuracy"] == 0.5


def test_a_graded_score_is_right_from_the_threshold_on():
    asked = prompts(a=[("test", []), ("test", [])])
    found = summarise(evaluations(a=[0.7, 0.4]), asked, threshold=0.5)["overall"]
    assert (found["accuracy"], found["majority_baseline"]) == (0.5, None)


def test_answers_that_name_none_are_counted_apart_from_those_not_judged():
    rows = evaluations(a=[None, None, 1.0]).with_columns(outcome=pl.Series(["no_answer", "not_judged", "scored"]))
    found = summarise(rows, prompts(a=[("test", ["1"])] * 3))["overall"]
    assert (found["judged"], found["no_answer"], found["not_judged"]) == (1, 1, 1)
    assert found["accuracy"] == 1 / 3


def test_attributes_have_their_mean_in_each_task():
    asked = prompts(sums=[("test", ["1"]), ("test", ["1"]), ("train", ["1"])], bench=[("test", ["x"])])
    judged = evaluations(sums=[1.0, None], bench=[0.5])
    parts = [[("brief", 0.5), ("right", 1.0)], [("brief", 0.75), ("right", None)], [("brief", 0.0)]]
    named = [[{"name": name, "score": score} for name, score in row] for row in parts]
    found = summarise(judged.with_columns(parts=pl.Series(named, dtype=judged.schema["parts"])), asked)
    expected = {"brief": {"mean": 0.625, "judged": 2}, "right": {"mean": 1.0, "judged": 1}}
    assert found["overall"]["attributes"] == found["tasks"]["sums"]["attributes"] == expected
    assert found["tasks"]["bench"]["attributes"] == {"brief": {"mean": 0.0, "judged": 1}}


def test_where_nothing_is_compared_there_is_no_baseline():
    asked = prompts(a=[("test", ["1"]), ("test", ["1"])])
    found = summarise(evaluations(a=[0.7, None]), asked, threshold=0.5, uses_references=False)["overall"]
    assert (found["accuracy"], found["mean_score"], found["majority_baseline"]) == (0.5, 0.7, None)


def test_no_evaluations_are_no_tasks():
    found = summarise(evaluations(), prompts(a=[("train", ["1"])]))
    assert found["tasks"] == {}
    assert (found["overall"]["items"], found["overall"]["accuracy"]) == (0, None)
