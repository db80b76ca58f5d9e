"""The store: commits, refusals, damage, references and locks, each with real files and processes."""

import os
import random
import signal
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pytest
from store_tables import SAMPLES, THIS, commit, fork, names, rewards, script

from hir_core.errors import RunLocked, SchemaError, StoreError, VersionCorrupt, VersionNotFound
from hir_core.schemas import Prompts, Rewards
from hir_core.store.files import read_json, read_parts, write_json
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "run")


# --- commit and read -------------------------------------------------------------------------------------------------


def test_a_committed_table_opens_with_plain_polars_and_duckdb(store):
    ref = commit(store)
    glob = str(ref.path / "part-*.parquet")
    expected = ["a0", "a1", "a2", "b0", "b1"]
    assert pl.scan_parquet(glob).collect()["sample_id"].sort().to_list() == expected
    assert [key for (key,) in duckdb.sql(f"select sample_id from '{glob}' order by 1").fetchall()] == expected
    assert store.table(ref).collect()["sample_id"].sort().to_list() == expected
    assert names(ref.path) == ["manifest.json", "part-a.parquet", "part-b.parquet"]


def listed(*parts: tuple[str, float | None]) -> list[dict[str, object]]:
    return [{"name": name, "score": score} for name, score in parts]


def with_parts(*rows: list[dict[str, object]]) -> pl.DataFrame:
    return rewards(len(rows)).with_columns(parts=pl.Series(rows, dtype=Rewards.create_empty().schema["parts"]))


def test_attributes_of_a_score_are_a_list_that_plain_polars_and_duckdb_open(store):
    rows = listed(("brevity", 0.5), ("correctness", None)), listed()
    ref = commit(store, a=with_parts(*rows))
    assert store.table(ref).collect().sort("sample_id")["parts"].to_list() == list(rows)
    glob = str(ref.path / "part-*.parquet")
    long = pl.scan_parquet(glob).select("sample_id", "parts").explode("parts").unnest("parts").collect()
    assert sorted(long.drop_nulls("name").rows()) == [("s0", "brevity", 0.5), ("s0", "correctness", None)]
    query = f"select sample_id, part.name, part.score from '{glob}', unnest(parts) as t(part) order by all"
    assert duckdb.sql(query).fetchall() == [("s0", "brevity", 0.5), ("s0", "correctness", None)]
    assert duckdb.sql(f"select parts from '{glob}' order by sample_id").fetchall() == [(row,) for row in rows]


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        (listed(("b", 1.0), ("a", 1.0)), "part_names_are_unique_and_sorted"),
        (listed(("a", 1.0), ("a", 1.0)), "part_names_are_unique_and_sorted"),
        (listed(("a", float("nan"))), "parts inner_inner_score_nan"),
    ],
)
def test_attributes_without_order_or_a_finite_score_are_refused(store, parts, rule):
    refused(store, SchemaError, f"`{rule}` in 1, the first sample_id 's1'", a=with_parts(listed(("a", None)), parts))


def test_a_version_is_found_by_what_decides_it_and_by_nothing_else(store):
    assert store.find(THIS) is None
    ref = commit(store)
    assert store.find(THIS) == ref == VersionRef("rewards", THIS.id, store.run_dir / "rewards" / THIS.id)
    assert (str(ref), ref.iteration) == (f"rewards/{THIS.id}", 3)
    assert store.find(identity("rewards", 3, {"type": "option_choice"}, [SAMPLES])) is None
    assert store.find(identity("rewards", 3, {"type": "exact_match"}, ["samples/0003-ab12cd35"])) is None


def test_two_identities_with_the_same_id_are_not_confused(store):
    first, other = (identity("rewards", 3, {"n": n}, []) for n in (34000, 81420))  # found by search
    assert first.id == other.id
    commit(store, first)
    with pytest.raises(StoreError, match="whose id happens to be the same; change `seed`"):
        store.find(other)


def test_a_manifest_records_identity_parts_counts_and_metrics(store):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    ref = draft.commit(rows_in=5, rejected={"blank": 2}, metrics={"time_s": 1.5, "loss": float("nan")})
    manifest = store.manifest(ref)
    assert manifest.identity == THIS
    assert [(part.name, part.rows) for part in manifest.parts] == [("part-a.parquet", 3)]
    assert (manifest.rows, manifest.rows_in, manifest.rejected) == (3, 5, {"blank": 2})
    assert manifest.metrics == {"time_s": 1.5, "loss": None}


def test_a_model_is_a_version_of_plain_files(store):
    draft = store.draft(identity("models", 1, {}, ["triples/0000-ab12cd34"]))
    (draft.path / "config.json").write_text("{}")
    (draft.path / "model-00001-of-00001.safetensors").write_bytes(b"weights")
    (draft.path / ".cache").mkdir()
    assert [path.name for path in draft.parts()] == ["config.json", "model-00001-of-00001.safetensors"]
    ref = draft.commit(metrics={"loss": 0.5})
    assert store.folder(ref) == ref.path
    assert names(ref.path) == ["config.json", "manifest.json", "model-00001-of-00001.safetensors"]
    assert [(part.bytes, part.rows) for part in store.manifest(ref).parts] == [(2, None), (7, None)]
    with pytest.raises(StoreError, match="holds no table"):
        store.table(ref)


def test_an_empty_table_needs_a_part_with_its_columns(store):
    draft = store.draft(THIS)
    with pytest.raises(SchemaError, match="has no part: even an empty table needs one"):
        draft.commit()
    draft.write("a", Rewards.create_empty())
    ref = draft.commit(rows_in=2, rejected={"blank": 2})
    assert store.table(ref).collect().shape == (0, 6)


def test_a_commit_removes_the_temporary_files_of_killed_writers(store):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    (draft.path / ".part-b.parquet.0a1b2c3d.tmp").write_bytes(b"half")
    (draft.path / "manifest.json").write_text("{}")
    ref = draft.commit()
    assert names(ref.path) == ["manifest.json", "part-a.parquet"]
    assert store.manifest(ref).rows == 3


def test_committing_an_existing_version_returns_it_unchanged(store):
    ref = commit(store, a=rewards(3))
    assert commit(store, a=rewards(99)) == ref
    assert store.table(ref).collect().height == 3
    assert names(ref.path.parent) == [".lock", ref.id]


def test_a_late_writer_cannot_bring_a_committed_draft_back(store):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    draft.commit()
    with pytest.raises(StoreError, match="cannot write"):
        draft.write("b", rewards(3, "late"))
    assert not draft.path.exists()


def test_a_draft_that_was_discarded_cannot_be_committed(store):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    draft.discard()
    with pytest.raises(StoreError, match="is gone"):
        draft.commit()
    assert store.versions() == []


# --- what is refused -------------------------------------------------------------------------------------------------


def refused(store: Store, error: type[Exception], match: str, **parts: pl.DataFrame) -> None:
    """Commits parts written behind the draft's back, as ranks do, and expects an error and an unharmed draft."""
    draft = store.draft(THIS)
    for name, frame in parts.items():
        frame.write_parquet(draft.path / f"part-{name}.parquet")
    with pytest.raises(error, match=match) as caught:
        draft.commit()
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in draft.parts()) == [f"part-{name}.parquet" for name in parts]
    assert store.versions() == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"drop": ["reason"]}, r"part-b.parquet does not fit Rewards: column `reason` is missing"),
        ({"k": pl.lit(1)}, r"part-b.parquet .* column `k` is unknown"),
        ({"score": pl.lit(1)}, r"part-b.parquet .* column `score` is Int32, expected Float64"),
        (
            {"reward": pl.lit(None, pl.String)},
            r"part-b.parquet breaks rules .* `reward nullability` in 2.*sample_id 'b0",
        ),
        ({"score": pl.lit(float("nan"))}, r"part-b.parquet breaks rules of Rewards .* `score nan` in 2"),
        ({"sample_id": pl.lit("a1")}, r"1 key\(s\) .* sample_id 'a1' in part-a.parquet, part-b.parquet"),
    ],
    ids=["missing", "unknown", "type", "null", "nan", "key"],
)
def test_a_table_that_breaks_its_schema_is_refused_by_name(store, change, match):
    bad = rewards(2, "b").with_columns(**{name: value for name, value in change.items() if name != "drop"})
    refused(store, SchemaError, match, a=rewards(3, "a"), b=bad.drop(change.get("drop", [])))


def test_a_rule_of_the_schema_is_named_with_its_first_offender(store):
    row = {"prompt_id": "p", "task": "t", "group": "g", "split": "train", "query": "?", "references": ["1"]}
    frame = pl.DataFrame([row | {"prompt_id": "q", "query": " "}, row], schema=Prompts.create_empty().schema)
    draft = store.draft(identity("prompts", 0, {}, []))
    draft.write("a", frame)
    with pytest.raises(SchemaError, match="`query_is_not_blank` in 1, the first prompt_id 'q'"):
        draft.commit()


def test_a_rule_broken_only_in_a_late_row_group_is_found(store):
    frame = rewards(9000).with_columns(score=pl.when(pl.int_range(pl.len()) == 8999).then(float("inf")).otherwise(1.0))
    refused(store, SchemaError, "`score inf` in 1, the first sample_id 's8999'", a=frame)


def test_a_draft_refuses_to_write_a_frame_with_wrong_columns(store):
    draft = store.draft(THIS)
    with pytest.raises(SchemaError, match=r"part-a\.parquet does not fit Rewards: column `reason` is missing"):
        draft.write("a", rewards(3).drop("reason"))
    assert draft.parts() == []


def test_a_part_that_cannot_be_read_is_named(store):
    draft = store.draft(THIS)
    (draft.path / "part-a.parquet").write_bytes(b"")
    with pytest.raises(StoreError, match=r"part-a\.parquet cannot be read"):
        draft.commit()
    assert draft.parts() == []


@pytest.mark.parametrize("name", ["notes.txt", "other.parquet", "folder"])
def test_a_table_holds_nothing_but_parts(store, name):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    (draft.path / name).mkdir() if name == "folder" else (draft.path / name).write_text("")
    with pytest.raises(StoreError, match=name):
        draft.commit()
    assert store.versions() == []


def test_rows_that_are_unaccounted_for_are_refused(store):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    with pytest.raises(StoreError, match="5 rows in, 3 rows out, rejected blank: 1: 1 rows are unaccounted for"):
        draft.commit(rows_in=5, rejected={"blank": 1})
    assert draft.commit(rows_in=5, rejected={"blank": 2}) == store.find(THIS)


# --- damage ----------------------------------------------------------------------------------------------------------


def flip_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def append_to_manifest(path: Path) -> None:
    with (path.parent / "manifest.json").open("a") as file:
        file.write("}")


def change_config_in_manifest(path: Path) -> None:
    manifest = read_json(path.parent / "manifest.json")
    write_json(path.parent / "manifest.json", {**manifest, "config": {"type": "option_choice"}})


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (flip_one_bit, r"part-b\.parquet has sha256 \w+…, expected"),
        (lambda path: os.truncate(path, 100), r"part-b\.parquet has 100 bytes, expected \d+"),
        (lambda path: path.unlink(), r"part-b\.parquet is missing"),
        (lambda path: path.with_name("part-c.parquet").write_bytes(b""), r"part-c\.parquet does not belong to it"),
        (lambda path: path.rename(path.with_name("c")), r"part-b\.parquet is missing; c does not belong to it"),
        (lambda path: (path.parent / "manifest.json").unlink(), r"manifest\.json is missing"),
        (append_to_manifest, r"manifest\.json is damaged"),
        (change_config_in_manifest, r"manifest\.json is damaged: it was changed after the commit"),
    ],
    ids=["bit", "truncated", "missing", "extra", "renamed", "no manifest", "manifest broken", "manifest forged"],
)
def test_damage_is_found_by_name_even_after_a_clean_check(store, damage, match):
    ref = commit(store)
    store.verify(ref)
    damage(ref.path / "part-b.parquet")
    for check in (store.verify, store.table, store.folder):
        with pytest.raises(VersionCorrupt, match=match) as caught:
            check(ref)
        assert f"{ref}" in str(caught.value)
        assert f"delete {ref.path} and run again" in str(caught.value)


def test_hidden_files_of_the_system_are_no_damage(store):
    ref = commit(store)
    (ref.path / ".DS_Store").write_text("")
    store.verify(ref)


def test_files_that_killed_processes_were_writing_are_deleted_by_the_next_writer(store):
    job_dir = store.run_dir / "launches" / "0001"
    (job_dir / "logs").mkdir(parents=True)
    (job_dir / ".rank-1.ended.json.4711").write_text("{")
    (job_dir / "logs/.rank-1.stack.recent").write_text("Thr")
    (job_dir / "job.json").write_text("{}")
    (store.run_dir / ".branches.json.0b35e79c.tmp").write_text("{")
    with store.lock():
        assert [path.name for path in job_dir.rglob("*") if path.is_file()] == ["job.json"]
        assert [*store.run_dir.glob(".branches*")] == []


def test_links_inside_a_run_are_refused(store, tmp_path):
    ref = commit(store)
    moved = ref.path.rename(tmp_path / "moved")
    ref.path.symlink_to(moved)
    assert store.versions() == []
    for check in (store.verify, store.manifest, lambda ref: store.resolve(str(ref)), lambda ref: store.draft(THIS)):
        with pytest.raises(StoreError, match="is a symbolic link"):
            check(ref)
    ref.path.unlink()
    ref.path.parent.rename(tmp_path / "stage")
    (store.run_dir / "rewards").symlink_to(tmp_path / "stage")
    for check in (store.versions, lambda: store.draft(THIS), lambda: store.find(THIS)):
        with pytest.raises(StoreError, match="is a symbolic link"):
            check()


def test_a_linked_part_is_refused(store, tmp_path):
    ref = commit(store)
    part = ref.path / "part-a.parquet"
    part.symlink_to(part.rename(tmp_path / "elsewhere.parquet"))
    with pytest.raises(StoreError, match=r"part-a\.parquet is a symbolic link"):
        store.verify(ref)


# --- names -----------------------------------------------------------------------------------------------------------


def test_versions_come_in_the_order_of_the_loop(store):
    assert store.versions() == []
    late, early = fork(store, 12), fork(store, 2)
    draft = store.draft(identity("models", 0, {}, []))
    (draft.path / "config.json").write_text("{}")
    model = draft.commit()
    store.draft(identity("samples", 1, {}, []))
    assert store.versions() == [early, late, model]
    assert store.versions("rewards") == [early, late]
    assert store.versions("samples") == []


def test_a_version_is_resolved_by_iteration_by_latest_or_by_its_full_name(store):
    two, ten = fork(store, 2), fork(store, 10)
    assert store.resolve("rewards@2") == two
    assert store.resolve("rewards@0010") == ten
    assert store.resolve("rewards@latest") == ten
    assert store.resolve(str(two)) == two


def test_forks_are_listed_by_iteration_and_the_last_one_is_the_latest(store):
    refs = [fork(store, 3, run=run) for run in range(4)]
    assert store.resolve("rewards@latest") == refs[-1]
    with pytest.raises(VersionNotFound, match=r"names 4 versions, made from different configs: .*; name one") as caught:
        store.resolve("rewards@3")
    places = [str(caught.value).index(str(ref)) for ref in refs]
    assert places == sorted(places)


@pytest.mark.parametrize("text", ["rewards@7", "rewards/0003-00000000", "samples@3", "samples@latest"])
def test_the_error_for_a_missing_version_lists_the_existing_ones(store, text):
    ref = commit(store)
    expected = f"there is {ref}" if text.startswith("rewards") else "it has no samples yet, only 1 of rewards"
    with pytest.raises(VersionNotFound, match=expected):
        store.resolve(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rewards",
        "reward@3",
        "rewards@-1",
        "rewards@٣",
        "../rewards@3",
        "/etc/passwd",
        "rewards/../../x",
        "rewards/.lock",
    ],
)
def test_a_malformed_reference_is_refused(store, text):
    commit(store)
    with pytest.raises(VersionNotFound, match="names no version: expected stage@iteration"):
        store.resolve(text)


def test_a_forged_reference_does_not_leave_the_run(store, tmp_path):
    with pytest.raises(VersionNotFound, match="names no version"):
        store.manifest(VersionRef("rewards", "../../outside", tmp_path))
    with pytest.raises(VersionNotFound, match="no version rewards/"):
        store.manifest(VersionRef("rewards", THIS.id, tmp_path))


@contextmanager
def running(body: str, *arguments: object):
    """A process, and the words of its first line of output; it is killed at the end in any case."""
    process = subprocess.Popen(script(body, *arguments), stdout=subprocess.PIPE, text=True)
    try:
        yield process, process.stdout.readline().split()
    finally:
        process.kill()
        process.communicate()


HOLD_THE_LOCK = """
with store.lock():
    is_forked, tell = os.pipe()
    heir = os.fork()
    if heir == 0:
        os.write(tell, b"!")
        time.sleep(60)
    os.read(is_forked, 1)  # a child that has not run yet has closed nothing
    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)
    print(heir, child.pid, flush=True)
    time.sleep(60)
"""


def test_a_second_writer_is_told_who_writes_and_a_killed_writer_frees_the_lock(store):
    with running(HOLD_THE_LOCK, store.run_dir) as (process, children):
        heirs = [int(pid) for pid in children]
        try:
            with pytest.raises(RunLocked, match=rf"another process \(pid {process.pid} on .* since 2"), store.lock():
                pass
            process.send_signal(signal.SIGKILL)
            process.wait()
            for pid in heirs:
                os.kill(pid, 0)  # both outlive the holder, and neither keeps its lock
            with store.lock():
                assert f'"pid": {os.getpid()}' in (store.run_dir / ".lock").read_text()
        finally:
            for pid in heirs:
                os.kill(pid, signal.SIGKILL)


def test_the_lock_creates_the_run_and_is_free_afterwards(store):
    for _ in range(2):
        with store.lock(), pytest.raises(RunLocked), store.lock():
            pass
    with pytest.raises(ZeroDivisionError), store.lock():
        _ = 1 / 0
    with store.lock():
        commit(store)


def test_a_writer_that_waits_goes_on_when_the_lock_is_free(store):
    waited = threading.Event()

    def wait() -> None:
        with store.lock(wait=True):
            waited.set()

    with store.lock():
        other = threading.Thread(target=wait)
        other.start()
        assert not waited.wait(0.2)
    other.join()
    assert waited.is_set()


def test_a_run_that_cannot_be_written_is_one_clean_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to "), Store(tmp_path / "file" / "run").lock():
        pass


WRITE_FOR_EVER = """
draft = store.draft(THIS)
for number in range(10**6):
    draft.write(f"{number:05d}", rewards(20000, f"{number}-"))
    if number == 2:
        print("three", flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_a_draft_with_its_finished_parts(store):
    moment = random.SystemRandom().uniform(0, 0.1)
    with running(WRITE_FOR_EVER, store.run_dir) as (process, _):
        time.sleep(moment)
        process.kill()
        process.wait()
    assert store.versions() == []
    assert store.find(THIS) is None
    draft = store.draft(THIS)
    kept = draft.parts()
    assert len(kept) >= 3
    assert read_parts(draft.path)["sample_id"].n_unique() == 20000 * len(kept)
    draft.write("last", rewards(1, "last"))
    ref = draft.commit()
    assert store.manifest(ref).rows == 20000 * len(kept) + 1
    assert [name for name in names(ref.path) if name.startswith(".")] == []


def test_a_draft_whose_commit_was_killed_can_be_committed_again(store):
    draft = store.draft(THIS)
    draft.write("a", rewards(3))
    draft.path.rename(draft.sealed_path)
    assert store.manifest(draft.commit()).rows == 3


def test_equal_ids_mean_equal_settings_and_digests_tell_other_numbers_apart(tmp_path):
    """As on two machines, whose rounding differs: the page of the store says so."""
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    one, other = commit(here, a=rewards(3, "a")), commit(there, a=rewards(3, "b"))
    assert (str(one), here.manifest(one).identity) == (str(other), there.manifest(other).identity)
    assert here.manifest(one).parts[0].sha256 != there.manifest(other).parts[0].sha256
