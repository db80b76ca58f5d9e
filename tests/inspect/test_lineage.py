"""The history of a row: its key leads up to its prompt and its model, and down to the models trained on it."""

import hashlib
import json

import polars as pl
import pytest
from finished_run import (
    LONG,
    QUERIES,
    RIGHT,
    SCORES,
    WRONG,
    commit,
    damage,
    hir,
    prompt,
    ruling_out,
    triple,
    write_manifest,
)

from hir_core.errors import SchemaError, VersionCorrupt, VersionNotFound
from hir_core.inspect.lineage import SampleHistory, row_history, trace
from hir_core.inspect.row_lookup import find_row
from hir_core.schemas import Samples
from hir_core.store.store import Store


@pytest.fixture
def store(small_run) -> Store:
    return small_run


def name(store: Store, text: str) -> str:
    return str(store.resolve(text))


# --- looking up a row ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stage", "key"),
    [
        ("p1", "prompts", "p1"),
        ("s2p31", "samples", "s2p31"),
        ("d2p30", "triples", "d2p30"),
        ("t", "prompts", "t1"),
    ],
)
def test_a_row_is_found_by_its_key_or_the_start_of_it(store, text, stage, key):
    version, row = find_row(store, text)
    assert (version.stage, row[{"prompts": "prompt_id", "samples": "sample_id", "triples": "triple_id"}[stage]]) == (
        stage,
        key,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("s1p1", "2 keys begin with `s1p1`: s1p10, s1p11; give more characters of one"),
        ("s", "12 keys begin with `s`: s1p10, s1p11, s1p20, s1p21, s1p30, …; give more characters of one"),
        ("zz", "no prompt, sample or triple of .* has the key `zz`"),
        ("", "has the key ``"),
    ],
)
def test_a_key_of_no_row_or_of_several_is_an_error(store, text, message):
    with pytest.raises(VersionNotFound, match=message):
        find_row(store, text)


def test_a_whole_key_is_not_taken_for_the_start_of_another(store):
    commit(store, "triples", 3, [store.resolve("prompts@0")], [demonstration("p12")])
    assert find_row(store, "p1")[1]["prompt_id"] == "p1"
    assert find_row(store, "p12")[1]["triple_id"] == "p12"


def demonstration(key: str) -> dict:
    sample = {"sample_id": "s", "prompt_id": "p1", "completion": "2", "completion_ids": [], "finish_reason": "eos"}
    return triple(sample, True) | {"triple_id": key, "sample_id": None, "target_ids": None}


def test_a_row_of_several_versions_is_read_from_the_last(store):
    commit(store, "prompts", 0, [], [prompt("p1", QUERIES["p1"])], {"n": 1})
    assert find_row(store, "p1")[0] == store.versions("prompts")[-1]
    assert row_history(store, "p1")["prompt"]["version"] == str(store.versions("prompts")[-1])


# --- hir row ---------------------------------------------------------------------------------------------------------


def test_a_prompt_has_all_its_samples_with_their_scores_and_triples(store):
    history = row_history(store, "p1")
    assert history["prompt"]["query"] == QUERIES["p1"][1]
    samples = [
        (sample["sample_id"], sample["completion"], sample["rewards"][0]["score"], sample["triples"][0]["instruction"])
        for sample in history["samples"]
    ]
    assert samples == [
        ("s1p10", "2", 1.0, RIGHT),
        ("s1p11", "3", 0.0, WRONG),
        ("s2p10", "2", 1.0, RIGHT),
        ("s2p11", "2", 1.0, RIGHT),
    ]
    versions = [sample["version"] for sample in history["samples"][1:3]]
    assert versions == [name(store, "samples@1"), name(store, "samples@2")]


def test_every_sample_stands_in_the_history_of_one_prompt(store):
    samples = [sample for key in QUERIES for sample in row_history(store, key)["samples"]]
    assert len({sample["sample_id"] for sample in samples}) == len(samples) == 12
    assert [sample["rewards"][0]["score"] for sample in samples if sample["iteration"] == 1] == SCORES[1]
    triples = sum("triple_id" in sample["triples"][0] for sample in samples)
    assert triples == store.manifest(store.resolve("triples@1")).rows + 6


def test_a_sample_in_a_history_has_every_column_of_its_table():
    made = {"version", "iteration", "rewards", "instructions", "triples"}
    assert set(SampleHistory.__annotations__) - made == set(Samples.column_names())


@pytest.mark.parametrize(("key", "sample"), [("s1p11", "s1p11"), ("d1p11", "s1p11")])
def test_a_sample_or_a_triple_leaves_only_this_sample(store, key, sample):
    history = row_history(store, key)
    assert [row["sample_id"] for row in history["samples"]] == [sample]
    assert history["prompt"]["prompt_id"] == "p1"


def test_an_iteration_leaves_only_its_own(store):
    assert [row["sample_id"] for row in row_history(store, "p1", 2)["samples"]] == ["s2p10", "s2p11"]
    assert row_history(store, "p1", 7)["samples"] == []
    assert [row["completion"] for row in row_history(store, "t1", 2)["evaluations"]] == ["4"]


def test_a_sample_without_a_triple_names_the_version_that_left_it_out(store):
    (sample,) = row_history(store, "s1p30")["samples"]
    assert (sample["completion"], sample["rewards"][0]["score"]) == (LONG, None)
    assert sample["triples"] == [{"version": name(store, "triples@1")}]


def test_a_demonstration_has_no_sample(store):
    ref = commit(store, "triples", 0, [store.resolve("prompts@0")], [demonstration("shown")])
    for key in ("shown", "p1"):
        assert [row["version"] for row in row_history(store, key)["demonstrations"]] == [str(ref)]
    assert row_history(store, "shown")["samples"] == []


def test_a_fork_stands_beside_what_it_forks_from(store):
    parents = [store.resolve(text) for text in ("prompts@0", "samples@1", "rewards@1")]
    sample = row_history(store, "s1p10")["samples"][0]
    commit(store, "triples", 1, parents, [triple(sample, False)], {"other": 1})
    (history,) = row_history(store, "s1p10")["samples"]
    assert sorted(row["instruction"] for row in history["triples"]) == [RIGHT, WRONG]


# --- hir trace -------------------------------------------------------------------------------------------------------


def test_a_sample_leads_up_to_its_writer_and_down_to_the_model_trained_on_it(store):
    (sample,) = trace(store, "s2p11")["samples"]
    assert sample["model"]["version"] == name(store, "models@1")
    assert sample["model"]["parents"] == [name(store, "models@0"), name(store, "triples@1")]
    (below,) = sample["triples"]
    assert (below["triple_id"], below["version"]) == ("d2p11", name(store, "triples@2"))
    (model,) = below["models"]
    assert (model["version"], model["loss"]) == (name(store, "models@2"), 0.0)
    assert model["evaluations"] == [name(store, "evaluations@2")]


def test_a_sample_and_its_triple_have_the_same_trace(store):
    traces = [trace(store, key)["samples"] for key in ("s1p20", "d1p20")]
    assert traces[0] == traces[1]
    assert traces[0][0] in trace(store, "p2")["samples"]


def test_a_damaged_version_on_the_way_is_an_error(store):
    damage(store.parts(store.resolve("rewards@2"))[0])
    assert trace(store, "s1p10")
    with pytest.raises(VersionCorrupt, match="rewards/0002-"):
        trace(store, "s2p10")


# --- the commands ----------------------------------------------------------------------------------------------------


def test_row_shows_both_instructions_side_by_side(store):
    shown = hir("row", "s1p11")
    assert f"    {RIGHT:<46} │ {WRONG}\n" in shown
    assert "score       0 · says 0.0 (rewards/0001-" in shown
    assert f"    {RIGHT:<46} │ left out\n" in hir("row", "small/s1p30")


def test_row_escapes_and_folds_hostile_texts(store):
    shown = hir("row", "p3")
    assert r"query       red \x1b[31m\x00 \u202eback\nline" in shown
    assert "more characters)" in shown
    assert not any(mark in shown for mark in "\x1b\x00\u202e")
    assert max(map(len, shown.splitlines())) <= 100


def test_trace_escapes_and_clips_hostile_texts(store):
    shown = hir("trace", "p3")
    assert r"red \x1b[31m\x00" in shown
    assert not any(mark in shown for mark in "\x1b\x00\u202e")
    assert "x…" in shown


def test_trace_has_a_line_for_every_version_on_the_way(store):
    lines = [line.split()[:2] for line in hir("trace", "s2p11").splitlines()[1:]]
    expected = ["prompts@0", "models@1", "samples@2", "rewards@2", "triples@2", "models@2"]
    assert [version for _, version in lines] == [name(store, text) for text in expected]
    assert [what for what, _ in lines] == ["prompt", "model", "sample", "reward", "triple", "model"]


def test_both_give_json(store):
    assert json.loads(hir("row", "p1", "--json"))["samples"][0]["logprobs"] == [-0.5]
    assert json.loads(hir("trace", "runs/small/s1p10", "--json"))["stage"] == "samples"


def test_the_run_may_be_named_in_front(store, tmp_path, monkeypatch):
    (tmp_path / "runs" / "other" / "samples").mkdir(parents=True)
    assert hir("row", "p1") == hir("row", "small/p1")
    assert hir("row", "small/p1").startswith("prompt p1 · ")
    assert "no run `none`" in hir("trace", "none/p1", code=2)
    monkeypatch.chdir(tmp_path / "runs" / "small")
    assert hir("row", "p1").startswith("prompt p1 · sums · train · prompts/0000-")
    assert hir("head", "samples@2", "--rows", "1", "--columns", "k")


# --- outputs that are ruled out --------------------------------------------------------------------------------------


def test_row_says_under_which_instruction_an_output_is_ruled_out_and_by_how_much(store):
    version = ruling_out(store)
    found = f'ruled out under "{RIGHT}": probability 0.125 when sampled, 75 % of it taken away'
    only, both = (relabeled_column(hir("row", key), str(version)) for key in ("s1p31", "s1p11"))
    assert (only, both) == (found, f"{WRONG} {found}")


def relabeled_column(text, version):
    """The right side of the two columns below the version's name, as one line."""
    cells = [line.partition("│")[2].strip() for line in text.split(f"relabeled ({version})")[1].splitlines()[1:]]
    return " ".join(cells[: cells.index("") if "" in cells else None])


def test_trace_says_that_an_output_is_ruled_out(store):
    version = str(ruling_out(store))
    lines = hir("trace", "s1p31").splitlines()
    (place,) = [n for n, line in enumerate(lines) if version in line]
    assert lines[place].endswith(f'e1p31  ruled out under "{RIGHT}"')
    assert lines[place + 1].strip() == "probability 0.125 when sampled, 75 % of it taken away"
    both = [line for line in hir("trace", "s1p11").splitlines() if version in line]
    assert [line.split("e1p11")[1].strip() for line in both] == [WRONG, f'ruled out under "{RIGHT}"']
    (traced,) = [row for row in trace(store, "s1p31")["samples"][0]["triples"] if row["version"] == version]
    assert (traced["weight"], traced["excluded_from"], traced["removed"], traced["probability"]) == (
        0,
        RIGHT,
        0.75,
        0.125,
    )


def test_triples_of_an_earlier_hir_have_no_such_columns_and_are_shown_or_refused_in_words(store):
    ref = store.resolve("triples@1")
    (part,) = store.parts(ref)
    before = pl.read_parquet(part).drop("excluded_from", "removed", "probability")
    before.write_parquet(part)
    facts = json.loads((ref.path / "manifest.json").read_text())
    facts["parts"][0] |= {"bytes": part.stat().st_size, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
    write_manifest(ref.path, {name: value for name, value in facts.items() if name != "sha256"})
    assert WRONG in hir("row", "s1p11")
    assert WRONG in hir("trace", "s1p11")
    for command in (("stats", "triples@1"), ("diff", "triples@1", "triples@2")):
        assert "column `excluded_from` is missing" in hir(*command, code=SchemaError.exit_code)
