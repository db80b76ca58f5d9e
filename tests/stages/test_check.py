"""`hir check`: planted mistakes are found before any launch, each with what to do, and nothing is written."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from flows.terminal.check import check_text
from hir_core.config.load import parse_config
from hir_core.stages.check import Lengths, check_config
from hir_core.stages.prompts import check
from hir_core.stages.run import Run

QUESTIONS = [
    {
        "query": f"What is {n} and {n}{', please' * 40 * (n == 7)}?",
        "references": [f"{2 * n}" if n else "nothing at all, or in other words zero"],
    }
    for n in range(40)
]
SETTINGS = {
    "run": "mine",
    "iterations": 1,
    "model": {"type": "scratch", "context": 64},
    "prompts": [{"path": "questions.jsonl", "test_share": 0.25}],
    "sampling": {"max_new_tokens": 6},
    "reward": {"type": "exact_match"},
    "deepspeed": "ds_configs/laptop.json",
}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, QUESTIONS)))
    return tmp_path


def tried(changes):
    run = Run(parse_config(SETTINGS | changes))
    return check_config(run, check(run))


def test_prompts_lengths_verdicts_and_triples_are_shown_and_nothing_is_written(folder):
    before = sorted(folder.rglob("*"))
    found = tried({"model": {"type": "scratch", "context": 64, "template": "{query}\n{instruction}\n"}})
    assert (found.train, found.test, found.errors) == (30, 10, [])
    assert found.context == 64
    assert found.prompt_tokens is not None
    assert found.prompt_tokens.median < 40
    assert found.reference_tokens is not None
    assert found.reference_tokens.median == 2  # a number, and the token that ends it
    words, too_long, cut = found.warnings
    assert words.startswith("of 1 of 40 prompts every reference has more words than an output may have tokens, 6")
    assert cut.startswith(
        "the longest reference of 1 of 40 prompts takes more than sampling.max_new_tokens=6: raise it"
    )
    longest = found.prompt_tokens.most
    assert re.match(rf"1 of \d0 \w+ prompts are too long .* of 64 tokens: .* has {longest}, and 6 are for", too_long)
    assert too_long.endswith("a run leaves them out; shorten them, or lower sampling.max_new_tokens")
    (text, is_control), *_ = found.rendered[0]
    assert text.endswith("Generate a correct answer to this problem.\n")
    assert not is_control
    assert [(output.score, output.is_reference) for output in found.tried] == [(1.0, True)] * 16 + [(0.0, False)] * 16
    right, wrong = sorted(found.triples, key=lambda triple: triple["excluded_from"] is not None)
    assert (right["weight"], wrong["weight"], wrong["output"]) == (1.0, 0.0, "I do not know.")
    assert sorted(folder.rglob("*")) == before
    lines = list(check_text("mine", found, None, ["hir", "run", "mine.yaml"]))
    assert lines[-1] == "next    hir run mine.yaml"
    assert max(len(line) for line in lines if "too long" not in line) <= 160


PLANTED = """
def score(completions, prompts):
    raise KeyError("answer")

def score_by_length(completions, prompts):
    return [min(0.5, len(text) / 100) for text in completions]

def like_everything(completions, prompts):
    return [1.0 for text in completions]
"""


@pytest.fixture
def rewards(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    (folder / "planted_rewards.py").write_text(PLANTED)


def test_a_short_context_and_a_reward_that_raises_are_found_together(rewards):
    reward = {"type": "python", "function": "planted_rewards:score"}
    found = tried({"model": {"type": "scratch", "context": 20}, "reward": reward})
    *too_long, raising = found.errors
    assert [text.partition(" prompts are too long")[0] for text in sorted(too_long)] == [
        "10 of 10 test",
        "30 of 30 train",
    ]
    assert "KeyError" in raising


@pytest.mark.parametrize(
    ("function", "warning"),
    [
        ("score_by_length", r"16 of 16 references, .* '\w+' scores 0.\d+.* and relabel.threshold is 1"),
        ("like_everything", r"the reward calls 'I do not know.' correct for 16 of 16 prompts"),
    ],
)
def test_rewards_that_cannot_tell_right_from_wrong_are_found(rewards, monkeypatch, function, warning):
    monkeypatch.setattr("hir_core.stages.check._try_rendering", lambda *_: None)
    found = tried({"reward": {"type": "python", "function": f"planted_rewards:{function}"}})
    assert found.errors == []
    [_, line] = found.warnings
    assert re.match(warning, line), line
    assert "the model's context is unknown" in "\n".join(check_text("mine", found, None, ["hir", "run"]))


def test_without_an_instruction_none_is_shown(folder, monkeypatch):
    monkeypatch.setattr("hir_core.stages.check._try_rendering", lambda *_: None)
    found = tried({"instructions": {"correct": None}, "relabel": {"type": "keep_correct"}})
    shown = [line for line in check_text("mine", found, None, ["hir", "run"]) if line.startswith("relabel")]
    assert shown
    assert all(line.endswith(": taught under no instruction") for line in shown)


def test_a_model_that_is_nowhere_is_found_and_the_command_ends_with_1(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (folder / "mine.yaml").write_text(json.dumps(SETTINGS | {"model": {"source": "nobody/nothing"}}))
    done = CliRunner().invoke(app, ["check", "mine.yaml", "--json"])
    assert done.exit_code == 1, done.output
    shown = json.loads(done.output)
    assert "model.source: cannot load `nobody/nothing` as a folder or a hub name" in shown["errors"][0]
    assert shown["warnings"][-1].startswith("memory could not be estimated: ")
    assert not (folder / "runs").exists()


def test_the_median_of_lengths_is_that_of_the_sorted_ones():
    assert Lengths.of([5, 1, 3]) == Lengths(3, 5)
    assert Lengths.of([]) is None
