"""A model whose outputs are as likely under either instruction, or are cut off, is diagnosed; the report says so."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from finished_run import commit, drawn, hir, prompt, trained
from report_runs import triple

from flows.report.summary import remarks
from hir_core.inspect.diagnostics import (
    cut_off_advice,
    distinguishes_instructions,
    graded_score,
    reward_advice,
    variety_advice,
)
from hir_core.inspect.report import build_report
from hir_core.store.manifest import Manifest, identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef
from hir_core.training.batches import collate
from hir_core.training.examples import Example
from hir_core.training.losses import Coefficients, contrastive

TWO = {"instructions": {"right": 30, "wrong": 70}, "contrasted": 100}
PARENT = VersionRef("models", "0000-00000000", Path("models/0000-00000000"))
TRAINING = {"contrastive": 1.0, "contrast": "instructions"}


def taught(
    store: Store,
    iteration: int,
    training: dict[str, Any],
    contrast: float | None,
    metrics: dict[str, Any],
    parents: Sequence[VersionRef] = (),
) -> tuple[VersionRef, VersionRef]:
    """A model and the triples it was trained on, which have these metrics."""
    rows = [triple(row, 1.0) for row in drawn(1, PARENT)]
    triples = commit(store, "triples", iteration, [], rows, rows_in=len(rows), metrics=metrics)
    draft = store.draft(identity("models", iteration, {"training": training}, [*parents, triples]))
    (draft.path / "config.json").write_text("{}")
    return draft.commit(metrics={} if contrast is None else {"contrastive": contrast}), triples


@pytest.mark.parametrize(
    ("training", "contrast", "metrics", "expected"),
    [
        (TRAINING, math.log(2), TWO, False),
        (TRAINING, 0.96 * math.log(2), TWO, False),
        (TRAINING, 0.94 * math.log(2), TWO, True),
        (TRAINING, None, TWO, None),
        (TRAINING | {"contrastive": 0.0}, 0.0, TWO, None),
        (TRAINING | {"contrast": "batch"}, math.log(4), TWO, None),
        (TRAINING, 0.7 * math.log(2), TWO | {"contrasted": 70}, None),  # the wrong ones alone: log 2 each
        (TRAINING, math.log(3), {"instructions": {"a": 1, "b": 1, "c": 1}, "contrasted": 3}, None),
        (TRAINING, 0.0, {"instructions": {"right": 3}, "contrasted": 0}, None),
        ({}, None, {}, None),
    ],
)
def test_a_contrast_near_log_2_is_that_of_a_model_that_does_not_tell_two_instructions_apart(
    tmp_path, training, contrast, metrics, expected
):
    store = Store(tmp_path / "run")
    model, triples = map(store.manifest, taught(store, 2, training, contrast, metrics))
    assert distinguishes_instructions(model, triples) is expected


def test_nothing_is_said_of_the_first_iteration(tmp_path):
    store = Store(tmp_path / "run")
    assert distinguishes_instructions(*map(store.manifest, taught(store, 1, TRAINING, math.log(2), TWO))) is None


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_contrast_of_equal_probabilities_is_log_2_however_it_is_measured(per_token, smoothing):
    """One triple of two tokens, -1 and -2 nats under either instruction."""
    batch = collate([Example("key", ((5,), (6,)), (), (7, 1), 1.0)], pad_id=0, decoder_start_id=None)
    coefficients = Coefficients(0.0, 1.0, 0.0, smoothing, per_token)
    loss = contrastive(torch.tensor([-1.0, -2.0, -1.0, -2.0]), batch, coefficients)
    assert loss.item() == pytest.approx(math.log(2))


def test_a_report_names_the_iterations_after_which_it_was_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    model = trained(store, 0, [commit(store, "prompts", 0, [], [prompt("p1", ("sums", "1 + 1?"))])])
    for iteration, contrast in ((1, math.log(2)), (2, math.log(2)), (3, 0.1), (4, math.log(2))):
        model, _ = taught(store, iteration, TRAINING, contrast, TWO, [model])
    report = build_report(store)
    assert [model.tells_apart for model in report.models.values()] == [None, None, False, True, False]
    sentence = remarks(report)[-1]
    assert sentence.startswith("After iterations 2, 4 the model hardly told the two instructions apart")


def test_what_a_report_says_of_it_is_what_the_manifests_say(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    taught(store, 2, TRAINING, 0.69, TWO)
    assert [model.tells_apart for model in build_report(store).models.values()] == [False]


@pytest.mark.parametrize(
    ("stage", "config", "advice"),
    [
        ("samples", {"sampling": {"max_new_tokens": 32}}, "38% cut off at 32 tokens: raise sampling.max_new_tokens"),
        ("evaluations", {"max_new_tokens": 8}, "38% cut off at 8 tokens: raise max_new_tokens"),
    ],
)
def test_many_outputs_that_are_cut_off_are_told_with_what_to_set(small_run, stage, config, advice):
    manifest = small_run.manifest(small_run.resolve(f"{stage}@1"))
    for cut_off, told in ((38, advice), (9, None), (0, None)):
        made = manifest.model_copy(update={"metrics": {"cut_off": cut_off}, "rows": 100, "config": config})
        assert cut_off_advice(made) == told
    assert cut_off_advice(manifest.model_copy(update={"metrics": {}})) is None  # made before this was counted


def test_a_report_tells_what_was_cut_off_last(tmp_path: Path) -> None:
    store = Store(tmp_path / "run")
    prompts = commit(store, "prompts", 0, [], [prompt("p1", ("sums", "1 + 1?"))])
    model = trained(store, 0, [prompts])
    for iteration, cut_off in ((1, 6), (2, 3)):
        rows, config = drawn(iteration, model), {"sampling": {"max_new_tokens": 32}}
        samples = commit(store, "samples", iteration, [prompts, model], rows, config, metrics={"cut_off": cut_off})
        model = trained(store, iteration, [model, commit(store, "triples", iteration, [prompts, samples], [])])
    share = f"{3 / len(drawn(2, model)):.0%}"
    assert f"The last samples: {share} cut off at 32 tokens: raise sampling.max_new_tokens." in remarks(
        build_report(store)
    )


@pytest.mark.parametrize(
    ("metrics", "advice"),
    [
        ({"correct_share": 0.0, "mean_score": 0.0}, "none of 100 outputs is correct"),
        (
            {"correct_share": 0.0, "mean_score": 0.4123},
            "none of 100 outputs is correct: their mean score is 0.412, and relabel.threshold 1",
        ),
        ({"correct_share": 1.0, "mean_score": 1.0}, "all of 100 outputs are correct: nothing is left to learn"),
        (
            {"correct_share": 0.2, "not_judged": 40, "no_answer": 20, "unscored_reasons": {"several": 35, "other": 25}},
            "60% of the outputs have no score, 35 of them because of: several",
        ),
        ({"correct_share": 0.2, "mean_score": 0.2, "not_judged": 50}, None),
        ({}, None),
    ],
)
def test_scores_that_teach_nothing_are_told_with_the_reason(small_run, metrics, advice):
    manifest = small_run.manifest(small_run.resolve("rewards@1"))
    made = manifest.model_copy(update={"metrics": metrics, "rows": 100, "config": {"threshold": 1.0}})
    assert reward_advice(made) == advice


@pytest.mark.parametrize(
    ("of_samples", "correct", "advice"),
    [
        ({"empty": 9, "repeated": 74}, 0.1, None),
        ({"empty": 10, "repeated": 99}, 0.1, "10% of the outputs are empty"),
        ({"empty": 0, "repeated": 75}, 0.5, None),  # most repeat the right answer
        ({"empty": 0, "repeated": 75}, 0.49, "75% only repeat another output of their prompt, and 49% are correct: "
         "raise sampling.temperature, or lower training.learning_rate"),
        ({}, 0.0, None),  # made before this was measured
    ],
)  # fmt: skip
def test_samples_that_are_empty_or_repeat_wrong_ones_are_told(small_run, of_samples, correct, advice):
    samples, rewards = (small_run.manifest(small_run.resolve(name)) for name in ("samples@1", "rewards@1"))
    samples = samples.model_copy(update={"metrics": of_samples, "rows": 100})
    rewards = rewards.model_copy(update={"metrics": {"correct_share": correct}})
    assert variety_advice(samples, rewards) == advice
    assert variety_advice(samples.model_copy(update={"rows": 15}), rewards) is None


def test_a_mean_score_is_told_where_scores_are_more_than_right_and_wrong(small_run):
    manifest = small_run.manifest(small_run.resolve("rewards@1"))

    def of(rows: int = 4, **metrics: Any) -> float | None:
        return graded_score(manifest.model_copy(update={"metrics": metrics, "rows": rows}))

    assert of(correct_share=0.25, mean_score=1 / 3, not_judged=1) is None  # 1, 0, 0 and one without a score
    assert of(correct_share=0.25, mean_score=0.5, not_judged=1) == 0.5  # 1, 0.5, 0
    assert of(overall={"accuracy": 0.5, "mean_score": 0.5, "judged": 4, "items": 4}) is None
    assert of(overall={"accuracy": 0.0, "mean_score": 0.3, "judged": 3, "items": 4}) == 0.3
    assert of(overall={"accuracy": 0.0, "mean_score": None, "judged": 0, "items": 4}) is None


def test_pass_at_k_entropy_and_mean_scores_are_in_stats_and_in_the_report(small_run, monkeypatch):
    measured = {
        "samples": {"empty": 3, "mean_logprob": -0.25},
        "rewards": {"correct_share": 0.5, "mean_score": 0.6, "pass_at": {"1": 0.5, "2": 0.75}},
    }
    read = Store.manifest

    def manifest(self: Store, ref: VersionRef) -> Manifest:
        found = read(self, ref)
        metrics = {**found.metrics, **measured.get(ref.stage, {})}
        return found.model_copy(update={"metrics": metrics})

    monkeypatch.setattr(Store, "manifest", manifest)
    assert "empty       3\nlog-prob.   -0.250 nats per token" in hir("stats", "samples@1")
    assert "correct     pass@1 50.0% · pass@2 75.0%" in hir("stats", "rewards@1")
    text = " ".join(remarks(build_report(small_run)))
    assert "75.0% have a correct one among 2 samples (pass@2), and a single sample is correct in 50.0% (pass@1)" in text
    assert "The mean score of the last samples is 0.600." in text
    assert "The entropy of a token, estimated from the samples, went from 0.250 to 0.250 nats" in text
