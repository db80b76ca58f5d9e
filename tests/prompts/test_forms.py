"""Rows in the forms of other trainers and benchmarks, and files in the ways that people keep them."""

import gzip
import json
from pathlib import Path

import pytest

from hir_core.config import FilePrompts, IFEvalPrompts
from hir_core.errors import ConfigError
from hir_core.prompts import file as prompt_file
from hir_core.prompts.load import load_prompts

SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}
ANSWER = {"role": "assistant", "content": "4"}
FORMS = {
    "hir": {"query": "2 + 2?", "references": ["4"]},
    "chat": {"messages": [ASKED, ANSWER]},
    "chat with references": {"messages": [ASKED, ANSWER | {"content": "It is 4."}], "answer": "4"},
    "trl": {"prompt": "2 + 2?", "completion": "4"},
    "trl chat": {"prompt": [ASKED], "completion": [ANSWER]},
    "trl prompt only": {"prompt": "2 + 2?", "answer": "4"},
    "sharegpt": {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "4"}]},
    "sharegpt without its names": {"conversations": [ASKED, ANSWER]},
    "question": {"question": "2 + 2?", "answer": "4"},
    "alpaca": {"instruction": "2 + 2?", "input": "", "output": "4"},
}


def write(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(source: FilePrompts | IFEvalPrompts) -> tuple[list[dict], dict[str, int]]:
    prompts, rejected = load_prompts([source])
    return prompts.to_dicts(), rejected


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_prompt(form, tmp_path):
    path = write(tmp_path / "mine.jsonl", FORMS[form])
    [row] = read(FilePrompts(path=path))[0]
    asked = (row["query"], row["history"], row["references"], row["metadata"])
    assert asked == ("2 + 2?", None, ["4"], None), form


def test_earlier_turns_and_inputs_are_kept(tmp_path):
    rows = (
        {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "2 + 2?"}]},
        {"prompt": [SYSTEM, ASKED]},
        {"instruction": "Add up.", "input": "2 + 3", "output": "5", "source": "mine"},
    )
    loaded, _ = read(FilePrompts(path=write(tmp_path / "a.jsonl", *rows), duplicates="drop"))
    by_query = {row["query"]: row for row in loaded}
    assert by_query["2 + 2?"]["history"] == [SYSTEM]
    assert by_query["2 + 2?"]["references"] == []
    added = by_query["Add up.\n\n2 + 3"]
    assert (added["references"], json.loads(added["metadata"])) == (["5"], {"source": "mine"})


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x", "question": "y"}, r"`prompt` and `question` could both be .* `columns: \{query: prompt\}`"),
        ({"conversations": "x"}, "`conversations` must be a list of turns, like .*from.*, found 'x'"),
        ({"conversations": [{"from": "human"}]}, "turn 1 of `messages` must have text as its `content`, found None"),
        ({"conversations": [{"from": ["human"], "value": "x"}]}, "turn 1 of `messages` must have one of the roles"),
        ({"question": None, "answer": "4"}, "`question` is null: write the question"),
        ({"prompt": 3}, "`query` must be text, found 3"),
        ({"messages": [SYSTEM, ANSWER]}, "`messages` must end with the user turn"),
    ],
)
def test_what_no_form_allows_is_named(row, message, tmp_path):
    with pytest.raises(ConfigError, match=rf"mine\.jsonl line 2: {message}"):
        read(FilePrompts(path=write(tmp_path / "mine.jsonl", FORMS["hir"], row)))


def test_columns_are_mapped_and_the_others_are_metadata(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text('text,gold,prompt,note\n2 + 2?,"[""4"", ""four""]",old,\n')
    [row] = read(FilePrompts(path=path, columns={"query": "text", "references": "gold"}))[0]
    assert (row["query"], row["references"]) == ("2 + 2?", ["4", "four"])
    assert json.loads(row["metadata"]) == {"prompt": "old", "note": None}
    with pytest.raises(ConfigError, match=r"mine\.csv line 2: no column `texts`; did you mean `text`"):
        read(FilePrompts(path=path, columns={"query": "texts"}))
    with pytest.raises(ValueError, match="columns must say where `query` comes from"):
        FilePrompts(path=path, columns={"references": "gold"})


def test_a_blank_question_of_a_table_is_counted(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("question,answer\n2 + 2?,4\n,5\n")
    assert read(FilePrompts(path=path))[1] == {"blank query": 1}


def test_files_of_a_folder_and_packed_files_are_read(tmp_path):
    folder = tmp_path / "asked"
    folder.mkdir()
    write(folder / "b.jsonl.gz", {"question": "3 + 3?"})
    (folder / "a.json").write_text(json.dumps([{"question": "1 + 1?"}, {"question": "2 + 2?"}], indent=1))
    write(folder / "lines.json", {"question": "4 + 4?"}, {"question": "5 + 5?"})
    write(folder / ".hidden.jsonl", {"question": "6 + 6?"})
    (folder / "README.md").write_text("about these")
    rows, _ = read(FilePrompts(path=folder))
    assert sorted(row["query"] for row in rows) == [f"{n} + {n}?" for n in range(1, 6)]
    assert {row["task"] for row in rows} == {"asked"}
    [row] = read(FilePrompts(path=folder / "b.jsonl.gz"))[0]
    assert row["task"] == "b"


def test_repeated_rows_are_dropped_on_request(tmp_path):
    path = write(tmp_path / "mine.jsonl", FORMS["hir"], FORMS["trl"], FORMS["alpaca"])
    with pytest.raises(
        ConfigError, match=r"line 2 is the same prompt as .*: keep one of each, or set `duplicates: drop`"
    ):
        read(FilePrompts(path=path))
    rows, rejected = read(FilePrompts(path=path, duplicates="drop"))
    assert (len(rows), rejected) == (1, {"repeated item": 2})


def test_hostile_files_are_refused(tmp_path, monkeypatch):
    packed = gzip.compress(json.dumps({"question": "2 + 2?"}).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-9])
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"question": "2 + 2?"}')
    for name in ("cut", "plain"):
        with pytest.raises(ConfigError, match=rf"{name}\.jsonl\.gz is no whole gzip file"):
            read(FilePrompts(path=tmp_path / f"{name}.jsonl.gz"))
    monkeypatch.setattr(prompt_file, "MOST_UNPACKED", 10**5)
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b" " * 10**7))
    with pytest.raises(ConfigError, match="becomes more than 100 times its size"):
        read(FilePrompts(path=tmp_path / "bomb.jsonl.gz"))
    (tmp_path / "odd.json").write_text('[{"query": "x"},\n}]')
    with pytest.raises(ConfigError, match=r"is not JSON: .* at line 2 column"):
        read(FilePrompts(path=tmp_path / "odd.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"the folder .*empty has no \.jsonl, .* file"):
        read(FilePrompts(path=tmp_path / "empty"))


def test_constraints_of_ifeval_become_ours_and_the_others_are_counted(tmp_path):
    names = ["length_constraints:number_words", "keywords:existence", "punctuation:no_comma"]
    values = [{"num_words": 50, "relation": "less than"}, {"keywords": ["fig", "plum"], "relation": None}, {}]
    rows = (
        {"key": 7, "prompt": "Write.", "instruction_id_list": names, "kwargs": values},
        {"prompt": "Rap.", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]},
        {"prompt": "Say.", "instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": ["two words"]}]},
        {"prompt": "No.", "instruction_id_list": names[:1], "kwargs": [{}]},
    )
    loaded, rejected = read(IFEvalPrompts(type="ifeval", path=write(tmp_path / "ifeval.jsonl", *rows)))
    [row] = loaded
    assert json.loads(row["metadata"]) == {
        "constraints": [
            {"kind": "words_at_most", "value": 49},
            {"kind": "contains", "value": "fig"},
            {"kind": "contains", "value": "plum"},
            {"kind": "no_commas"},
        ],
        "key": 7,
    }
    assert {reason.split()[1]: count for reason, count in rejected.items()} == {
        "language:response_language": 1,
        "keywords:existence": 1,
        "length_constraints:number_words": 1,
    }
    odd = write(tmp_path / "odd.jsonl", {"prompt": "x", "instruction_id_list": names, "kwargs": []})
    with pytest.raises(ConfigError, match=r"odd\.jsonl line 1: expected a text as `prompt`, and lists of equal length"):
        read(IFEvalPrompts(type="ifeval", path=odd))
