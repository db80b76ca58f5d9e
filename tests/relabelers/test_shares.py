"""Samples drawn without replacement: what each stands for, and how much each is trained on."""

import types
from itertools import permutations

import polars as pl
import pytest
from relabel_tables import INSTRUCTIONS, tables

from hir_core.config import ExcludeWrongRelabel, HindsightRelabel, KeepCorrectRelabel, SelectConfig
from hir_core.inspect.diagnostics import graded_score
from hir_core.relabelers.registry import build_relabeler
from hir_core.relabelers.shares import share
from hir_core.stages.score import score_metrics


def shares_of(*probabilities: float) -> list[float]:
    rows = pl.DataFrame({"prompt_id": "p", "model": "m", "k": range(len(probabilities)), "probability": probabilities})
    return rows.reverse().with_columns(share=share()).sort("k")["share"].to_list()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_mean_over_all_draws_is_the_policys_mean(n):
    """Every sequence of n of five outputs, with its probability: an unbiased estimate of each output's probability."""
    p = [0.6, 0.25, 0.1, 0.04, 0.01]
    estimate = [0.0] * 5
    for drawn in permutations(range(5), n):
        probability, left = 1.0, 1.0
        for output in drawn:
            probability, left = probability * p[output] / left, left - p[output]
        shares = shares_of(*(p[output] for output in drawn))
        assert sum(shares) == pytest.approx(1)
        for output, value in zip(drawn, shares, strict=True):
            estimate[output] += probability * value
    assert estimate == pytest.approx(p, abs=1e-8)


def test_an_output_that_is_repeated_because_nothing_else_is_left_has_no_share_of_its_own():
    assert shares_of(1.0, 1.0, 1.0, 1.0) == pytest.approx([1, 0, 0, 0], abs=1e-8)


def test_unlikely_outputs_have_equal_shares_and_a_sure_one_nearly_all():
    assert shares_of(1e-30, 1e-40, 0.0) == pytest.approx([1 / 3] * 3)
    assert shares_of(0.98, 0.01, 0.001)[0] == pytest.approx(0.98, abs=0.01)
    assert min(shares_of(1.0, 0.0, 0.0)) > 0  # so that a right one among them can still be taught


def weights(config, *rows, draws=None, completions="abcdefgh", **select):
    """The triples' weights by sample, of rows of score and probability; `draws` are the numbers k of one model after
    another."""
    samples, rewards, prompts = tables(*(score for score, _ in rows), completions=completions[: len(rows)])
    logprobs = pl.Series([[float(pl.Series([p]).log().item())] for _, p in rows], dtype=samples.schema["logprobs"])
    numbers = draws or list(range(len(rows)))
    models = [str(numbers[: n + 1].count(0)) for n in range(len(rows))]
    samples = samples.with_columns(
        logprobs=logprobs, k=pl.Series(numbers, dtype=samples.schema["k"]), model=pl.Series(models)
    )
    relabeler = build_relabeler(config, INSTRUCTIONS, are_distinct=True)
    triples, _ = relabeler.relabel(samples, rewards, prompts, SelectConfig(**select))
    return dict(triples.select("sample_id", "weight").iter_rows())


def test_the_right_outputs_of_a_prompt_count_as_one_together():
    rows = ((1.0, 0.5), (0.0, 0.2), (1.0, 0.1), (None, 0.05))
    first, _, third, _ = shares_of(*(p for _, p in rows))
    kept = weights(KeepCorrectRelabel(type="keep_correct"), *rows)
    assert kept == pytest.approx({"s0": first / (first + third), "s2": third / (first + third)})
    assert weights(KeepCorrectRelabel(type="keep_correct"), (0.0, 0.9), (1.0, 0.001)) == pytest.approx({"s1": 1.0})


def test_each_instruction_shares_out_its_own_outputs_and_an_excluded_one_teaches_nothing_else():
    rows = ((1.0, 0.5), (0.0, 0.2), (0.0, 0.1))
    by_hindsight = weights(HindsightRelabel(type="hindsight"), *rows)
    assert by_hindsight["s0"] == 1
    assert by_hindsight["s1"] + by_hindsight["s2"] == pytest.approx(1)
    assert by_hindsight["s1"] > by_hindsight["s2"]
    assert weights(ExcludeWrongRelabel(type="exclude_wrong"), *rows) == {"s0": 1, "s1": 0, "s2": 0}


KEEP_CORRECT = KeepCorrectRelabel(type="keep_correct")


def test_each_iteration_that_is_learned_from_has_shares_of_its_own():
    """`select.replay`: a prompt that two models have answered counts twice."""
    rows = ((1.0, 0.6), (0.0, 0.3), (0.0, 0.5), (1.0, 0.4))
    assert weights(KEEP_CORRECT, *rows, draws=[0, 1, 0, 1]) == pytest.approx({"s0": 1, "s3": 1})


def test_what_is_not_kept_leaves_its_weight_to_the_others():
    rows = ((1.0, 0.9999), (0.0, 1e-5), (1.0, 0.9999))
    assert weights(KEEP_CORRECT, *rows, completions="aba", deduplicate=True) == pytest.approx({"s0": 1})


def test_a_score_of_right_or_wrong_is_not_graded_because_some_are_not_scored():
    shares = shares_of(0.5, 0.2, 0.1, 0.05)
    rewards = pl.DataFrame(
        {"prompt_id": "p", "outcome": ["no_answer", *["scored"] * 3], "score": [None, 1.0, 0.0, 0.0], "reason": "",
         "parts": None, "share": shares},
        schema_overrides={"parts": pl.List(pl.Struct({"name": pl.String, "score": pl.Float64}))},
    )  # fmt: skip
    manifest = types.SimpleNamespace(metrics=score_metrics(rewards, 1.0), rows=4)
    assert graded_score(manifest) is None
    unscored = score_metrics(rewards.with_columns(score=pl.lit(None, dtype=pl.Float64)), 1.0)
    assert (unscored["correct_share"], unscored["mean_score"]) == (0, None)
    assert score_metrics(rewards.clear(), 1.0)["pass_at"] == {}


def test_what_is_measured_of_distinct_samples_is_the_policys():
    probabilities, scores = (0.5, 0.2, 0.1, 0.05), (0.0, 1.0, 1.0, None)
    shares = shares_of(*probabilities)
    rewards = pl.DataFrame(
        {"prompt_id": "p", "outcome": "ok", "score": scores, "reason": "", "parts": None, "share": shares},
        schema_overrides={"parts": pl.List(pl.Struct({"name": pl.String, "score": pl.Float64}))},
    )
    measured = score_metrics(rewards, 1.0)
    assert measured["correct_share"] == pytest.approx(shares[1] + shares[2])
    assert measured["mean_score"] == pytest.approx((shares[1] + shares[2]) / sum(shares[:3]))
    assert measured["pass_at"] == pytest.approx({"1": shares[1] + shares[2], "4": 1.0})
