"""Rows of a table: the first rows as they were written, rows that a filter keeps, and fair random draws by a seed."""

import json
import random
from collections import Counter

import polars as pl
import pytest
from finished_run import LONG, commit, damage, drawn, hir

from hir_core.errors import ConfigError, VersionCorrupt, VersionNotFound
from hir_core.inspect.rows import head
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


@pytest.fixture
def store(small_run) -> Store:
    return small_run


@pytest.fixture
def samples(store) -> VersionRef:
    return store.resolve("samples@1")


def keys(rows: pl.DataFrame) -> list[str]:
    return rows["sample_id"].to_list()


def test_the_first_rows_are_those_written_first_over_all_parts(store, samples):
    assert len(store.parts(samples)) == 2
    assert keys(head(store, samples, 4)) == ["s1p10", "s1p11", "s1p20", "s1p21"]
    assert keys(head(store, samples, 99)) == [row["sample_id"] for row in drawn(1, samples)]
    assert head(store, samples, 0).columns == head(store, samples, 1).columns


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("k = 0", ["s1p10", "s1p20", "s1p30"]),
        ("finish_reason = 'length'", ["s1p30"]),
        ("completion = '3' and prompt_id <> 'p1'", ["s1p20", "s1p21"]),
        ("array_length(completion_ids) > 1 or k > 7", ["s1p30", "s1p31"]),
        ("k > 7", []),
    ],
)
def test_an_expression_chooses_rows(store, samples, where, expected):
    assert keys(head(store, samples, 9, where)) == expected
    assert sorted(keys(head(store, samples, 9, where, seed=0))) == expected


def test_columns_come_in_the_order_of_the_request(store, samples):
    assert head(store, samples, 1, columns=["k", "completion"]).rows() == [(0, "2")]
    assert head(store, samples, 1, "k = 1 and prompt_id = 'p1'", ["completion"], seed=0).rows() == [("3",)]


@pytest.mark.parametrize(
    ("where", "columns", "message"),
    [
        (None, ["completoin"], "no column `completoin`; did you mean `completion`?"),
        (None, [""], "no column ``; there are sample_id, "),
        ("", [], "`` is not a valid filter"),
        ("k", [], "`k` is not a valid filter: filter predicate must be of type `Boolean`"),
        ("nope = 1", [], 'unable to find column "nope"'),
        ("k = 1; drop table x", [], "is not a valid filter"),
        ("read_csv('/etc/passwd')", [], "unsupported function 'read_csv'"),
        ("completion ~ '('", [], "is not a valid filter: regex error"),
    ],
)
def test_a_wrong_filter_or_column_is_explained_in_one_line(store, samples, where, columns, message):
    for seed in (None, 0):
        with pytest.raises(ConfigError) as caught:
            head(store, samples, 3, where, columns, seed)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_same_seed_draws_the_same_rows_however_the_table_is_cut(tmp_path):
    rows = drawn(1, VersionRef("models", "0000-00000000", tmp_path))
    cuts = [commit(Store(tmp_path / str(parts)), "samples", 1, [], rows, parts=parts) for parts in (1, 3)]
    cuts.append(commit(Store(tmp_path / "backwards"), "samples", 1, [], rows[::-1], parts=6))
    draws = [keys(head(Store(ref.path.parent.parent), ref, 4, seed=5)) for ref in cuts]
    assert draws[0] == draws[1] == draws[2]
    assert draws[0] == random.Random(5).sample(sorted(row["sample_id"] for row in rows), 4)


def test_every_row_is_drawn_equally_often(store, samples):
    draws = [head(store, samples, 2, columns=["sample_id"], seed=seed) for seed in range(60)]
    counts = Counter(key for rows in draws for key in keys(rows))
    assert len(counts) == 6
    assert all(8 <= count <= 32 for count in counts.values())  # 20 expected, standard deviation 3.7


def test_rows_are_not_read_from_a_damaged_version_or_a_model(store, samples):
    with pytest.raises(VersionNotFound, match="holds no table"):
        head(store, store.resolve("models@1"), 1)
    with pytest.raises(VersionNotFound, match="holds no table"):
        head(store, store.resolve("models@1"), 1, seed=0)
    damage(store.parts(samples)[1])
    for seed in (None, 0):
        with pytest.raises(VersionCorrupt, match=r"part-1\.parquet has"):
            head(store, samples, 1, seed=seed)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [[], ["--seed", "0"]], ids=str)
def test_long_texts_are_folded_and_nothing_acts_on_the_terminal(store, seed):
    shown = hir("head", "samples@1", *seed, "--columns", "completion", "--where", "prompt_id = 'p3'")
    assert r"red \x1b[31m\x00 \u202eback\nline" in shown
    assert f"… ({10_000 - 4 * (100 - 14):,} more characters)" in shown
    assert not any(mark in shown for mark in "\x1b\x00\u202e")
    assert max(map(len, shown.splitlines())) <= 100


@pytest.mark.parametrize("seed", [[], ["--seed", "0"]], ids=str)
def test_json_has_whole_rows(store, seed):
    rows = json.loads(hir("head", "small/samples@1", *seed, "--where", "prompt_id = 'p3' and k = 0", "--json"))
    assert [(row["sample_id"], row["completion"], row["logprobs"]) for row in rows] == [("s1p30", LONG, [-0.5] * 9)]


def test_head_says_when_there_are_no_rows(store):
    assert hir("head", "samples@1", "--where", "k > 5") == "no rows\n"
    assert json.loads(hir("head", "samples@1", "--seed", "0", "--rows", "0", "--json")) == []


def test_head_with_a_seed_shows_the_rows_that_the_seed_draws(store, samples):
    rows = json.loads(hir("head", "samples@1", "--rows", "3", "--seed", "4", "--json"))
    drawn_keys = random.Random(4).sample(sorted(row["sample_id"] for row in drawn(1, samples)), 3)
    assert [row["sample_id"] for row in rows] == drawn_keys


def test_the_number_of_rows_is_given_as_to_the_program_head(store):
    for command in ("head", "show"):
        assert hir(command, "samples@1", "-n", "1") == hir(command, "samples@1", "--rows", "1")
    assert hir("head", "samples@1", "-n", "1").count("row 1") == 1
    assert "row 2" not in hir("head", "samples@1", "-n", "1")


def test_there_is_no_command_named_as_the_stage(store):
    assert "No such command 'sample'" in hir("sample", "samples@1", code=2)


def test_what_was_typed_wrong_ends_with_2_and_damage_with_1(store, samples):
    assert "no version `samples@9`" in hir("head", "samples@9", code=2)
    assert "holds no table" in hir("head", "models@1", "--seed", "0", code=2)
    assert "\\x1b" in hir("head", "samples@1", "--where", "\x1b", code=2)
    damage(store.parts(samples)[0])
    assert "differs from its manifest" in hir("head", "samples@1", code=1)
