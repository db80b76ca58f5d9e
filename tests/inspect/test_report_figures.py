"""The figures of a report against what plain reads of the same Parquet files say, and the course that they follow."""

import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from finished_run import RIGHT, WRONG, commit, damage, drawn, prompt, trained
from report_runs import TESTED, evaluated, judged, make_run, triple, without_columns

from hir_core.errors import VersionCorrupt
from hir_core.inspect.history import history
from hir_core.inspect.report import report
from hir_core.store.graph import VersionGraph
from hir_core.store.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return make_run(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="module")
def facts(store) -> dict[str, Any]:
    return report(store)


def rows_of(store: Store, stage: str, iteration: int) -> list[dict[str, Any]]:
    """A table as anybody reads it, by Python."""
    (folder,) = store.run_dir.glob(f"{stage}/{iteration:04}-*")
    return [row for path in sorted(folder.glob("*.parquet")) for row in pl.read_parquet(path).to_dicts()]


def rounds(facts: dict[str, Any], stage: str) -> Iterator[tuple[int, dict[str, Any]]]:
    return ((one["iteration"], one[stage]) for one in facts["rounds"] if one["iteration"])


# --- figures ---------------------------------------------------------------------------------------------------------


def test_samples_are_counted_as_their_table_has_them(store, facts):
    for n, found in rounds(facts, "samples"):
        rows = rows_of(store, "samples", n)
        lengths = sorted(len(row["completion_ids"]) for row in rows)
        assert (found["rows"], found["prompts"]) == (len(rows), len({row["prompt_id"] for row in rows}))
        assert found["distinct"] == len({(row["prompt_id"], row["completion"]) for row in rows})
        assert found["finish_reasons"] == Counter(row["finish_reason"] for row in rows)
        assert (found["tokens_each"]["min"], found["tokens_each"]["max"]) == (lengths[0], lengths[-1])


def test_scores_share_their_bars_over_all_rounds(store, facts):
    assert facts["score_bins"] == [[0.0, 0.0], [0.25, 0.25], [1.0, 1.0]]
    for n, found in rounds(facts, "rewards"):
        scores = [row["score"] for row in rows_of(store, "rewards", n)]
        assert found["histogram"] == [scores.count(bar) for bar in (0.0, 0.25, 1.0)]
        assert (found["right"], found["not_judged"]) == (scores.count(1.0), scores.count(None))
        assert sum(found["histogram"]) + found["not_judged"] == found["rows"]


def test_prompts_are_mixed_where_their_samples_are_right_and_wrong(facts):
    """1: p1 is [1, 0], p2 [0.25, null], p3 [0, 0]. 2: p1 is [1, 1], p2 [0.25, 1], p3 [null, 0]."""
    assert [one["mixed_prompts"] for _, one in rounds(facts, "samples")] == [1, 1]


def test_a_sample_trains_where_a_triple_with_weight_has_it_in_its_own_round(store, facts):
    for n, found in rounds(facts, "triples"):
        own = {row["sample_id"] for row in rows_of(store, "samples", n)}
        used = {row["sample_id"] for row in rows_of(store, "triples", n) if row["weight"] > 0} & own
        assert (found["samples_trained"], found["samples"]) == (len(used), len(own))
        assert found["samples_trained"] == 4  # of six one is not judged, and one weighs nothing


def test_instructions_are_counted_with_how_many_of_their_outputs_are_right(store, facts):
    right = {row["sample_id"] for n in (1, 2) for row in rows_of(store, "rewards", n) if (row["score"] or 0) >= 1}
    for n, found in rounds(facts, "triples"):
        rows = rows_of(store, "triples", n)
        for told in found["instructions"]:
            mine = [row for row in rows if row["instruction"] == told["instruction"]]
            assert told["name"] == {RIGHT: "correct", WRONG: "wrong"}[told["instruction"]]
            assert (told["rows"], told["right"]) == (len(mine), sum(row["sample_id"] in right for row in mine))
        assert sum(told["rows"] for told in found["instructions"]) + 1 == found["rows_in"]


def test_accuracies_and_changed_answers_are_those_of_the_tables(store, facts):
    tables = {n: [row for row in rows_of(store, "evaluations", n) if row["task"] == "sums"] for n in TESTED}
    right = {n: {row["prompt_id"] for row in rows if row["score"] == 1} for n, rows in tables.items()}
    for one in facts["rounds"]:
        assert one["evaluation"]["overall"]["accuracy"] == len(right[one["iteration"]]) / 12
    assert facts["answers"] == {"became_right": 6, "became_wrong": 0, "stayed_right": 3, "stayed_wrong": 3}
    risen = right[2] - right[0] | {"tw0", "tw1"}
    assert {one["prompt_id"] for one in facts["picks"]["changed"]} <= risen


def test_measurements_are_passed_on_and_missing_ones_are_none(facts):
    first, second, _ = (one["model"] for one in facts["rounds"])
    assert (first["loss"], second["loss"], second["step_seconds"], second["peak_bytes"]) == (None, 1.0, 1.5, 2e9)
    assert second["tokens_per_s"] is None


# --- rows worth reading ----------------------------------------------------------------------------------------------


def test_the_best_and_worst_outputs_are_of_prompts_of_their_own(store, facts):
    last = facts["picks"]["rounds"][-1]
    assert [one["score"] for one in last["best"]] == [1.0, 1.0, 0.0]
    assert [one["score"] for one in last["worst"]] == [0.0, 0.25, 1.0]
    assert [one["sample_id"] for one in last["not_judged"]] == ["s2p30"]
    wrong = last["worst"][0]
    assert (wrong["asked"]["instruction"]["text"], wrong["asked"]["query"]["text"]) == (RIGHT, "1 + 3?")
    assert [triple["instruction"]["text"] for triple in wrong["became"]] == [WRONG]
    assert math.isclose(wrong["logprob"], -0.5)


def test_long_texts_are_cut_and_say_by_how_much(store, facts):
    shown = [one["completion"] for one in facts["picks"]["rounds"][0]["worst"]]
    long = next(text for text in shown if text["more"])
    assert (len(long["text"]), len(long["text"]) + long["more"]) == (600, 10_000)


# --- the course ------------------------------------------------------------------------------------------------------


def copy_of(store: Store, folder: Path) -> Store:
    return Store(Path(shutil.copytree(store.run_dir, folder / "small")))


def test_forks_stay_out_and_are_named(store, tmp_path):
    here = copy_of(store, tmp_path)
    main = here.resolve("models@2")
    before, triples = (here.resolve(name) for name in here.manifest(main).parents)
    fork = trained(here, 3, [before, triples], loss=9.0)
    assert report(here)["model"] == str(fork)  # the newest
    assert report(here)["forks"] == [str(main)]
    found = report(here, main)
    assert (found["model"], found["forks"]) == (str(main), [str(fork)])
    assert all(str(fork) != one["version"] for one in found["versions"])


def test_what_of_the_next_round_is_there_belongs_to_the_course(store, tmp_path):
    here = copy_of(store, tmp_path)
    prompts, model = here.resolve("prompts@0"), here.resolve("models@2")
    samples = commit(here, "samples", 3, [prompts, model], drawn(1, model))
    assert [one.samples for one in history(VersionGraph(here))][-1] == samples
    last = report(here)["rounds"][-1]
    assert (last["iteration"], last["samples"]["rows"], last["rewards"], last["model"]) == (3, 6, None, None)


def test_evaluations_under_other_settings_are_kept_apart(store, tmp_path):
    here = copy_of(store, tmp_path)
    prompts, model = here.resolve("prompts@0"), here.resolve("models@2")
    other = evaluated(here, 2, prompts, model, {"threshold": 1.0, "max_new_tokens": 99})
    found = report(here)
    assert found["rounds"][-1]["evaluation"]["version"] != str(other)
    assert [point["version"] for point in found["further"][0]["points"]] == [str(other)]


# --- runs that have little -------------------------------------------------------------------------------------------


def test_a_run_that_was_only_begun_has_prompts_and_nothing_else(tmp_path):
    store = Store(tmp_path / "begun")
    commit(store, "prompts", 0, [], [prompt("p1", ("sums", "1 + 1?"))])
    found = report(store)
    assert (found["rounds"], found["model"], found["answers"]) == ([], None, None)
    assert found["prompts"]["tasks"] == {"sums": {"train": 1}}
    assert report(Store(tmp_path / "nothing"))["prompts"] is None


def test_where_nothing_was_judged_there_is_no_score(tmp_path):
    store = Store(tmp_path / "mute")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    samples = commit(store, "samples", 1, [prompts, model], drawn(1, model))
    rows = [
        {"sample_id": s["sample_id"], "reward": "r", "score": None, "reason": "?", "parts": []} for s in drawn(1, model)
    ]
    commit(store, "rewards", 1, [prompts, samples], rows)
    found = report(store)
    assert found["score_bins"] == []
    assert found["rounds"][-1]["rewards"]["mean"] is None
    told = found["picks"]["rounds"][0]
    assert (told["best"], told["worst"], len(told["not_judged"])) == ([], [], 3)


def test_a_column_that_a_table_does_not_have_counts_as_null(store, tmp_path):
    here = copy_of(store, tmp_path)
    without_columns(here, "samples@1", ["logprobs", "completion_ids", "finish_reason"])
    one = report(here)["rounds"][1]["samples"]
    assert (one["rows"], one["tokens_each"], one["finish_reasons"]) == (6, None, {})
    assert report(here)["picks"]["rounds"][0]["worst"][0]["logprob"] is None


def test_a_damaged_version_is_not_told_of(store, tmp_path):
    here = copy_of(store, tmp_path)
    damage(here.parts(here.resolve("rewards@1"))[0])
    with pytest.raises(VersionCorrupt, match="rewards/0001-"):
        report(here)


def test_figures_are_plain_json(facts):
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_many_different_scores_are_put_into_ten_bars(tmp_path):
    store = Store(tmp_path / "graded")
    prompts = commit(store, "prompts", 0, [], [prompt(f"p{n}", ("sums", "1?")) for n in (1, 2, 3)])
    model = trained(store, 0, [prompts])
    told, numbers = [], random.Random(0)
    for iteration in (1, 2):
        samples = commit(store, "samples", iteration, [prompts, model], drawn(iteration, model))
        values = [numbers.gauss(0, 1) for _ in range(6)]
        rows = drawn(iteration, model)
        rewards = commit(store, "rewards", iteration, [prompts, samples], judged(rows, values))
        triples = commit(store, "triples", iteration, [prompts, samples, rewards], [triple(rows[0], 1.0)])
        model = trained(store, iteration, [model, triples])
        told.append(values)
    found = report(store)
    edges = found["score_bins"]
    assert len(edges) == 10
    assert (edges[0][0], edges[-1][1]) == (min(map(min, told)), max(map(max, told)))
    for values, one in zip(told, found["rounds"][1:], strict=True):
        inside = [sum(low <= v < high or (v == high == edges[-1][1]) for v in values) for low, high in edges]
        assert one["rewards"]["histogram"] == inside
