"""Prompts of several turns: read from every source, and rendered to the same tokens in sampling and training.

test_rendering.py tests what a chat template makes of turns.
"""

import csv
import json
from pathlib import Path

import duckdb
import polars as pl
import pytest
import torch
from chat_tokenizers import save_chat_model
from cli_run import hir, write_config
from reward_tables import prompts as prompt_rows
from reward_tables import samples

from hir_core.config import (
    ChainRelabel,
    DatasetsPrompts,
    ExactMatchReward,
    FilePrompts,
    HindsightRelabel,
    Instructions,
    PythonRelabel,
    PythonReward,
    TrainingConfig,
)
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError, SchemaError, TrainingError
from hir_core.launch.job_spec import SampleStep
from hir_core.modeling.rendering import Renderer
from hir_core.prompts.load import load_prompts
from hir_core.prompts.splits import check_leaks
from hir_core.relabelers.registry import build_relabeler
from hir_core.rewards.registry import build_reward
from hir_core.sampling import transformers_engine
from hir_core.sampling.draw import Limits
from hir_core.schemas import Prompts, Samples, Triples, as_lines, as_text, content_key
from hir_core.stages import plan
from hir_core.stages.identity import table_digest
from hir_core.stages.prompts import load, make_demonstrations, save_prompts
from hir_core.stages.run import Run
from hir_core.store.files import read_parts, write_part
from hir_core.store.manifest import identity, table_schema
from hir_core.store.store import Store
from hir_core.training import preflight, trainer
from hir_core.training.batches import BatchLayout
from hir_core.worker.samples import output_text, read_requests, sample_row

END = 1


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


SYSTEM, FIRST, REPLY = turn("system", "Be brief."), turn("user", "How many figs?"), turn("assistant", "3 figs.")
BEFORE = [SYSTEM, FIRST, REPLY]
CALL = {"id": "c1", "type": "function", "function": {"name": "weigh", "arguments": '{"what": "Pflaumen"}'}}
CHAT = {"messages": [*BEFORE, turn("user", "And plums?")], "references": ["4"]}
PLAIN = {"query": "How many pears?", "references": ["5"]}


def jsonl(folder: Path, *rows: object, name: str = "mine.jsonl", **settings: object) -> FilePrompts:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FilePrompts(path=path, **settings)


def table(*sources: object) -> pl.DataFrame:
    prompts, _ = load_prompts(sources)
    Prompts.validate(prompts)
    return prompts


# --- rows ------------------------------------------------------------------------------------------------------------


def test_the_query_is_the_last_user_turn_and_the_history_what_stands_before_it(tmp_path):
    chat, plain = table(jsonl(tmp_path, CHAT, PLAIN)).sort("query").to_dicts()
    assert (chat["query"], chat["history"], chat["references"]) == ("And plums?", BEFORE, ["4"])
    assert (plain["query"], plain["history"], plain["metadata"]) == ("How many pears?", None, None)
    assert chat["metadata"] is None


def test_one_user_turn_is_the_prompt_that_a_query_is(tmp_path):
    alone = {"messages": [turn("user", PLAIN["query"])], "references": PLAIN["references"]}
    assert table(jsonl(tmp_path, alone)).equals(table(jsonl(tmp_path, PLAIN)))


def test_what_stands_before_a_query_is_part_of_its_key(tmp_path):
    others = [[SYSTEM], [FIRST, REPLY], [turn("user", "Be brief."), FIRST, REPLY]]
    rows = [CHAT, *({**CHAT, "messages": [*before, turn("user", "And plums?")]} for before in others)]
    prompts = table(jsonl(tmp_path, *rows, {"query": "And plums?", "references": ["4"]}, test_share=0))
    assert prompts["prompt_id"].n_unique() == 5
    keys = {content_key("mine", "And plums?", None, ["4"], before) for before in [BEFORE, *others]}
    assert set(prompts["prompt_id"]) == {content_key("mine", "And plums?", None, ["4"]), *keys}


def test_options_are_offered_in_the_last_turn(tmp_path):
    (row,) = table(jsonl(tmp_path, {**CHAT, "references": ["four"], "options": ["four", "nine"]})).to_dicts()
    assert row["query"].startswith("And plums?\nOptions:\n(A) ")
    assert row["history"] == BEFORE


def test_every_source_reads_the_same_conversations(tmp_path):
    rows = [CHAT, {"messages": [FIRST], "references": ["3"]}, {"messages": [SYSTEM, FIRST], "references": ["3"]}]
    expected = table(jsonl(tmp_path, *rows))
    pl.DataFrame(rows).write_parquet(tmp_path / "mine.parquet")
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "messages", "references"])
        writer.writerows(["", json.dumps(row["messages"]), json.dumps(row["references"])] for row in rows)
    for name in ("mine.parquet", "mine.csv"):
        assert table(FilePrompts(path=tmp_path / name)).equals(expected), name


def test_a_dataset_of_conversations_is_read_by_its_mapping(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets", reason="the extra `datasets` is not installed")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"chat": CHAT["messages"], "answer": "4"}, {"chat": [FIRST], "answer": "3"}]
    library.Dataset.from_list(rows).save_to_disk(tmp_path / "mine")
    columns = {"messages": "chat", "references": "answer"}
    source = DatasetsPrompts(type="datasets", source=str(tmp_path / "mine"), columns=columns)
    expected = table(jsonl(tmp_path, *({"messages": row["chat"], "answer": row["answer"]} for row in rows)))
    assert table(source).equals(expected)


def test_a_mapping_names_the_query_or_the_messages_and_not_both():
    with pytest.raises(ConfigError, match="columns must say where `query` comes from, or else `messages`"):
        parse_config({"run": "r", "iterations": 0, "model": {"source": "a/b"}, "prompts": [
            {"type": "datasets", "source": "a/b", "columns": {"query": "a", "messages": "b"}}]})  # fmt: skip


@pytest.mark.parametrize("rows", [[CHAT, PLAIN], [CHAT]])
def test_a_table_of_conversations_reads_back_as_the_same_prompts(tmp_path, rows):
    prompts = table(jsonl(tmp_path, *rows))
    prompts.write_parquet(tmp_path / "prompts.parquet")
    assert table(FilePrompts(path=tmp_path / "prompts.parquet")).equals(prompts)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**CHAT, "query": "x"}, "`messages` and `query` both hold the question"),
        ({**CHAT, "history": [FIRST]}, "`messages` and `history` both hold the question"),
        ({"messages": [*BEFORE, REPLY]}, "`messages` must end with the user turn .*, found a turn of assistant: drop"),
        ({"messages": [SYSTEM]}, "`messages` must end with the user turn .*, found a turn of system"),
        ({"messages": "How many?"}, "`messages` must be a list of turns, like .*, found 'How many\\?'"),
        ({"messages": FIRST}, "`messages` must be a list of turns"),
        ({"messages": ["How many?"]}, "turn 1 of `messages` must hold a `role` and a `content`, found 'How many"),
        ({"messages": [SYSTEM, turn("human", "x")]}, "turn 2 of `messages` must have one of the roles system, user"),
        ({"messages": [{"content": "x"}]}, "turn 1 of `messages` must have one of the roles .*, found None"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, r"turn 1 of `messages` must have .*, found \['user'\]"),
        ({"messages": [turn("user", 3)]}, "turn 1 of `messages` must have text as its `content`, found 3"),
        ({"messages": [{"role": "user"}]}, "turn 1 of `messages` must have text as its `content`, found None"),
        ({"messages": [turn("system", " "), FIRST]}, r"turn 1 of `messages` \(system\) is empty: drop it"),
        ({"messages": [FIRST | {"name": "Ada"}]}, "turn 1 of `messages` has a field `name`, which prompts cannot"),
        ({"query": "x", "history": "Rome"}, "`history` must be a list of turns, like .*, found 'Rome'"),
        ({"query": "x", "history": [turn("user", "")]}, r"turn 1 of `history` \(user\) is empty"),
        ({"messages": [FIRST, turn("tool", "22")]}, "`messages` must end with the user turn .*, found a turn of tool"),
        ({"messages": [FIRST | {"tool_calls": [CALL]}, FIRST]}, "turn 1 of `messages` has a field `tool_calls`, which"),
        ({"messages": [{"role": "assistant", "tool_calls": [3]}, FIRST]}, "turn 1 of .* must have calls as its `tool_"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}, FIRST]}, "turn 1 of .* found {'funct"),
        ({"messages": [{"role": "tool", "name": "f"}, FIRST]}, "turn 1 of `messages` must have text as its `content`"),
        ({"mesages": [FIRST]}, "expected a `query`, found mesages: rename `mesages` to `messages`"),
        ({"text": "x"}, "expected a `query`, found text: name the column that holds the question `query`, or that"),
    ],
)  # fmt: skip
def test_a_malformed_conversation_is_named_with_what_is_wrong(tmp_path, row, message):
    with pytest.raises(ConfigError, match=rf"mine\.jsonl line 2: {message}"):
        load_prompts([jsonl(tmp_path, PLAIN, row)])


def test_a_cell_that_holds_no_list_of_turns_is_named(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("messages\nHow many?\n")
    with pytest.raises(
        ConfigError, match=r"mine\.csv line 2: expected `messages` as a JSON list in its cell, like \[\{"
    ):
        load_prompts([FilePrompts(path=path)])


def test_what_a_turn_leaves_empty_is_passed_over(tmp_path):
    """As in a Parquet file of which only some rows have tools."""
    (row,) = table(jsonl(tmp_path, {"messages": [SYSTEM | {"name": None}, FIRST | {"tool_calls": []}]})).to_dicts()
    assert row["history"] == [SYSTEM]


def test_calls_of_tools_are_lines_of_json_and_what_tools_said_are_turns(tmp_path):
    other = {"name": "buy", "arguments": {"what": "Äpfel", "n": 2}}
    called = [
        turn("user", "How heavy?"),
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        turn("tool", "2 kg") | {"tool_call_id": "c1", "name": "weigh"},
        turn("assistant", "I see.") | {"tool_calls": [other, {"name": "end", "arguments": "now"}]},
        turn("tool", "done"),
    ]
    rows = [{"messages": [SYSTEM, *called, FIRST], "references": ["4"]}]
    (row,) = table(jsonl(tmp_path, *rows)).to_dicts()
    assert row["history"] == [
        SYSTEM,
        turn("user", "How heavy?"),
        turn("assistant", '{"name": "weigh", "arguments": {"what": "Pflaumen"}}'),
        turn("tool", "2 kg"),
        turn("assistant", 'I see.\n{"name": "buy", "arguments": {"what": "Äpfel", "n": 2}}\n'
             '{"name": "end", "arguments": "now"}'),
        turn("tool", "done"),
    ]  # fmt: skip
    assert as_lines(row["history"][2:4]).splitlines()[1] == "Tool: 2 kg"
    pl.DataFrame([{"messages": row["history"] + [FIRST]}]).write_parquet(tmp_path / "mine.parquet")
    (again,) = table(FilePrompts(path=tmp_path / "mine.parquet")).to_dicts()
    assert again["history"] == row["history"]


def test_conversations_that_ask_nothing_are_counted(tmp_path):
    blank = [
        {"messages": []},
        {"messages": [SYSTEM, turn("user", " \n")]},
        {"query": "", "messages": [turn("user", "")]},
    ]
    prompts, rejected = load_prompts([jsonl(tmp_path, CHAT, *blank)])
    assert (prompts.height, rejected) == (1, {"blank query": 3})


def test_the_same_conversation_twice_names_both_rows(tmp_path):
    with pytest.raises(ConfigError, match=r"line 3 is the same prompt as .*mine\.jsonl line 1"):
        load_prompts([jsonl(tmp_path, CHAT, PLAIN, CHAT)])


# --- leaks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "leaks"),
    [
        ([*BEFORE, turn("user", "And plums?")], [*BEFORE, turn("user", "and  PLUMS!")], True),
        ([*BEFORE, turn("user", "And plums?")], [FIRST, turn("assistant", "9."), turn("user", "And plums?")], False),
        ([*BEFORE, turn("user", "Go on.")], [turn("user", "Go on.")], False),
        ([SYSTEM, FIRST], [FIRST], True),
        ([SYSTEM, FIRST], [turn("system", "Be verbose."), FIRST], True),
    ],
    ids=["other marks", "another answer", "the last turn alone", "no system turn", "another system turn"],
)
def test_a_conversation_leaks_where_its_user_and_assistant_said_the_same(tmp_path, train, test, leaks):
    rows = [{"messages": train, "split": "train"}, {"messages": test, "split": "test"}]
    prompts = table(jsonl(tmp_path, *rows))
    if not leaks:
        check_leaks(prompts)
    else:
        with pytest.raises(ConfigError, match="1 share their query"):
            check_leaks(prompts)


# --- tables ----------------------------------------------------------------------------------------------------------

PROMPTS_COLUMNS = (
    "prompt_id string, task string, group string, split enum[train|test], query string, "
    "history list[struct[role string|content string]], options list[string], references list[string], metadata string"
)


def test_plain_prompts_have_the_id_that_was_worked_out_by_hand():
    """Digest and id were taken with sha256sum from JSON texts typed by hand, without the code under test."""
    rows = prompt_rows(PLAIN)
    assert table_schema("prompts") == PROMPTS_COLUMNS
    assert "history list[struct[role string|content string]]" in table_schema("triples")
    assert table_digest(rows) == "6e7fa2d6e3fada77"
    assert identity("prompts", 0, {"rows": "6e7fa2d6e3fada77"}, ()).id == "0000-22825b4d"


def test_a_table_is_read_as_it_was_written(tmp_path):
    rows = prompt_rows(PLAIN, {**PLAIN, "history": BEFORE})
    for number, part in enumerate((rows, rows.head(1), rows.head(0))):
        store = Store(tmp_path / str(number))
        draft = store.draft(identity("prompts", 0, {}, ()))
        draft.write("a", part)
        ref = draft.commit()
        assert pl.read_parquet_schema(ref.path / "part-a.parquet")["history"] == part["history"].dtype
        assert store.table(ref).collect().equals(part)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of two train prompts, one of them a conversation, and a test prompt; nothing is done yet."""
    monkeypatch.chdir(tmp_path)
    source = jsonl(tmp_path, CHAT | {"split": "train"}, PLAIN | {"split": "train"}, {"query": "?", "split": "test"})
    return Run(parse_config({
        "run": "chat", "iterations": 1, "model": {"type": "scratch"}, "prompts": [source],
        "reward": {"type": "regex", "pattern": "4"}, "warm_start": {"demonstrations": 2},
        "deepspeed": "ds_configs/laptop.json",
    }))  # fmt: skip


def test_conversations_are_plain_columns_to_any_reader_of_parquet(run):
    ref = save_prompts(run, load(run))
    prompts = run.table(ref)
    assert prompts["history"].to_list().count(None) == 2
    assert run.metrics(ref)["conversations"] == 1
    said = duckdb.sql(f"select query, history[1].content from '{ref.path}/*.parquet' where history is not null")
    assert said.fetchall() == [("And plums?", "Be brief.")]


def test_triples_carry_the_turns_before_their_query(run):
    prompts = save_prompts(run, load(run))
    triples = run.table(make_demonstrations(run, prompts))
    Triples.validate(triples)
    histories = dict(triples.select("query", "history").iter_rows())
    assert histories == {"And plums?": BEFORE, "How many pears?": None}


def test_history_is_null_in_a_run_without_conversations(tmp_path, run):
    jsonl(tmp_path, *({"query": f"{n}", "references": ["4"], "split": ("train", "test")[n % 2]} for n in range(4)))
    ref = save_prompts(run, load(run))
    assert pl.read_parquet(ref.path / "part-0.parquet")["history"].to_list() == [None] * 4
    assert run.table(make_demonstrations(run, ref))["history"].to_list() == [None] * 2
    assert "conversations" not in run.metrics(ref)


def test_a_part_without_the_history_makes_no_version(tmp_path):
    draft = Store(tmp_path).draft(identity("prompts", 0, {}, ()))
    first, second = prompt_rows(PLAIN, {**PLAIN, "history": BEFORE}).partition_by("prompt_id")
    with pytest.raises(SchemaError, match=r"part-a\.parquet does not fit Prompts: column `history` is missing"):
        draft.write("a", first.drop("history"))
    write_part(draft.path, "a", first.drop("history"))
    draft.write("b", second)
    with pytest.raises(SchemaError, match=r"part-a\.parquet does not fit Prompts: column `history` is missing"):
        draft.commit()


def test_a_role_that_is_none_breaks_a_rule():
    with pytest.raises(Exception, match="history"):
        Prompts.validate(prompt_rows({**PLAIN, "history": [turn("human", "x")]}))


# --- what reads the query --------------------------------------------------------------------------------------------


def test_a_conversation_reads_as_lines():
    assert as_lines(BEFORE) == "System: Be brief.\nUser: How many figs?\nAssistant: 3 figs.\n"
    assert as_text(BEFORE, "And plums?") == as_lines([*BEFORE, turn("user", "And plums?")]).rstrip("\n")
    assert (as_lines(None), as_lines([]), as_text(None, "x\n"), as_text([], "x")) == ("", "", "x\n", "x")


def test_functions_of_the_user_see_the_turns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("my_turns.py").write_text(
        "def score(completions, prompts):\n"
        "    return [float(len(prompt['history'] or [])) for prompt in prompts]\n"
        "def relabel(samples):\n"
        "    return [sample['history'][0]['content'] if sample['history'] else None for sample in samples]\n"
    )
    prompts = prompt_rows({**PLAIN, "history": BEFORE}, PLAIN)
    drawn = pl.concat([drawn_rows("4"), drawn_rows("4", prompt_id="p1")])
    scored = build_reward(PythonReward(type="python", function="my_turns:score")).score(drawn, prompts)
    assert scored["score"].to_list() == [3.0, 0.0]
    relabeler = build_relabeler(PythonRelabel(type="python", function="my_turns:relabel"), Instructions())
    triples, rejected = relabeler.relabel(drawn, scored, prompts)
    assert triples.select("instruction", "history").rows() == [("Be brief.", BEFORE)]
    assert rejected == {"left out by the function": 1}


def drawn_rows(*completions: str, prompt_id: str = "p0", **changes: object) -> pl.DataFrame:
    facts = {"model": "m", "instruction": "i", "k": 0, "prompt_ids": [1], "completion_ids": [2], "logprobs": [-0.1],
             "finish_reason": "eos", "seed": 0, **changes}  # fmt: skip
    rows = [facts | row | {"sample_id": f"{prompt_id}-{n}"}
            for n, row in enumerate(samples(*completions, prompt_id=prompt_id).to_dicts())]  # fmt: skip
    return pl.DataFrame(rows, schema=Samples.create_empty().schema)


def test_a_relabeler_that_changes_the_query_keeps_the_turns_before_it():
    prompts = prompt_rows({"query": "And plums?", "references": ["4"], "history": BEFORE})
    drawn = drawn_rows("4", "9")
    scored = build_reward(ExactMatchReward()).score(drawn, prompts)
    relabeler = build_relabeler(ChainRelabel(type="chain", query="{query} Not {wrong}, but"), Instructions())
    triples, _ = relabeler.relabel(drawn, scored, prompts)
    assert triples.select("query", "history").rows() == [("And plums? Not 9, but", BEFORE)]


# --- from a file to the tokens that are trained on -------------------------------------------------------------------

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def sample_step(folder: Path, requests: Path, instruction: str) -> SampleStep:
    folder.mkdir()
    return SampleStep(
        name="sample", requests=requests, output=folder, version="samples@1", model="m", instruction=instruction,
        k=2, temperature=1.0, max_new_tokens=4, batch_tokens=500,
        zero3_weights="auto", write_every_s=9, iteration=1,
    )  # fmt: skip


@pytest.mark.parametrize("chat_template", [CHATML, None])
def test_a_conversation_in_a_file_is_sampled_and_trained_on_as_the_same_tokens(
    chat_template, tmp_path, build_model, tokenizer, monkeypatch
):
    monkeypatch.setattr(tokenizer, "chat_template", chat_template)
    renderer, instructions = Renderer(tokenizer, None), Instructions(correct="Be right.", wrong="Be wrong.")
    prompts = table(jsonl(tmp_path, CHAT, PLAIN, test_share=0))
    step = sample_step(tmp_path / "drawn", plan.write_requests(tmp_path, "sample", prompts), instructions.correct)
    requests = read_requests(step, renderer, room=400, seed=3)
    with torch.no_grad():
        limits = Limits(1.0, 4, (END,), 0)
        completions = transformers_engine.complete(
            build_model("llama", context=400), requests, limits, torch.device("cpu")
        )
    by_key = {request.key: request for request in requests}
    rows = [sample_row(step, by_key[c.key], c, output_text(by_key[c.key], c, renderer, None)) for c in completions]
    drawn = pl.DataFrame(rows, schema=Samples.create_empty().schema)
    rendered_ids = drawn.join(prompts, on="prompt_id").select("query", "prompt_ids").unique().iter_rows()
    texts = {query: tokenizer.decode(ids) for query, ids in rendered_ids}
    assert texts == {
        query: tokenizer.apply_chat_template(
            [*before, turn("user", f"Be right.\n\n{query}")], tokenize=False, add_generation_prompt=True
        )
        if chat_template
        else f"{as_lines(before)}Be right.\n{query}\n"
        for query, before in (("And plums?", BEFORE), ("How many pears?", []))
    }
    scored = build_reward(ExactMatchReward()).score(drawn, prompts)
    triples, _ = build_relabeler(HindsightRelabel(type="hindsight"), instructions).relabel(drawn, scored, prompts)
    write_part(tmp_path, "triples", triples)
    triples = read_parts(tmp_path)
    examples = trainer.read_examples(triples, renderer, TrainingConfig())
    sampled = drawn.join(prompts.select("prompt_id", "query", "history"), on="prompt_id")
    preflight.check_triples(examples, triples, sampled, renderer, BatchLayout(0, (END,), None, torch.device("cpu")))
    rendered = {prompt for example in examples for prompt in example.prompts}
    assert {tuple(ids) for ids in drawn["prompt_ids"].to_list()} < rendered
    assert len(rendered) == 4


def test_turns_that_were_lost_on_the_way_are_found_before_training(tokenizer):
    renderer = Renderer(tokenizer, None)
    prompts = prompt_rows({**PLAIN, "history": BEFORE})
    drawn = drawn_rows("5", instruction="Be right.", completion_ids=[7, END], logprobs=[-0.1, -0.1],
                       prompt_ids=renderer.prompt_ids("Be right.", PLAIN["query"], BEFORE))  # fmt: skip
    sampled = drawn.join(prompts.select("prompt_id", "query", "history"), on="prompt_id")
    scored = build_reward(ExactMatchReward()).score(drawn, prompts)
    triples, _ = build_relabeler(HindsightRelabel(type="hindsight"), Instructions()).relabel(drawn, scored, prompts)
    layout = BatchLayout(0, (END,), None, torch.device("cpu"))
    examples = trainer.read_examples(triples, renderer, TrainingConfig())
    preflight.check_triples(examples, triples, sampled, renderer, layout)
    lost = sampled.with_columns(history=pl.lit(None, dtype=sampled["history"].dtype))
    with pytest.raises(TrainingError, match="prompt of sample p0-0 now renders to other tokens"):
        preflight.check_triples(examples, triples, lost, renderer, layout)


def test_a_conversation_that_leaves_no_room_is_left_out_and_an_error_where_all_are(tmp_path, tokenizer):
    prompts = table(jsonl(tmp_path, CHAT, PLAIN))
    step = sample_step(tmp_path / "drawn", plan.write_requests(tmp_path, "sample", prompts), "Be right.")
    short, long = read_requests(step, Renderer(tokenizer, None), room=None, seed=3)
    if len(short.prompt_ids) > len(long.prompt_ids):
        short, long = long, short
    room = len(long.prompt_ids) + 3
    assert read_requests(step, Renderer(tokenizer, None), room=room, seed=3) == [short]
    with pytest.raises(ConfigError, match=rf"the shortest has {len(short.prompt_ids)} tokens, .* context of 9"):
        read_requests(step, Renderer(tokenizer, None), room=9, seed=3)


def test_a_template_that_refuses_a_turn_names_the_prompt(tmp_path, tokenizer):
    prompts = table(jsonl(tmp_path, CHAT))
    step = sample_step(tmp_path / "drawn", plan.write_requests(tmp_path, "sample", prompts), "Be right.")
    renderer = Renderer(tokenizer, "{instruction} {query}")
    with pytest.raises(ConfigError, match=rf"prompt {prompts['prompt_id'][0]} has 3 turn\(s\) before its query"):
        read_requests(step, renderer, room=None, seed=3)


@pytest.mark.slow
def test_a_chat_model_trains_on_conversations(tmp_path, prefect_home):
    """Through the command line, with a model in the manner of Qwen3: its template, its settings, thinking and stops."""
    save_chat_model(tmp_path / "chat")
    rows = [{"messages": [SYSTEM, FIRST, turn("assistant", f"{n} figs."), turn("tool", "ok"), turn("user", "Plums?")],
             "references": [str(n % 3)]} for n in range(24)]  # fmt: skip
    source = jsonl(tmp_path, *rows, test_share=0.25)
    changes = {"prompts": [{"path": str(source.path), "test_share": 0.25}],
               "model": {"source": "chat", "chat_template_kwargs": {"enable_thinking": False}, "thinking": {}},
               "instructions": {"correct": None},
               "warm_start": {"demonstrations": 12, "epochs": 2, "batch_size": 8, "learning_rate": 0.01},
               "sampling": {"k": 2, "max_new_tokens": 6, "preset": "model", "top_p": 0.9, "stop": ["1", "e", "r"]},
               "relabel": {"type": "hindsight"}}  # fmt: skip
    write_config(tmp_path, "chat-run", **changes)
    shown = hir(tmp_path, prefect_home, "run", "chat-run.yaml")
    assert "sampling: temperature 0.6, top_k 20, as the model's own settings say" in shown
    store = Store(tmp_path / "runs" / "chat-run")
    samples = store.resolve("samples@1")
    assert store.manifest(samples).metrics["preset"] == {"temperature": 0.6, "top_k": 20}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store.resolve("models@1").path)
    drawn = pl.read_parquet(samples.path / "part-*.parquet")
    for row in drawn.to_dicts():
        rendered = tokenizer.decode(row["prompt_ids"])
        assert rendered.startswith(
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow many figs?<|im_end|>"
        )
        assert rendered.endswith("user\nPlums?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n")
        text = tokenizer.decode(row["completion_ids"], skip_special_tokens=True)
        assert (row["finish_reason"] == "stop") == any(stop in text for stop in "1er")
        assert not any(stop in row["completion"] for stop in "1er")
    assert "stop" in drawn["finish_reason"].to_list()
    triples = pl.read_parquet(store.resolve("triples@1").path / "part-*.parquet")
    assert triples["history"].null_count() == 0
    assert "history" in hir(tmp_path, prefect_home, "show", "chat-run/triples@1")
    assert "sound" in hir(tmp_path, prefect_home, "verify", "chat-run")
