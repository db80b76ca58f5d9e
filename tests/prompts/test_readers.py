"""Readers of prompts: every item of every shape of file, fair options, whole stories, and a message for wrong input."""

import csv
import inspect
import json
import os
import re
import subprocess
import sys
from collections import Counter

import polars as pl
import pytest
from benchmark_files import BBH, BIGBENCH, needs_benchmarks

from hir_core.config import (
    BigBenchHardPrompts,
    BigBenchPrompts,
    DatasetsPrompts,
    FilePrompts,
    ReasoningGymPrompts,
    ReasoningGymReward,
)
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError
from hir_core.prompts.bigbench import task_name
from hir_core.prompts.load import load_prompts
from hir_core.prompts.reasoning_gym import UNSTEADY, from_tagged, to_tagged
from hir_core.prompts.splits import leaks
from hir_core.rewards.reasoning_gym import RUN_ANSWERS
from hir_core.rewards.registry import build_reward
from hir_core.schemas import Prompts


def rows_of(*sources, also=()):
    prompts, _ = load_prompts(sources, also)
    Prompts.validate(prompts)
    return prompts.to_dicts()


def only_row(*sources):
    (row,) = rows_of(*sources)
    return row


def task_file(folder, *examples, name="task.json", **keys):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"canary": "a canary", "examples": examples} | keys))
    return path


def bigbench(folder, *examples, name="task.json", settings=None, **keys):
    return BigBenchPrompts(type="bigbench", path=task_file(folder, *examples, name=name, **keys), **(settings or {}))


def bbh(folder, *examples, name="task.json"):
    pairs = [dict(zip(("input", "target"), example, strict=True)) for example in examples]
    return BigBenchHardPrompts(type="bbh", path=task_file(folder, *pairs, name=name))


# --- BIG-bench -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "options", "references"),
    [
        ({"target": "four"}, None, ["four"]),
        ({"target": 4}, None, ["4"]),
        ({"target": ["four", 4, " four "]}, None, ["four", "4"]),
        ({"target_scores": {"red": 1, "blue": 0}}, {"red", "blue"}, ["LETTER red", "red"]),
        ({"target_scores": {"box": 1, "cube": 1, "ball": 0}}, {"box", "cube", "ball"}, None),
        ({"target_scores": {"a lot": 0.6, "some": 0.3}}, {"a lot", "some"}, ["LETTER a lot", "a lot"]),
        ({"target_scores": {"red": 1, "blue": 0}, "target": "red"}, {"red", "blue"}, ["LETTER red", "red"]),
        ({"target_scores": {"7": 1, "8": 0}, "target": ["7", "seven"]}, {"7", "8"}, ["LETTER 7", "7", "seven"]),
        ({"target_scores": {"a\n big  dog": 1, "cat": 0}}, {"a big dog", "cat"}, ["LETTER a big dog", "a big dog"]),
        ({"target_scores": {str(n): int(n == 3) for n in range(30)}}, None, ["3"]),
        ({"target_scores": None, "target": "x"}, None, ["x"]),
    ],
)
def test_every_shape_of_answer_is_read_whole(tmp_path, answers, options, references):
    row = only_row(bigbench(tmp_path, {"input": "Which?"} | answers))
    offered = row["options"] or []
    assert (set(offered) or None) == options
    letters = {text: f"({'ABC'[place]})" for place, text in enumerate(offered)}
    if references is None:  # two right ones, in the order in which they are offered
        right = [text for text in offered if text != "ball"]
        references = [*(letters[text] for text in right), *right]
    assert row["references"] == [letters[ref[7:]] if ref.startswith("LETTER ") else ref for ref in references]
    assert row["query"].split("\n")[1:] == (["Options:", *(f"{letters[o]} {o}" for o in offered)] if offered else [])


def test_options_of_one_question_stand_in_an_order_of_the_seed_and_not_of_the_file(tmp_path):
    colours = ["red", "green", "blue"]
    examples = [{"input": f"q{n}?", "target_scores": {c: int(c == "red") for c in colours}} for n in range(900)]
    turned = [e | {"target_scores": dict(reversed(e["target_scores"].items()))} for e in examples]
    rows = rows_of(bigbench(tmp_path / "one", *examples, settings={"task": "t"}))
    assert rows == rows_of(bigbench(tmp_path / "two", *turned, settings={"task": "t"}))
    assert rows != rows_of(bigbench(tmp_path / "one", *examples, settings={"task": "t", "seed": 1}))
    places = Counter(row["references"][0] for row in rows)
    assert sum((count - 300) ** 2 / 300 for count in places.values()) < 13.8  # chi-square, 2 degrees, p = 0.001


def test_prefixes_stand_before_the_question_and_completion_cues_do_not_follow_it(tmp_path):
    keys = {"example_output_prefix": "\nA: ", "choice_prefix": "\n- ", "append_choices_to_input": True, "name": "x"}
    whole = {"task_prefix": "Sort these.\n\n", "example_input_prefix": "List: "}
    assert only_row(bigbench(tmp_path, {"input": "b a", "target": "a b"}, **whole, **keys))["query"] == (
        "Sort these.\n\nList: b a"
    )
    touching = {"task_prefix": "Sort these:", "example_input_prefix": ""}
    assert only_row(bigbench(tmp_path, {"input": "b a", "target": "a b"}, **touching))["query"] == "Sort these:\nb a"
    ends_open = {"input": "At last, Ann has the ", "target_scores": {"red ball.": 1, "blue ball.": 0}}
    assert only_row(bigbench(tmp_path, ends_open, **keys))["query"].startswith("At last, Ann has the\nOptions:\n(A) ")


def test_canary_and_further_keys_travel_in_the_metadata(tmp_path):
    row = only_row(bigbench(tmp_path, {"input": "2 + 2?", "target": "4", "comment": "easy", "id": 7}))
    assert json.loads(row["metadata"]) == {"canary": "a canary", "comment": "easy", "id": 7}
    assert row["split"] == "test"


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("bigbench/object_counting/task.json", "object_counting"),
        ("tasks/logical_deduction/three_objects/task.json", "logical_deduction_three_objects"),
        ("tracking_shuffled_objects/seven_objects/task.json", "tracking_shuffled_objects_seven_objects"),
        ("downloads/word_sorting.json", "word_sorting"),
    ],
)
def test_a_task_is_named_after_its_folders(tmp_path, place, name):
    assert task_name(tmp_path / place) == name
    source = bigbench(tmp_path, {"input": "q", "target": "a"}, name=place, settings={})
    assert only_row(source)["task"] == name
    assert only_row(source.model_copy(update={"task": "mine"}))["task"] == "mine"


def test_one_story_asked_by_its_options_or_of_each_person_is_one_group(tmp_path):
    lines = [{"input": f"{n} birds. Jay is left.", "target_scores": {f"{b} is last": 1, "x": 0}}
             for n in range(12) for b in ("jay", "owl", "emu")]  # fmt: skip
    people = [{"input": f"{n} swap. At the end {p} has the ", "target_scores": {"a": 1, "b": 0}}
              for n in range(12) for p in ("Ann", "Bob")]  # fmt: skip
    rows = rows_of(bigbench(tmp_path, *lines, *people, task_prefix="Each tells of birds.\n\n"))
    groups = {}
    for row in rows:
        groups.setdefault(re.search(r"\d+ (birds|swap)", row["query"])[0], set()).add(row["group"])
    assert len(groups) == 24
    assert all(len(names) == 1 for names in groups.values())
    assert len(set.union(*groups.values())) == 24


def test_a_split_by_share_keeps_stories_whole(tmp_path):
    examples = [{"input": f"Ann has {n} hats. {who} has?", "target": str(n)} for n in range(30) for who in "AB"]
    prompts, _ = load_prompts([bigbench(tmp_path, *examples, settings={"test_share": 0.2})])
    assert prompts.group_by("split").len().sort("split").rows() == [("train", 48), ("test", 12)]
    assert leaks(prompts).is_empty()


def test_a_story_that_the_other_benchmark_asks_again_is_a_leak(tmp_path):
    story = "The statements are consistent.\n\nThree birds. The jay is left of the owl."
    first, rest = story.split("\n\n")
    trained = bigbench(tmp_path / "a", {"input": rest, "target_scores": {"The jay is first": 1, "The owl is first": 0}},
                       task_prefix=f"{first}\n\n", settings={"test_share": 0.0})  # fmt: skip
    tested = bbh(tmp_path / "b", (f"{first} {rest}\nOptions:\n(A) The owl is last\n(B) The jay is last", "(A)"))
    prompts, _ = load_prompts([trained], [tested])
    assert leaks(prompts)["shared"].to_list() == ["group"]


def test_what_a_benchmark_repeats_or_leaves_unanswered_is_counted(tmp_path):
    same = {"input": "Which?", "target_scores": {"red": 1, "blue": 0}}
    open_one = {"input": "And?", "target_scores": {"red": 0, "blue": 0}}
    prompts, rejected = load_prompts([bigbench(tmp_path, same, same, open_one, {"input": " ", "target": "x"})])
    assert prompts.height == 1
    assert rejected == {"repeated item": 1, "no accepted answer": 1, "blank query": 1}
    prompts, rejected = load_prompts([bbh(tmp_path, ("2 + 2?", "4"), ("2 + 2?", "4"), ("3 + 3?", " "))])
    assert (prompts.height, rejected) == (1, {"repeated item": 1, "no accepted answer": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", r"task\.json: expected \{.examples.: .*\} of BIG-bench"),
        ('{"examples": {}}', "expected .* of BIG-bench"),
        ("{", "is not JSON"),
        ('{"examples": [7]}', "example 1: expected a text `input`, found 7"),
        ('{"examples": [{"input": 3}]}', "example 1: expected a text `input`"),
        ('{"examples": [{"input": "q", "target_scores": ["a"]}]}', "expected `target_scores` with a number for each"),
        ('{"examples": [{"input": "q", "target_scores": {"a": "1"}}]}', "expected `target_scores` with a number"),
        ('{"examples": [{"input": "q", "target": {"a": 1}}]}', "expected `target` as a text, a number or a list"),
        ('{"examples": [], "task_prefix": ["a"]}', r"expected `task_prefix` to be text, found \['a'\]"),
    ],
)
def test_another_shape_than_bigbench_is_refused(tmp_path, content, message):
    path = tmp_path / "task.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_prompts([BigBenchPrompts(type="bigbench", path=path)])


def test_a_missing_task_file_is_named(tmp_path):
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(ConfigError, match=f"no such file {path}"):
            load_prompts([BigBenchPrompts(type="bigbench", path=path)])


@needs_benchmarks
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("date_understanding", 369),
        ("logical_deduction/three_objects", 300),
        ("object_counting", 1000),
        ("penguins_in_a_table", 149),
    ],
)
def test_every_item_of_bigbench_is_read_with_every_answer(name, count):
    path = BIGBENCH / name / "task.json"
    data = json.loads(path.read_text())
    source = BigBenchPrompts(type="bigbench", path=path)
    prompts, rejected = load_prompts([source])
    assert (prompts.height, rejected, prompts["task"].unique().to_list()) == (count, {}, [name.replace("/", "_")])
    facts = Counter((data.get("task_prefix", "").strip(), *gold_of(example)) for example in data["examples"])
    read = Counter()
    for row in prompts.iter_rows(named=True):
        texts = tuple(ref for ref in row["references"] if not re.fullmatch(r"\([A-Z]\)", ref))
        question = row["query"].split("\nOptions:\n")[0].removeprefix(data.get("task_prefix", "").strip()).strip()
        read[(data.get("task_prefix", "").strip(), question, frozenset(row["options"] or []), frozenset(texts))] += 1
        assert data["canary"] == json.loads(row["metadata"])["canary"]
    assert read == facts


def gold_of(example):
    scores, target = example.get("target_scores", {}), example.get("target", [])
    golds = {option for option, score in scores.items() if score} | set([target] if isinstance(target, str) else target)
    return example["input"].strip(), frozenset(scores), frozenset(golds)


@needs_benchmarks
def test_the_right_option_of_date_understanding_is_not_the_first_any_more():
    rows = rows_of(BigBenchPrompts(type="bigbench", path=BIGBENCH / "date_understanding" / "task.json"))
    first = sum(row["references"][0] == "(A)" for row in rows)
    assert 40 < first < 90  # a sixth of 369 is 61


@needs_benchmarks
def test_stories_of_bigbench_logical_deduction_are_groups_of_three():
    path = BIGBENCH / "logical_deduction" / "three_objects" / "task.json"
    prompts, _ = load_prompts([BigBenchPrompts(type="bigbench", path=path, test_share=0.2)])
    assert leaks(prompts).is_empty()
    sizes = prompts.group_by("group").len()["len"]
    assert set(sizes % 3) == {0}
    assert len(sizes) > 95


# --- BIG-Bench-Hard: shapes of tasks whose files are not at hand -----------------------------------------------------


@pytest.mark.parametrize(
    ("query", "target", "options", "references"),
    [
        ("Sort the words: List: pear fig apple", "apple fig pear", None, ["apple fig pear"]),
        ('The path <path d="M 1.00,2.00 L 3.50,4.25 M 3.50,4.25 L 1.00,2.00"/> is a\nOptions:\n(A) line\n(B) sector',
         "(A)", ["line", "sector"], ["(A)", "line"]),
        ("In a row. The jay is last.\nOptions:\n(A) The jay is first\n(B) The owl is first", "(B)",
         ["The jay is first", "The owl is first"], ["(B)", "The owl is first"]),
        ("name, age\nAda, 3\nBo, 5\nHow many are under 4?\nOptions:\n(A) 0\n(B) 1", "(B)", ["0", "1"], ["(B)", "1"]),
        ("At the end, Ann has\nOptions:\n(A) blue ball\n(B) red ball ", "(A)", ["blue ball", "red ball"],
         ["(A)", "blue ball"]),
        ("Is it?\nOptions:\n- Yes\n- No", "No", ["Yes", "No"], ["No"]),
        ("Which?\nOptions:\n(A) Red hat\n(B) Blue hat", "Blue hat", ["Red hat", "Blue hat"], ["(B)", "Blue hat"]),
    ],
)  # fmt: skip
def test_every_shape_of_bbh_item_is_read(tmp_path, query, target, options, references):
    row = only_row(bbh(tmp_path, (query, target)))
    assert (row["query"], row["options"], row["references"]) == (query, options, references)


def test_eighteen_options_are_read_in_their_order(tmp_path):
    lines = [f"({chr(65 + n)}) number {n}" for n in range(18)]
    row = only_row(bbh(tmp_path, ("How many?\nOptions:\n" + "\n".join(lines), "(R)")))
    assert (len(row["options"]), row["references"]) == (18, ["(R)", "number 17"])


@needs_benchmarks
@pytest.mark.parametrize("path", sorted(BBH.glob("*.json")), ids=lambda path: path.stem)
def test_every_item_of_bbh_names_its_target(path):
    examples = {e["input"]: e["target"] for e in json.loads(path.read_text())["examples"]}
    rows = rows_of(BigBenchHardPrompts(type="bbh", path=path))
    assert {row["query"]: row["references"][0] for row in rows} == examples
    assert all(row["options"][ord(row["references"][0][1]) - 65] == row["references"][1]
               for row in rows if row["options"])  # fmt: skip


# --- CSV and TSV -----------------------------------------------------------------------------------------------------


def table_file(folder, content, name="mine.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return FilePrompts(path=path)


@pytest.mark.parametrize(("name", "delimiter"), [("mine.csv", ","), ("mine.tsv", "\t")])
def test_delimited_files_read_as_jsonl_does(tmp_path, name, delimiter):
    texts = ["1, 2, or 3?", 'a "quoted" word', "two\nlines", "tab\there", "Ünïcode\u2028still one cell", "#5"]
    rows = [{"query": text, "references": ["4", "four"], "group": f"g{n % 3}", "note": f"n{n}"}
            for n, text in enumerate(texts)]  # fmt: skip
    rows.append({"query": "Which?", "options": ["red", "blue"], "references": ["red"], "split": "test", "note": "x"})
    (tmp_path / "mine.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    columns = ["query", "references", "options", "group", "split", "note"]
    with (tmp_path / name).open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows([[in_a_cell(row.get(column, "")) for column in columns] for row in rows])
    read = rows_of(FilePrompts(path=tmp_path / name))
    assert read == rows_of(FilePrompts(path=tmp_path / "mine.jsonl"))
    assert len(read) == 7


def in_a_cell(value):
    return json.dumps(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("cell", "references"),
    [
        ("4", ["4"]),
        ('"[""4"", ""four""]"', ["4", "four"]),
        ('"[4, 4.5]"', ["4", "4.5"]),
        ("", []),
        ("  ", []),
        (" four ", ["four"]),
        ("[sic]", ["[sic]"]),
        ("[]", []),
        ('{"a"', ['{"a"']),
    ],
)
def test_references_are_one_value_or_a_json_list(tmp_path, cell, references):
    assert only_row(table_file(tmp_path, f"query,answer\n2 + 2?,{cell}\n"))["references"] == references


def test_a_byte_order_mark_line_ends_and_blank_lines_do_not_count(tmp_path):
    content = "\ufeffquery,answer\r\n2 + 2?,4\r\n\r\n3 + 3?,6\r\n".encode()
    assert {row["query"]: row["references"] for row in rows_of(table_file(tmp_path, content))} == {
        "2 + 2?": ["4"],
        "3 + 3?": ["6"],
    }


def test_cells_below_other_names_are_metadata_and_empty_ones_are_not(tmp_path):
    row = only_row(table_file(tmp_path, 'query,level,source,metadata\nq?,3,,"{""by"": ""me""}"\n'))
    assert json.loads(row["metadata"]) == {"by": "me", "level": "3"}


def test_rows_of_a_spreadsheet_that_ask_nothing_are_counted(tmp_path):
    prompts, rejected = load_prompts([table_file(tmp_path, "query,answer\n2 + 2?,4\n,\n,5\n")])
    assert (prompts.height, rejected) == (1, {"blank query": 2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("query,answer\nq?,1,2\n", "line 2: expected 2 cells, one per column, found 3: .* double quotes"),
        ("query,answer\nq?\n", "line 2: expected 2 cells, one per column, found 1"),
        ('query,answer\n"a\nb",1\nq?\n', "line 4: expected 2 cells"),
        ('query,answer\n"a"b,1\n', "line 2 is not CSV: .* expected after"),
        ('query,answer\nq?,1\n"never closed,2\n', "line 3 is not CSV: unexpected end of data"),
        ("asked,answer\nq?,1\n", "line 2: expected a `query`, found asked, answer: name the column"),
        ("query,a,query,a\nq?,1,r?,2\n", "line 1: expected different columns, found `query`, `a` more than once"),
        (",query\n0,q?\n", r"line 1: column 1 has no name: name it, or drop it \(pandas: index=False\)"),
        ("query,options\nq?,red|blue\n", r"line 2: expected `options` as a JSON list in its cell, .* 'red\|blue'"),
        ('query,options,answer\nq?,"[""a"", ""b""]",c\n', "line 2: the reference 'c' is none of the options"),
        ('query,answer\nq?,"[true]"\n', "line 2: a reference must be text or a number, found True"),
        ("query,split\nq?,dev\n", "line 2: `split` must be train or test, found 'dev'"),
        (b"query,answer\nq?,1\ncaf\xe9?,2\n", "line 3 is not UTF-8 text"),
        ("query,answer\n".encode("utf-16"), "line 1 is not UTF-8 text"),
        ("", "no prompts in "),
        ("query,answer\n", "no prompts in "),
    ],
)
def test_a_wrong_table_is_named_with_its_line(tmp_path, content, message):
    with pytest.raises(ConfigError, match=message):
        load_prompts([table_file(tmp_path, content)])


# --- Hugging Face's datasets -----------------------------------------------------------------------------------------

QUESTIONS = [{"question": f"{n} + 1?", "answer": str(n + 1), "level": n % 3} for n in range(10)]


def hugging_face(source, **settings):
    return DatasetsPrompts(type="datasets", source=str(source), **settings)


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The library with its cache in a folder of the test's."""
    library = pytest.importorskip("datasets", reason="the extra `datasets` is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def test_a_missing_library_is_named_with_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ConfigError, match=r"a source of type datasets needs the package `datasets`.*pip install datasets"
    ):
        load_prompts([hugging_face(tmp_path)])


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"question": "query"}, "columns.question"), ({"references": "answer"}, "columns must say where `query` comes")],
)
def test_a_wrong_mapping_is_reported_before_anything_is_loaded(columns, message):
    with pytest.raises(ConfigError, match=message):
        parse_config({"run": "r", "iterations": 0, "model": {"source": "a/b"},
                      "prompts": [{"type": "datasets", "source": "a/b", "columns": columns}]})  # fmt: skip


@pytest.mark.parametrize("kind", ["saved", "saved splits", "parquet", "jsonl"])
def test_local_datasets_are_read_by_their_mapping(tmp_path, library, kind):
    folder = tmp_path / "sums"
    folder.mkdir()
    dataset = library.Dataset.from_list(QUESTIONS)
    match kind:
        case "saved":
            dataset.save_to_disk(folder)
        case "saved splits":
            library.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(folder)
        case "parquet":
            pl.DataFrame(QUESTIONS).write_parquet(folder / "data.parquet")
        case "jsonl":
            pl.DataFrame(QUESTIONS).write_ndjson(folder / "data.jsonl")
    rows = rows_of(hugging_face(folder, columns={"query": "question", "references": "answer"}, limit=8))
    assert {(row["query"], *row["references"], row["metadata"]) for row in rows} == {
        (row["question"], row["answer"], json.dumps({"level": row["level"]})) for row in QUESTIONS[:8]
    }
    assert {row["task"] for row in rows} == {"sums"}
    assert Counter(row["split"] for row in rows) == {"train": 6, "test": 2}


def test_fields_of_columns_and_names_of_labels_can_be_mapped(tmp_path, library):
    features = library.Features(
        {"ask": library.Value("string"), "label": library.ClassLabel(names=["red", "blue"]),
         "choices": {"text": library.List(library.Value("string"))}, "split": library.Value("string")}
    )  # fmt: skip
    row = {"ask": "Which?", "label": 1, "choices": {"text": ["red", "blue"]}, "split": "validation"}
    library.Dataset.from_list([row], features=features).save_to_disk(tmp_path / "saved")
    columns = {"query": "ask", "options": "choices.text", "references": "label"}
    read = only_row(hugging_face(tmp_path / "saved", columns=columns, task="colours"))
    assert (sorted(read["options"]), read["references"][1], read["task"]) == (["blue", "red"], "blue", "colours")
    assert json.loads(read["metadata"]) == {"split": "validation"}
    with pytest.raises(ConfigError, match=r"row 1: no column `asks`; did you mean `ask`"):
        load_prompts([hugging_face(tmp_path / "saved", columns=columns | {"query": "asks"})])


def test_columns_with_hirs_names_need_no_mapping(tmp_path, library):
    library.Dataset.from_list([{"query": "2 + 2?", "answer": "4", "by": "me"}]).save_to_disk(tmp_path / "sums")
    read = only_row(hugging_face(tmp_path / "sums"))
    assert (read["query"], read["references"], read["metadata"]) == ("2 + 2?", ["4"], '{"by": "me"}')


def test_a_dataset_or_split_that_is_not_there_is_named(tmp_path, library):
    with pytest.raises(ConfigError, match=r"the dataset .*gone \(train\) cannot be loaded: FileNotFoundError"):
        load_prompts([hugging_face(tmp_path / "gone")])
    library.DatasetDict({"train": library.Dataset.from_list(QUESTIONS)}).save_to_disk(tmp_path / "sums")
    with pytest.raises(ConfigError, match="has no split `dev`, only train"):
        load_prompts([hugging_face(tmp_path / "sums", split="dev")])


def test_code_that_comes_with_a_dataset_is_never_run(tmp_path, library):
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ConfigError, match="cannot be loaded"):
        load_prompts([hugging_face(folder)])
    assert not (tmp_path / "ran").exists()


# --- reasoning-gym ---------------------------------------------------------------------------------------------------


def gym(task, **settings):
    return ReasoningGymPrompts(type="reasoning_gym", task=task, **({"size": 20, "seed": 1} | settings))


def scores(prompts, answer_of, **settings):
    """The scores of one answer to each prompt."""
    answers = pl.DataFrame({"prompt_id": prompts["prompt_id"], "completion": map(answer_of, prompts.to_dicts())})
    return build_reward(ReasoningGymReward(type="reasoning_gym", **settings)).judge(answers, prompts)["score"].to_list()


@pytest.fixture
def gym_library():
    return pytest.importorskip("reasoning_gym", reason="the extra `reasoning-gym` is not installed")


def test_a_missing_gym_is_named_by_source_and_reward(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=r"a source of type reasoning_gym needs .*: pip install reasoning-gym"):
        load_prompts([gym("leg_counting")])
    with pytest.raises(ConfigError, match=r"reward: the type reasoning_gym needs .*: pip install reasoning-gym"):
        build_reward(ReasoningGymReward(type="reasoning_gym"))


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2.5, None, True, "x"]}, (1, (2, [3])), {0: "zero", (1, 2): {"x": ()}}, {"__tuple__": [1]}, [], {}],
)
def test_tagged_json_reads_back_equal(value):
    assert repr(from_tagged(json.loads(json.dumps(to_tagged(value))))) == repr(value)


def test_what_json_cannot_hold_is_refused():
    with pytest.raises(TypeError, match="of type set"):
        to_tagged({"a": [{1}]})


@pytest.mark.parametrize("task", ["leg_counting", "chain_sum", "knights_knaves", "propositional_logic", "graph_color"])
def test_gym_tasks_are_drawn_by_seed_and_scored_by_themselves(gym_library, task):
    prompts, _ = load_prompts([gym(task)])
    Prompts.validate(prompts)
    assert prompts.height == 20
    assert prompts.equals(load_prompts([gym(task)])[0])
    assert set(load_prompts([gym(task, seed=2)])[0]["prompt_id"]) != set(prompts["prompt_id"])
    drawn = gym_library.create_dataset(task, seed=1, size=20)
    entries = {entry["question"]: entry for entry in drawn}
    answers = [str(entries[query]["answer"] or entries[query]["metadata"].get("example_answer")) for query in
               prompts["query"]]  # fmt: skip
    expected = [drawn.score_answer(answer, entries[query]) for answer, query in
                zip(answers, prompts["query"], strict=True)]  # fmt: skip
    answer_of = dict(zip(prompts["query"], answers, strict=True))
    assert scores(prompts, lambda row: answer_of[row["query"]]) == expected
    assert max(scores(prompts, lambda row: "no idea")) < 1.0


def test_a_colouring_is_right_whatever_colours_it_uses(gym_library):
    prompts, _ = load_prompts([gym("graph_color", size=5)])
    entries = [json.loads(row["metadata"])["reasoning_gym"]["entry"] for row in prompts.to_dicts()]
    solutions = [from_tagged(entry)["metadata"]["possible_answer"] for entry in entries]
    swapped = {1: 2, 2: 1, 3: 3}
    texts = [json.dumps({place: swapped[colour] for place, colour in solution.items()}) for solution in solutions]
    text_of = dict(zip(prompts["prompt_id"], texts, strict=True))
    assert scores(prompts, lambda row: text_of[row["prompt_id"]]) == [1.0] * 5
    assert prompts["references"].list.len().sum() == 0


def test_dials_reach_task_and_scorer_and_wrong_ones_are_named(gym_library):
    prompts, _ = load_prompts([gym("chain_sum", dials={"min_terms": 2, "max_terms": 2})])
    assert {row["query"].count("+") + row["query"].count(" - ") for row in prompts.to_dicts()} == {1}
    assert scores(prompts, lambda row: f" {row['references'][0]}\n") == [1.0] * 20
    for dials, message in (
        ({"min_term": 2}, "no dial `min_term`; did you mean `min_terms`"),
        ({"seed": 3}, "no dial `seed`; "),
        ({"min_terms": -1}, "chain_sum cannot be drawn with dials .*: AssertionError"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_prompts([gym("chain_sum", dials=dials)])
    with pytest.raises(ConfigError, match="has no task `chain_sums`; did you mean `chain_sum`"):
        load_prompts([gym("chain_sums")])


def test_gym_sources_share_no_question_and_too_few_are_refused(gym_library):
    small = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    prompts, _ = load_prompts([gym("chain_sum", dials=small, size=40), gym("chain_sum", dials=small, size=40, seed=2)])
    assert (prompts.height, prompts["query"].n_unique()) == (80, 80)
    with pytest.raises(ConfigError, match=r"expected 2000 different prompts, found \d+ among 16000: lower size"):
        load_prompts([gym("chain_sum", dials=small, size=2000)])


def test_tasks_that_run_answers_or_draw_unsteadily_are_refused(gym_library):
    reward = build_reward(ReasoningGymReward(type="reasoning_gym"))
    prompts, _ = load_prompts([gym("n_queens", size=2)])
    with pytest.raises(ConfigError, match=r"2 of 2 prompts cannot be judged.*runs answers as Python code.*run_answers"):
        reward.check_prompts(prompts)
    build_reward(ReasoningGymReward(type="reasoning_gym", run_answers=True)).check_prompts(prompts)
    with pytest.raises(ConfigError, match="word_ladder of reasoning-gym draws other items in each process"):
        load_prompts([gym("word_ladder")])


def test_every_task_whose_source_evaluates_text_has_been_looked_at(gym_library):
    own_text_only = {"basic_arithmetic", "bitwise_arithmetic", "codeio", "number_sorting", "propositional_logic"}
    evaluates = re.compile(r"(?<!re\.)\b(eval|exec|parse_expr|sympify)\(")
    modules = {name: inspect.getmodule(task) for name, (task, _) in gym_library.factory.DATASETS.items()}
    evaluating = {name for name, module in modules.items() if evaluates.search(inspect.getsource(module))}
    assert evaluating == RUN_ANSWERS | own_text_only
    assert set(gym_library.factory.DATASETS) >= RUN_ANSWERS | UNSTEADY


def test_prompts_of_other_sources_cannot_be_judged_by_the_gym(tmp_path, gym_library):
    prompts, _ = load_prompts([table_file(tmp_path, "query,answer\n2 + 2?,4\n")])
    with pytest.raises(ConfigError, match="it is not a prompt of reasoning-gym: choose another reward"):
        build_reward(ReasoningGymReward(type="reasoning_gym")).check_prompts(prompts)


def test_an_answer_on_which_the_scorer_fails_is_not_wrong_but_unjudged(gym_library, monkeypatch):
    prompts, _ = load_prompts([gym("leg_counting", size=2)])
    monkeypatch.setattr(gym_library.factory.DATASETS["leg_counting"][0], "score_answer", lambda *_: 1 / 0)
    assert scores(prompts, lambda row: "4") == [None, None]
    assert build_reward(ReasoningGymReward(type="reasoning_gym")).fingerprint()["release"]


@pytest.mark.slow
def test_gym_tasks_draw_the_same_items_in_every_process(gym_library):
    code = """
import hashlib, reasoning_gym
for name in sorted(set(reasoning_gym.factory.DATASETS) - set({left_out!r})):
    drawn = reasoning_gym.create_dataset(name, seed=3, size=3)
    print(name, hashlib.sha256(repr([drawn[n] for n in range(3)]).encode()).hexdigest())
"""
    code = code.replace("{left_out!r}", repr(sorted(UNSTEADY | {"composite"})))
    first, second = (
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], env={**os.environ, "PYTHONHASHSEED": seed},
                       text=True, capture_output=True, check=True).stdout.splitlines()
        for seed in ("1", "2")
    )  # fmt: skip
    assert [line for line in first if line not in second] == []
    assert len(first) > 90
