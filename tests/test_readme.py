"""What the README shows is true: its own functions of a user's work, its configs load, its commands exist."""

import re
from pathlib import Path

import polars as pl
import pytest
from reward_tables import prompts, samples

from flows.cli.app import app
from flows.cli.run import CONFIGS
from hir_core.config import ExactMatchReward, Instructions, PythonRelabel, PythonReward, SelectConfig, load_config
from hir_core.config.comparison import load_comparison
from hir_core.prompts.load import READERS
from hir_core.prompts.synthetic.registry import SYNTHETIC
from hir_core.relabelers.registry import RELABELERS, build_relabeler
from hir_core.rewards.registry import REWARDS, build_reward
from hir_core.schemas import Samples

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(start: str) -> str:
    """The one code block that begins with these words."""
    (found,) = [text for _, text in BLOCKS if text.startswith(start)]
    return found


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_the_shown_reward_is_short_and_works(here):
    text = block("# my_rewards.py")
    assert len(text.splitlines()) <= 10
    (here / "my_rewards.py").write_text(text)
    reward = build_reward(PythonReward(type="python", function="my_rewards:score"))
    scored = reward.score(samples("42", " forty-two", "43"), prompts({"references": ["42", "forty-two"]}))
    assert scored["score"].to_list() == [1.0, 1.0, 0.0]


def test_the_shown_relabeler_is_short_and_works(here):
    text = block("# my_relabeler.py")
    assert len(text.splitlines()) <= 10
    (here / "my_relabeler.py").write_text(text)
    relabeler = build_relabeler(PythonRelabel(type="python", function="my_relabeler:relabel"), Instructions())
    facts = {"model": "m", "instruction": "i", "k": 0, "prompt_ids": [1], "completion_ids": [2], "logprobs": [-0.1],
             "finish_reason": "eos", "seed": 0}  # fmt: skip
    rows = [facts | row for row in samples("forty two", "42", "43").to_dicts()]
    drawn = pl.DataFrame(rows, schema=Samples.create_empty().schema)
    asked = prompts({"references": ["42", "forty two"]})
    scored = build_reward(ExactMatchReward()).score(drawn, asked)
    triples, rejected = relabeler.relabel(drawn, scored, asked)
    told = dict(triples.select("output", "instruction").iter_rows())
    assert told == {"forty two": "Answer in 2 words.", "42": "Answer in 1 words."}
    assert rejected == {"left out by the function": 1}


def test_the_shown_configs_load(here):
    (here / "mine.yaml").write_text(block("# mine.yaml"))
    assert load_config(here / "mine.yaml").reward.type == "python"
    (here / "both.yaml").write_text(block("compare:"))
    comparison, arms = load_comparison(here / "both.yaml", CONFIGS)
    assert len(arms) == 6
    assert comparison.reference == "keep_correct"


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("Where prompts come from", READERS),
        ("How outputs are scored", [*REWARDS, "combined", "reward_model"]),
        ("How instructions are relabeled", RELABELERS),
    ],
)
def test_every_type_stands_in_its_table(heading, known):
    section = README.split(f"### {heading}")[1].split("\n#")[0]
    _, *rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)  # the first is the header
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(known)


def test_every_synthetic_task_is_named():
    row = README.split("| `synthetic` |")[1].split("\n")[0]
    assert set(re.findall(r"`(\w+)`", row)) == set(SYNTHETIC)


def test_every_shown_command_exists():
    shown = {name for _, text in BLOCKS for name in re.findall(r"\bhir ([a-z]+)", text)}
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert shown <= known
    assert {"run", "ls"} <= shown


def test_settings_in_the_text_are_settings():
    """Every `select` setting that a paragraph names is one."""
    paragraph = README.split("`select` says which")[1].split("`training` has")[0]
    named = set(re.findall(r"`(\w+)(?::|`)", paragraph))
    assert named <= set(SelectConfig.model_fields)
