"""SQL over a run: the results of queries, and that no query writes anything or reads a file outside the run."""

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path

import polars as pl
import pytest
from finished_run import COMPLETIONS, NASTY, SCORES, commit, damage, drawn, hir, prompt, write_manifest

from hir_core.errors import ConfigError, HirError, VersionCorrupt
from hir_core.inspect.sql import run_query
from hir_core.store.manifest import identity
from hir_core.store.store import Store


@pytest.fixture
def store(small_run) -> Store:
    return small_run


# --- results ---------------------------------------------------------------------------------------------------------


def test_a_stage_is_a_view_over_all_its_versions(store):
    found = run_query(store, "select iteration, version, count(*) from samples group by all order by 1")
    assert found.rows == [[n, store.resolve(f"samples@{n}").id, 6] for n in (1, 2)]


def test_tables_join_over_iterations(store):
    found = run_query(
        store, "select iteration, avg(score) from samples join rewards using (iteration, sample_id) group by 1"
    )
    means = [[n, sum(s or 0 for s in SCORES[n]) / sum(s is not None for s in SCORES[n])] for n in (1, 2)]
    assert sorted(found.rows) == means


def test_texts_and_lists_come_as_they_are(store):
    found = run_query(store, 'select query, "references" from prompts order by prompt_id')
    assert found.rows[2:] == [[NASTY, []], ["2 + 2?", ["4", "four"]]]
    found = run_query(store, "select completion from samples where iteration = 1 order by prompt_id, k")
    assert [text for (text,) in found.rows] == [text for pair in COMPLETIONS[1].values() for text in pair]


def test_history_is_null_where_a_prompt_has_no_earlier_turns(store):
    turns = [{"role": "user", "content": "before"}]
    table = pl.DataFrame(
        [prompt("p9", ("sums", "9?"))], schema=store.table(store.resolve("prompts@0")).collect_schema()
    )
    draft = store.draft(identity("prompts", 0, {"n": 1}, []))
    draft.write("0", table.with_columns(history=pl.Series([turns])))
    draft.commit()
    found = run_query(store, "select history[1].content, count(*) from prompts group by 1 order by 2")
    assert found.rows == [["before", 1], [None, 4]]


def test_versions_say_what_manifests_say(store):
    found = run_query(
        store, "select version, metrics->>'$.loss', parents from versions where stage = 'models' order by 1"
    )
    assert [row[:2] for row in found.rows] == [
        [ref.id, {1: "1.0", 2: "0.0"}.get(ref.iteration)] for ref in store.versions("models")
    ]
    assert found.rows[2][2] == [str(store.resolve("models@1")), str(store.resolve("triples@2"))]


def test_values_that_json_does_not_have_become_null_or_text(store):
    found = run_query(
        store, "select 'nan'::float a, 1.5::decimal(3, 1) b, date '2026-01-02' c, {'x': 'inf'::double} d, 1 a"
    )
    assert found.records() == [{"a": None, "b": "1.5", "c": "2026-01-02", "d": {"x": None}, "a_5": 1}]


def test_a_run_in_a_folder_with_an_odd_name_is_read(store, tmp_path):
    place = Path(shutil.copytree(store.run_dir, tmp_path / "it's 100% odd=name \u202e"))
    assert run_query(Store(place), "select max(iteration) from samples").rows == [[2]]


def test_pivots_and_explanations_are_allowed(store):
    pivot = "from (pivot samples on finish_reason in ('eos', 'length') using count(*) group by iteration) order by 1"
    assert run_query(store, pivot).rows == [[1, 5, 1], [2, 6, 0]]
    assert run_query(store, "explain select 1").columns


# --- what a query cannot do ------------------------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


WRITES = [
    "copy samples to 'out.csv'",
    "copy (select 1) to '{part}'",
    "with x as (copy (select 1) to 'out.csv') select 1",
    "with x as (copy (select 1) to '{part}' (format parquet)) select 1",
    "explain analyze copy (select 1) to '{part}'",
    "explain analyze with x as (copy (select 1) to '{part}') select 1",
    "select * from query('with x as (copy (select 1) to ''{part}'') select 1')",
    "export database 'out'",
    "attach 'out.db'",
    "create table samples2 as from samples",
    "insert into samples values (1)",
    "delete from versions",
    "drop view samples",
    "update versions set rows = 0",
    "set temp_directory = 'out'",
    "set enable_external_access = true",
    "reset enable_external_access",
    "pragma enable_profiling",
    "select 1; copy (select 1) to 'out.csv'",
    "install httpfs",
    "load httpfs",
    "call pragma_version()",
    "checkpoint",
    "",
]
READS = [
    "from read_text('secret.txt')",
    "from read_blob('{folder}/secret.txt')",
    "from 'secret.csv'",
    "from read_csv('secret.csv')",
    "from read_parquet('{part}')",
    "from glob('*')",
    "from sniff_csv('secret.csv')",
    "from read_json('{manifest}')",
    "from parquet_metadata('{part}')",
    "select * from query('from read_text(''secret.txt'')')",
    "with x as (from read_text('secret.txt')) from x",
    "explain analyze from read_text('secret.txt')",
    "from duckdb_secrets()",
    "select getenv('HOME')",
    "from store",
    "from read_csv('http://127.0.0.1:9/x.csv')",
    *(
        f"from {reader}('{{folder}}/secret.csv')"
        for reader in (
            "read_csv_auto",
            "read_ndjson",
            "read_json_auto",
            "read_json_objects",
            "read_ndjson_objects",
            "read_json_objects_auto",
            "read_duckdb",
            "parquet_scan",
            "parquet_schema",
            "parquet_kv_metadata",
            "parquet_file_metadata",
            "query_table",
            "read_avro",
            "read_xlsx",
        )
    ),
    "from which_secret('s3://x', 's3')",
    "from arrow_scan(1, 1, 1)",
    "from python_map_function((from versions))",
    "from json_execute_serialized_sql(json_serialize_sql('from read_text(''secret.txt'')'))",
    "from enable_logging()",
    "from add_grammar_extension('x')",
]


@pytest.mark.parametrize("query", [*WRITES, *READS])
def test_no_query_writes_or_reads_a_file(store, tmp_path, query):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "secret.csv").write_text("secret\n1\n")
    part = store.parts(store.resolve("samples@1"))[0]
    before = snapshot(tmp_path)
    with pytest.raises(ConfigError) as caught:
        run_query(store, query.format(part=part, folder=tmp_path, manifest=part.parent / "manifest.json"))
    assert snapshot(tmp_path) == before
    assert "\n" not in str(caught.value)
    assert re.match(r"hir sql: `.*` (is not a single SELECT|cannot be answered)", str(caught.value))


def test_settings_stay_closed_while_a_query_runs(store):
    names = "('enable_external_access', 'lock_configuration', 'autoload_known_extensions', 'temp_directory')"
    found = run_query(store, f"select name, value from duckdb_settings() where name in {names}")
    assert dict(found.rows) == {
        "enable_external_access": "false",
        "lock_configuration": "true",
        "autoload_known_extensions": "false",
        "temp_directory": "",
    }


def test_a_damaged_version_is_not_read(store):
    damage(store.parts(store.resolve("rewards@1"))[0])
    assert run_query(store, "select count(*) from samples").rows == [[12]]
    for query in ("from samples join Rewards using (sample_id)", 'from "rewards"', "show tables"):
        with pytest.raises(VersionCorrupt, match="rewards/0001-"):
            run_query(store, query)


def test_without_the_extra_the_message_names_it(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(HirError, match=r"hir sql needs the package `duckdb`.*pip install duckdb \(hir's extra `sql`"):
        run_query(store, "select 1")


def test_versions_with_columns_of_different_types_are_an_error(store):
    model = store.resolve("models@0")
    ref = commit(store, "samples", 3, [model], drawn(1, model))
    (part,) = store.parts(ref)
    pl.read_parquet(part).with_columns(pl.col("k").cast(pl.String)).write_parquet(part)
    facts = json.loads((ref.path / "manifest.json").read_text())
    facts["parts"][0] |= {"bytes": part.stat().st_size, "sha256": hashlib.sha256(part.read_bytes()).hexdigest()}
    write_manifest(ref.path, facts)
    with pytest.raises(ConfigError, match="columns of different types"):
        run_query(store, "from samples")


# --- the command -----------------------------------------------------------------------------------------------------


def test_sql_shows_a_table_where_it_fits(store):
    shown = hir("sql", "select iteration, avg(k) as mean, min(finish_reason) from samples group by 1 order by 1")
    assert shown.splitlines()[0].split() == ["iteration", "mean", "min(finish_reason)"]
    assert len(shown.splitlines()) == 3


def test_sql_shows_rows_below_each_other_where_it_does_not(store):
    shown = hir("sql", "from samples where prompt_id = 'p3' order by iteration, k", "small", "--rows", "2")
    assert shown.splitlines()[1] == "row 1"
    assert shown.endswith("… and 2 more rows\n")
    assert r"red \x1b[31m\x00" in shown
    assert not any(mark in shown for mark in "\x1b\x00\u202e")


def test_sql_escapes_names_and_querys(store):
    shown = hir("sql", 'select 1 as "\x1b[31m", chr(27) || chr(10) as b')
    assert shown == "\\x1b[31m  b\n       1  \\x1b\\n\n"
    assert "\x1b" not in hir("sql", "sel \x1b", code=2)


def test_sql_gives_json(store):
    found = json.loads(hir("sql", "select iteration, completion from samples where prompt_id = 'p3'", "--json"))
    assert {(row["iteration"], row["completion"]) for row in found} == {
        (n, text) for n in (1, 2) for text in COMPLETIONS[n]["p3"]
    }


def test_where_there_are_several_runs_sql_needs_one(store, tmp_path):
    (tmp_path / "runs" / "other" / "samples").mkdir(parents=True)
    assert hir("sql", "select 1", code=2) == "error: several runs: name one; runs holds other, small\n"
    assert "samples does not exist" in hir("sql", "from samples", "other", code=2)
