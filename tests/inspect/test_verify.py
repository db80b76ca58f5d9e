"""`hir verify`: a run as it was committed has no problem; what is changed afterwards is reported for its version."""

import hashlib
import json
import shutil

import polars as pl
import pytest
from finished_run import commit, damage, drawn, hir, judged, make_run, triple, write_manifest

from hir_core.inspect.verify import check_run
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


@pytest.fixture
def store(small_run) -> Store:
    return small_run


def problems(store: Store) -> list[tuple[str, str]]:
    return [(problem["version"], problem["problem"]) for problem in check_run(store)["problems"]]


def rewrite(ref: VersionRef, table: pl.DataFrame, **facts: object) -> None:
    """Puts another table into a version as if it had been committed so: digests fit, and no check was made."""
    manifest = json.loads((ref.path / "manifest.json").read_text())
    for part in manifest["parts"]:
        (ref.path / part["name"]).unlink()
    path = ref.path / manifest["parts"][0]["name"]
    table.write_parquet(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    manifest["parts"] = [{"name": path.name, "rows": table.height, "bytes": path.stat().st_size, "sha256": digest}]
    write_manifest(ref.path, manifest | {"rows": table.height, "rows_in": None} | facts)


def test_a_run_as_it_was_committed_is_sound(store):
    found = check_run(store)
    files = [path for path in store.run_dir.rglob("*") if path.is_file() and path.name[0] not in ".m"]
    assert (found["run"], found["problems"]) == ("small", [])
    assert found["versions"] == len(list(store.run_dir.rglob("manifest.json"))) == 12
    assert (found["files"], found["bytes"]) == (len(files), sum(path.stat().st_size for path in files))


def test_one_changed_byte_of_any_file_is_found_where_it_is(store):
    files = [path for path in store.run_dir.rglob("*") if path.is_file() and path.name[0] not in ".m"]
    assert len(files) == 12 + 2  # two tables have two parts
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
        assert [version for version, _ in problems(store)] == [f"{path.parent.parent.name}/{path.parent.name}"]
        path.write_bytes(data)
    assert problems(store) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "part-1.parquet").unlink(), "part-1.parquet is missing"),
        (lambda folder: (folder / "part-9.parquet").write_bytes(b""), "part-9.parquet does not belong to it"),
        (lambda folder: damage(folder / "part-0.parquet"), "part-0.parquet has "),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "sub").mkdir(), "is a folder: a version holds plain files only"),
    ],
)
def test_damage_to_files_is_named(store, change, message):
    samples = store.resolve("samples@1")
    change(samples.path)
    ((version, problem),) = problems(store)
    assert version == str(samples)
    assert message in problem


def test_a_parent_that_is_gone_is_named_by_its_children(store):
    samples = store.resolve("samples@1")
    children = [store.resolve(text) for text in ("rewards@1", "triples@1")]
    shutil.rmtree(samples.path)
    assert problems(store) == [(str(ref), f"it is made from {samples}, which no longer exists") for ref in children]


def test_rows_that_name_no_row_of_a_parent_are_counted(store):
    parents = [store.resolve(text) for text in ("prompts@0", "models@2")]
    rows = [row | {"prompt_id": row["prompt_id"].replace("p", "q")} for row in drawn(1, parents[1])]
    samples = commit(store, "samples", 3, parents, rows)
    rewards = commit(store, "rewards", 3, [parents[0], samples], judged(2)[:3])
    assert problems(store) == [
        (str(samples), f"3 key(s) in prompt_id name no row of {parents[0]}: 'q1', 'q2', 'q3'"),
        (str(rewards), f"3 key(s) in sample_id name no row of {samples}: 's2p10', 's2p11', 's2p20'"),
    ]


def test_a_model_that_rows_name_must_be_a_parent(store):
    other = store.resolve("models@0")
    parents = [store.resolve(text) for text in ("prompts@0", "models@2")]
    samples = commit(store, "samples", 3, parents, drawn(1, other))
    assert problems(store) == [(str(samples), f"rows name {other} as their model, but no such model is a parent")]


def test_rows_without_any_parent_of_their_stage_are_reported(store):
    rewards = commit(store, "rewards", 3, [], judged(1)[:1])
    assert problems(store) == [
        (str(rewards), "1 key(s) in sample_id name rows of samples, but it has no such parent: 's1p10'")
    ]


def test_keys_counts_and_rules_are_checked_though_digests_fit(store):
    samples = store.resolve("samples@2")
    table = pl.concat([pl.read_parquet(path) for path in store.parts(samples)])
    rewrite(samples, pl.concat([table, table[:1]]))
    ((version, problem),) = problems(store)
    assert version == str(samples)
    assert "1 key(s) of Samples occur in several rows, the first sample_id 's2p10'" in problem
    rewrite(samples, table.with_columns(k=pl.lit(-1, pl.Int32)))
    assert "breaks rules of Samples" in problems(store)[0][1]
    rewrite(samples, table, rows=7)
    assert problems(store) == [(str(samples), "its parts have 6 rows together, expected 7")]


def test_rows_of_a_part_are_counted_though_their_sum_fits(store):
    folder = store.resolve("samples@1").path
    facts = json.loads((folder / "manifest.json").read_text())
    facts["parts"][0]["rows"], facts["parts"][1]["rows"] = 2, 4
    write_manifest(folder, facts)
    assert [problem for _, problem in problems(store)] == [
        "part-0.parquet has 3 rows, expected 2",
        "part-1.parquet has 3 rows, expected 4",
    ]


def test_demonstrations_without_samples_are_sound(store):
    rows = [triple(sample, True) | {"sample_id": None} for sample in drawn(1, store.resolve("models@0"))]
    commit(store, "triples", 0, [store.resolve("prompts@0")], rows)
    assert problems(store) == []


def test_a_table_without_a_column_of_its_schema_is_reported_though_digests_fit(store):
    samples = store.resolve("samples@2")
    table = pl.concat([pl.read_parquet(path) for path in store.parts(samples)])
    rewrite(samples, table.drop("seed"))
    ((version, problem),) = problems(store)
    assert version == str(samples)
    assert "part-0.parquet does not fit Samples: column `seed` is missing" in problem


def test_a_version_whose_manifest_names_other_columns_is_checked_by_the_same_schema(store):
    model = store.resolve("models@2")
    samples = commit(store, "samples", 3, [store.resolve("prompts@0"), model], drawn(1, model))
    table = pl.concat([pl.read_parquet(path) for path in store.parts(samples)]).drop("seed")
    identity = store.manifest(samples).identity.model_copy(update={"table_schema": "sample_id string"})
    moved = VersionRef("samples", identity.id, samples.path.rename(samples.path.with_name(identity.id)))
    rewrite(moved, table, id=identity.id, table_schema=identity.table_schema)
    ((version, problem),) = problems(store)
    assert version == str(moved)
    assert "does not fit Samples: column `seed` is missing" in problem


def test_several_problems_are_all_reported(store):
    for text in ("samples@1", "triples@2", "models@1"):
        ref = store.resolve(text)
        damage(next(path for path in ref.path.iterdir() if path.name != "manifest.json"))
    assert sorted(version.split("/")[0] for version, _ in problems(store)) == ["models", "samples", "triples"]


# --- the command -----------------------------------------------------------------------------------------------------


def test_verify_says_that_all_runs_are_sound(store, tmp_path):
    make_run(tmp_path / "others").run_dir.rename(tmp_path / "runs" / "other")
    lines = hir("verify").splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["other", "small"]
    assert all(line.endswith(" · sound") for line in lines)
    assert hir("verify", "small") == f"{lines[1]}\n"


def test_verify_names_what_is_damaged_and_ends_with_1(store):
    samples = store.resolve("samples@1")
    (samples.path / "part-\x1b.parquet").write_bytes(b"")
    first, second = hir("verify", code=1).splitlines()
    assert first.endswith(" · 1 damaged")
    assert second.startswith(f"  {samples}  differs from its manifest: part-\\x1b.parquet does not belong to it; ")
    (found,) = json.loads(hir("verify", "--json", code=1))
    assert [problem["version"] for problem in found["problems"]] == [str(samples)]


def test_verify_of_no_run_is_a_mistake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "runs holds no run" in hir("verify", code=2)
    assert "no run `none` in runs" in hir("verify", "none", code=2)
