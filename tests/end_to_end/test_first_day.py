"""The first day with hir, through the command line: own chats and an own reward, from the first mistake to a chat.

A person brings a chat model with a thinking template, chats in three formats and a reward with partial credit. `hir
check` finds five mistakes before anything is started, the run says what is wrong with its samples, and its results are
asked, exported as preference pairs and looked at in TensorBoard. One run is shared by all tests.
"""

import json
import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest
import transformers
import yaml
from chat_tokenizers import save_chat_model
from cli_run import PATIENCE_S, command, environment, hir, wait_until

from hir_core.store.store import Store

pytestmark = pytest.mark.slow

COLORS = {"cherry": "red", "tomato": "red", "ruby": "red", "lime": "green", "kiwi": "green", "grass": "green"}
ASKED = "What color is this {}, please"
SYSTEM = {"role": "system", "content": "Be brief."}
WARM_START_STEPS = 12 * 24 // 8
CUT_OFF_AT = 4
"""Tokens: `red` and its end fit, `green` does not."""
REWARD = '''
"""Partial credit: 0.6 for the color, 0.2 more for a short answer. Never 1."""

def score(completions, prompts):
    pairs = zip(completions, prompts)
    return [0.6 * (text[:3] == prompt["references"][0][:3]) + 0.2 * (0 < len(text) < 8) for text, prompt in pairs]

def score_or_not(completions, prompts):
    return [float(len(text) / 0) for text in completions]
'''


@dataclass
class Day:
    """What the commands of the day said."""

    folder: Path
    home: Path
    mistakes: dict[str, str]
    checked: str
    first: str
    second: str

    @property
    def store(self) -> Store:
        return Store(self.folder / "runs" / "colors")


def write_chats(folder: Path) -> None:
    """The same kind of question as OpenAI's messages, as ShareGPT's conversations, and as Alpaca's instructions."""
    asked = [(f"{thing} number {n}", color) for n in range(8) for thing, color in COLORS.items()]
    rows = {
        "messages.jsonl": [
            {"messages": [SYSTEM, {"role": "user", "content": ASKED.format(thing)},
                          {"role": "assistant", "content": color}]}
            for thing, color in asked[::3]
        ],
        "sharegpt.json": [
            {"conversations": [{"from": "human", "value": ASKED.format(thing)}, {"from": "gpt", "value": color}]}
            for thing, color in asked[1::3]
        ],
        "alpaca.json": [
            {"instruction": "What color is this?", "input": thing, "output": color} for thing, color in asked[2::3]
        ],
    }  # fmt: skip
    for name, chats in rows.items():
        text = json.dumps(chats) if name.endswith(".json") else "\n".join(map(json.dumps, chats))
        (folder / name).write_text(text)
    (folder / "unnamed.jsonl").write_text(json.dumps({"ask": "What color is this plum?", "answer": "red"}))
    again = ASKED.format(asked[0][0])
    (folder / "again.jsonl").write_text(json.dumps({"messages": [SYSTEM, {"role": "user", "content": again}]}))


def settings() -> dict:
    return {
        "run": "colors",
        "iterations": 1,
        "model": {"source": "chat", "chat_template_kwargs": {"enable_thinking": False}, "thinking": {}},
        "prompts": [{"path": f"{name}", "test_share": 0.25} for name in ("messages.jsonl", "sharegpt.json")]
        + [{"path": "alpaca.json", "test_share": 0.25}],
        "reward": {"type": "python", "function": "colors:score"},
        "warm_start": {"demonstrations": 24, "epochs": 12, "batch_size": 8, "learning_rate": 0.01},
        "sampling": {"k": 4, "max_new_tokens": CUT_OFF_AT, "temperature": 1.0},
        "training": {"epochs": 2, "batch_size": 32, "learning_rate": 0.001, "label_smoothing": 0.0},
        "deepspeed": "ds_configs/laptop.json",
        "launch": {"processes": 1, "resident": True},
        "trackers": ["tensorboard"],
    }


MISTAKES = {
    "a setting misspelt": ["sampling.max_new_token=8"],
    "a column missing": ["prompts.1.path=unnamed.jsonl"],
    "a test chat among those to train on": [
        "prompts=[{path: messages.jsonl, test_share: 0}, {path: again.jsonl, test_share: 1}]"
    ],
    "a reward that raises, and a context too short": ["reward.function=colors:score_or_not",
                                                      "sampling.max_new_tokens=500"],
}  # fmt: skip


@pytest.fixture(scope="module")
def day(tmp_path_factory, prefect_home) -> Day:
    folder = tmp_path_factory.mktemp("first day")
    write_chats(folder)
    transformers.set_seed(0)
    save_chat_model(folder / "chat")
    (folder / "colors.py").write_text(REWARD)
    (folder / "colors.yaml").write_text(yaml.safe_dump(settings()))
    mistakes = {name: failed_check(folder, prefect_home, changes) for name, changes in MISTAKES.items()}
    assert not (folder / "runs").exists()
    checked = hir(folder, prefect_home, "check", "colors.yaml")
    first = hir(folder, prefect_home, "run", "colors.yaml")
    second = hir(folder, prefect_home, "run", "colors.yaml", "relabel.threshold=0.6")
    return Day(folder, prefect_home, mistakes, checked, first, second)


def failed_check(folder: Path, home: Path, changes: list[str]) -> str:
    call = command("check", "colors.yaml", *changes)
    done = subprocess.run(call, cwd=folder, env=environment(home), timeout=PATIENCE_S, text=True, capture_output=True)
    assert done.returncode in (1, 2), done.stdout
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("a setting misspelt", r"sampling\.max_new_token: unknown key; did you mean `max_new_tokens`\?"),
        ("a column missing", r"unnamed\.jsonl line 1: expected a `query`, found ask, answer"),
        ("a test chat among those to train on", r"1 of 1 test prompts leak into train"),
        ("a reward that raises, and a context too short", r"colors:score_or_not raised ZeroDivisionError"),
        ("a reward that raises, and a context too short", r"36 of 36 train prompts are too long .* of 512 tokens"),
    ],
)
def test_five_mistakes_are_found_before_anything_is_started(day, mistake, message):
    assert re.search(message, " ".join(day.mistakes[mistake].split())), day.mistakes[mistake]


def test_the_check_shows_the_chats_as_the_model_reads_them_and_what_the_reward_cannot_give(day):
    shown = " ".join(day.checked.split())
    assert "⟨<|im_start|>⟩assistant <think> </think>" in shown
    assert "Generate a correct answer to this problem." in shown
    assert "are not correct by the reward" in shown
    assert f"takes more than sampling.max_new_tokens={CUT_OFF_AT}: raise it to 6 or more" in shown


def test_chats_of_all_three_formats_are_sampled_after_their_system_turn(day):
    prompts = pl.read_parquet(day.store.resolve("prompts@0").path / "part-*.parquet")
    assert dict(prompts["task"].value_counts().iter_rows()) == {"messages": 16, "sharegpt": 16, "alpaca": 16}
    assert prompts.filter(pl.col("history").is_not_null())["task"].unique().to_list() == ["messages"]
    assert set(prompts["references"].explode()) == {"red", "green"}


def test_the_run_says_that_outputs_are_cut_off_and_that_no_score_reaches_the_threshold(day):
    assert re.search(rf"samples: \d+% cut off at {CUT_OFF_AT} tokens: raise sampling\.max_new_tokens", day.first)
    assert re.search(r"none of 144 outputs is correct: their mean score is 0\.\d+, and relabel\.threshold 1", day.first)
    assert re.search(r"mean score: test answers 0\.\d+, samples 0\.\d+", day.first)


def test_another_threshold_samples_nothing_anew_and_finds_correct_outputs(day):
    assert "outputs is correct" not in day.second
    stages = [ref.stage for ref in day.store.versions()]
    assert (stages.count("samples"), stages.count("rewards"), stages.count("triples")) == (1, 2, 3)
    assert day.store.manifest(day.store.resolve("rewards@latest")).metrics["correct_share"] > 0


def test_the_chat_answers_as_the_evaluation_did_under_the_prompt_of_the_training(day):
    prompts = pl.read_parquet(day.store.resolve("prompts@0").path / "part-*.parquet")
    asked = prompts.filter(pl.col("split") == "test", pl.col("task") == "sharegpt").sort("prompt_id")
    evaluated = pl.read_parquet(day.store.resolve("evaluations@latest").path / "part-*.parquet")
    options = {"cwd": day.folder, "env": environment(day.home), "timeout": PATIENCE_S}
    lines = "".join(f"{query}\n" for query in asked["query"])
    call = command("chat", "colors", "--json")
    done = subprocess.run(call, input=lines, text=True, capture_output=True, check=True, **options)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    expected = asked.join(evaluated, on="prompt_id", maintain_order="left")
    assert [answer["query"] for answer in answers] == asked["query"].to_list()
    assert [answer["completion"] for answer in answers] == expected["completion"].to_list()
    assert {answer["finish_reason"] for answer in answers} <= {"eos", "length"}


def test_samples_are_drawn_in_the_chat_template_with_its_thinking_left_out(day):
    tokenizer = transformers.AutoTokenizer.from_pretrained(day.store.resolve("models@latest").path)
    for sample in pl.read_parquet(day.store.resolve("samples@1").path / "part-*.parquet").to_dicts():
        rendered = tokenizer.decode(sample["prompt_ids"])
        assert f"<|im_start|>user\n{sample['instruction']}" in rendered
        assert rendered.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_the_pairs_load_as_the_preference_data_that_trl_trains_on(day, tmp_path):
    """TRL's "conversational preference" format with an explicit prompt: https://huggingface.co/docs/trl/dataset_formats."""
    pairs = tmp_path / "pairs.jsonl"
    hir(day.folder, day.home, "export", "rewards@latest", str(pairs), "--to", "dpo")
    datasets = pytest.importorskip("datasets")
    loaded = datasets.load_dataset("json", data_files=str(pairs), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == ["prompt", "chosen", "rejected", "prompt_id"]
    assert len(loaded) > 0
    for row in loaded:
        assert row["prompt"][-1]["role"] == "user"
        assert [turn["role"] for turn in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
        assert row["chosen"] != row["rejected"]
        if find_spec("trl"):
            from trl.data_utils import is_conversational

            assert is_conversational(row)


def test_tensorboard_shows_the_curves(day):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trackers = day.folder / "runs" / "colors" / "trackers"
    wait_until(lambda: recorded(trackers) == [2, 2], "the curves of both runs, which a process of their own writes")
    folders = sorted((trackers / "tensorboard").iterdir())
    curves = [accumulator.EventAccumulator(str(folder)).Reload() for folder in folders]
    assert len(curves) == 2  # the changed threshold begins a run of its own
    for events in curves:
        losses = [point.value for point in events.Scalars("train/loss")]
        assert len(losses) > WARM_START_STEPS
        assert losses[0] > losses[WARM_START_STEPS - 1] > 0
        assert len(events.Scalars("evaluation/mean_score")) == 2


def recorded(trackers: Path) -> list[int]:
    """How many models each run of the tracker has been given."""
    return [len(json.loads(path.read_text())["models"]) for path in sorted(trackers.glob("*.tensorboard.json"))]
