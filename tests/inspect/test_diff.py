"""The difference between two versions: on a small run by hand, on random tables against a count in plain Python."""

import json
import random

import pytest
from finished_run import LONG, NASTY, RIGHT, WRONG, commit, drawn, hir, judged, triple

from hir_core.errors import ConfigError, VersionNotFound
from hir_core.inspect.diff import Side, difference
from hir_core.store.store import Store


@pytest.fixture
def store(small_run) -> Store:
    return small_run


def between(store: Store, a: str, b: str, key: str | None = None) -> dict:
    return difference(Side(store, store.resolve(a)), Side(store, store.resolve(b)), key)


def counts(found: dict) -> tuple[int, ...]:
    return tuple(found[name] for name in ("same", "changed", "added", "removed"))


def test_samples_of_two_iterations_are_matched_by_prompt_and_k(store):
    found = between(store, "samples@1", "samples@2")
    assert counts(found) == (2, 4, 0, 0)  # the same: p1 k 0 says 2, p2 k 1 says 3
    assert found["columns"] == {"completion": 4, "completion_ids": 2, "finish_reason": 1}
    assert found["examples"][0]["about"] == {"prompt_id": "p1", "k": 1}
    assert found["examples"][0]["values"] == {"completion": {"a": "3", "b": "2"}}


def test_a_version_does_not_differ_from_itself(store):
    for text in ("prompts@0", "samples@1", "rewards@1", "triples@2", "evaluations@1"):
        found = between(store, text, text)
        assert not found["differs"]
        assert counts(found) == (found["rows"][0], 0, 0, 0)


def test_scores_shift(store):
    found = between(store, "rewards@1", "rewards@2")
    score = found["score"]
    assert (score["up"], score["down"]) == (1, 1)  # p1 k 1 was 0, p2 k 0 was 1; p3 k 0 had none before
    assert (score["a"]["mean"], score["b"]["share_correct"]) == (3 / 5, 4 / 6)
    assert between(store, "evaluations@1", "evaluations@2")["score"]["up"] == 1


def test_instructions_shift_and_rows_come_and_go(store):
    found = between(store, "triples@1", "triples@2")
    assert found["instructions"] == {"a": {RIGHT: 3, WRONG: 2}, "b": {RIGHT: 4, WRONG: 2}}
    assert counts(found) == (2, 3, 1, 0)  # p3 k 0 became a triple only in the second


def test_a_fork_of_the_relabeling_shows_what_it_relabels(store):
    parents = [store.resolve(text) for text in ("prompts@0", "samples@1", "rewards@1")]
    rows = [triple(sample, True) for sample in drawn(1, store.resolve("models@0")) if sample["k"] == 1]
    fork = commit(store, "triples", 1, parents, rows, {"other": 1})
    (original,) = (ref for ref in store.versions("triples") if ref.iteration == 1 and ref != fork)
    found = difference(Side(store, original), Side(store, fork))
    assert counts(found) == (1, 2, 0, 2)  # p2 k 1 was right before
    assert found["columns"] == {"contrast": 2, "instruction": 2}


def test_demonstrations_are_matched_by_their_prompt(store):
    shown = [triple(sample, True) | {"sample_id": None} for sample in drawn(1, store.resolve("models@0"))[:4:2]]
    other = [row | {"triple_id": f"x{n}", "output": "other" if n else row["output"]} for n, row in enumerate(shown)]
    parents = [store.resolve("prompts@0")]
    refs = [commit(store, "triples", 0, parents, rows, {"n": n}) for n, rows in enumerate((shown, other))]
    assert counts(difference(Side(store, refs[0]), Side(store, refs[1]))) == (1, 1, 0, 0)


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_counted_as_dictionaries_count_them(store, seed):
    rng, model, refs, sides = random.Random(seed), store.resolve("models@0"), [], []
    for n in range(2):
        rows = [row | {"completion": rng.choice("ab")} for row in drawn(1, model) if rng.random() < 0.7]
        sides.append({(row["prompt_id"], row["k"]): row["completion"] for row in rows})
        refs.append(commit(store, "samples", 5, [store.resolve("prompts@0"), model], rows, {"n": n}))
    a, b = sides
    found = difference(Side(store, refs[0]), Side(store, refs[1]))
    same = sum(a[key] == b[key] for key in a.keys() & b.keys())
    assert counts(found) == (same, len(a.keys() & b.keys()) - same, len(b.keys() - a.keys()), len(a.keys() - b.keys()))


def test_replayed_samples_are_matched_apart_from_new_ones_of_the_same_prompt(store):
    parents = [store.resolve(text) for text in ("prompts@0", "samples@1", "rewards@1", "samples@2", "rewards@2")]
    old, new = (drawn(n, store.resolve("models@0"))[0] for n in (1, 2))
    for label, samples in enumerate([[old, new], [new]]):
        commit(store, "triples", 3, parents, [triple(sample, sample is new) for sample in samples], {"n": label})
    refs = sorted(store.versions("triples")[-2:], key=lambda ref: -store.manifest(ref).rows)
    assert counts(difference(*(Side(store, ref) for ref in refs))) == (1, 0, 0, 1)


@pytest.mark.parametrize("key", ["p2", "s1p20", "s2p21"])
def test_a_key_shows_all_rows_about_it(store, key):
    rows = between(store, "samples@1", "samples@2", key)["of_key"]
    abouts = [(row["about"]["k"], row["values"]) for row in rows]
    changed, same = (0, {"completion": {"a": "3", "b": "4"}}), (1, {})
    assert abouts == {"p2": [changed, same], "s1p20": [changed], "s2p21": [same]}[key]


def test_what_cannot_be_compared_is_an_error(store):
    with pytest.raises(ConfigError, match="are of different stages: give two versions of one stage"):
        between(store, "samples@1", "rewards@1")
    with pytest.raises(VersionNotFound, match="holds no table"):
        between(store, "models@1", "models@2")
    with pytest.raises(VersionNotFound, match="neither version has a row about `zz`"):
        between(store, "samples@1", "samples@2", "zz")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_exit_code_says_whether_there_is_a_difference(store):
    assert "rows        6 → 6: 6 same · 0 changed · 0 added · 0 removed" in hir("diff", "samples@1", "samples@1")
    assert "rows        6 → 6: 2 same · 4 changed" in hir("diff", "samples@1", "small/samples@2", code=1)
    assert hir("diff", "samples@1", "rewards@1", code=2).startswith("error: samples/0001-")


def test_a_text_diff_shows_the_lines_that_changed(store):
    parents = [store.resolve(text) for text in ("prompts@0", "samples@1")]
    for n, reason in enumerate(("one\ntwo\nthree", "one\n2\x1b\nthree")):
        commit(store, "rewards", 4, parents, [row | {"reason": reason} for row in judged(1)], {"n": n})
    names = [str(ref) for ref in store.versions("rewards") if ref.iteration == 4]
    names.sort(key=lambda name: "two" not in hir("head", name, "--rows", "1"))
    lines = hir("diff", *names, "--key", "s1p10", code=1).splitlines()
    assert lines[-6:] == ["  reason", "    @ -1,3 +1,3", "      one", "    - two", "    + 2\\x1b", "      three"]


def test_hostile_texts_are_escaped_and_clipped(store):
    for arguments in (["--key", "p3"], []):
        shown = hir("diff", "samples@1", "samples@2", *arguments, code=1)
        assert r"\x1b[31m\x00 \u202eback" in shown
        assert not any(mark in shown for mark in "\x1b\x00\u202e")
        assert max(map(len, shown.splitlines())) <= 100
    whole = json.loads(hir("diff", "samples@1", "samples@2", "--key", "p3", "--json", code=1))["of_key"]
    assert [row["values"]["completion"]["a"] for row in whole] == [LONG, NASTY]
