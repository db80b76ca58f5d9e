"""The READMEs are true: commands, options, links, paths and settings exist, configs load, quotes are literal."""

import ast
import re
import runpy
import shlex
import shutil
from functools import cache
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
import typer
import yaml
from cli_run import hir, manifest
from reward_tables import prompts, samples

from flows.cli.app import app
from flows.start import CONFIGS
from hir_core.config import ExactMatchReward, PythonReward, RunConfig, Section, SelectConfig, load_config
from hir_core.config.comparison import load_comparison
from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS
from hir_core.config.load import find_config
from hir_core.prompts.constraints.registry import KINDS
from hir_core.prompts.synthetic.registry import SYNTHETIC
from hir_core.relabelers.registry import build_relabeler
from hir_core.rewards.registry import build_reward
from hir_core.schemas import Samples
from hir_core.stages.check import check_config
from hir_core.stages.prompts import check
from hir_core.stages.run import Run

CHECKOUT = Path(__file__).resolve().parent.parent
EXAMPLES = CHECKOUT / "flows" / "examples"
READMES = [
    CHECKOUT / "README.md",
    *sorted(path for name in ("ds_configs", "flows", "hir_core", "tests") for path in (CHECKOUT / name).rglob("*.md")),
]
PAGES = [*READMES, CHECKOUT / "CHANGELOG.md"]
MADE = {
    *("manifest.json", "branches.json", "report.html", "job.json", "results.json", "curves.parquet", "table.md"),
    *("plot.svg", "curves.png", "lines.json", "hosts.txt", "task.json", "object_counting.json", "triples.jsonl"),
}
"""Files of a run, of a comparison, of a user or of a benchmark, which a page may name and this repository lacks."""
NO_PATHS = re.compile(r"runs/.*|(prompts|samples|rewards|instructions|triples|models|evaluations)/.*|owner/name")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

every_readme = pytest.mark.parametrize("page", READMES, ids=lambda page: str(page.relative_to(CHECKOUT)))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))


@cache
def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page, each with its language."""
    return BLOCK.findall(page.read_text())


@cache
def spans(page: Path) -> list[str]:
    """What stands in backticks outside of the fenced blocks."""
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", BLOCK.sub("", page.read_text()))]


def commands(page: Path) -> list[list[str]]:
    """Every `hir ...` in the code of a page, as words: whole lines of blocks, and whole spans."""
    lines = [line for _, text in blocks(page) for line in text.splitlines()] + spans(page)
    found = [re.search(r"(?:^|^\$ |&& )(hir [a-z-].*)", line.replace(r"\|", "|")) for line in lines]
    return [shlex.split(match[1].partition(" | ")[0].partition(" · ")[0], comments=True) for match in found if match]


# --- all pages -------------------------------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 200


@every_readme
def test_every_command_and_option_exists(page):
    known_commands = typer.main.get_command(app).commands
    for _, name, *arguments in (words for words in commands(page) if words[1] != "--version"):
        if name == "COMMAND":
            continue
        assert name in known_commands, f"{page}: hir {name}"
        known = {option for parameter in known_commands[name].params for option in parameter.opts} | {"--help"}
        assert {word.partition("=")[0] for word in arguments if word.startswith("--")} <= known, f"{page}: hir {name}"


def test_the_pages_show_the_commands_that_people_need():
    shown = {words[1] for page in READMES for words in commands(page)}
    assert shown >= {command.name or command.callback.__name__ for command in app.registered_commands}


@every_readme
def test_every_config_in_a_command_exists_and_takes_the_changes(page, monkeypatch):
    monkeypatch.chdir(page.parent if page.parent.parent == EXAMPLES else EXAMPLES / "custom_reward")
    for _, name, *arguments in commands(page):
        given = [word for word in arguments if not word.startswith("--")]
        if name == "run" and given != ["[CONFIG]"]:
            config, changes = ("quickstart", given) if not given or "=" in given[0] else (given[0], given[1:])
            if config not in ("NAME", "relabeled.yaml"):
                load_config(find_config(config, CONFIGS), changes)
        if name == "compare" and given and given[0] != "mine.yaml":
            load_comparison(find_config(given[0], CONFIGS), CONFIGS)


@every_page
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text())):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(there), f"{page}: {target}"


def anchors(page: Path) -> set[str]:
    """What a link can name of a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@every_readme
def test_every_path_and_module_exists(page):
    for span in spans(page):
        if re.fullmatch(r"(hir_core|flows)(\.\w+)+", span):
            place = CHECKOUT.joinpath(*span.split("."))
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{page}: {span}"
        elif is_path(span):
            places = [home / span for home in (CHECKOUT, page.parent, CHECKOUT / "hir_core", CONFIGS, EXAMPLES)]
            known = [*places, CONFIGS / f"{span}.yaml", *CHECKOUT.glob(f"tests/*/{span}"), *EXAMPLES.glob(f"*/{span}")]
            assert any(place.exists() for place in known), f"{page}: {span}"


def is_path(span: str) -> bool:
    """Whether a span names a file or folder of this repository."""
    if span in MADE or NO_PATHS.fullmatch(span) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", span):
        return False
    return "/" in span or Path(span).suffix in (".py", ".yaml", ".json", ".jsonl", ".md", ".txt", ".html")


@every_readme
def test_every_yaml_block_loads(page, tmp_path):
    for language, text in blocks(page):
        if language == "yaml":
            (tmp_path / "shown.yaml").write_text(text)
            settings = yaml.safe_load(text)
            if "apiVersion" in settings:  # of Kubernetes: see tests/launch/test_cluster_files.py
                continue
            if "compare" in settings:
                comparison, arms = load_comparison(tmp_path / "shown.yaml", CONFIGS)
                assert len(arms) == len(comparison.seeds) * len(comparison.tasks) * len(comparison.methods)
            else:
                load_config(tmp_path / "shown.yaml")


@every_readme
def test_every_setting_in_the_text_is_one(page):
    """`training.steps` is a setting, and `iterations=8` and `retention: {last: 2}` are what settings can be set to."""
    for span in spans(page):
        match = re.fullmatch(r"(\w+)((?:\.\w+)*)(?:(?:=|: )(.+))?", span)
        top, below, value = match.groups() if match else ("", "", None)
        if top in SelectConfig.model_fields and value is not None:
            top, below = "select", f".{top}"
        if top in RunConfig.model_fields and value is not None:
            changes = [f"{top}{below}={value}"] if ": " in span.partition("=")[0] else shlex.split(span)
            load_config(CONFIGS / "quickstart.yaml", changes)
        elif top in RunConfig.model_fields and below not in ("", ".py"):
            assert has_setting(RunConfig, [top, *below[1:].split(".")]), f"{page}: {span}"


def has_setting(section: type[Section], names: list[str]) -> bool:
    """Whether a section has a setting of the first name, and the sections in it one of the next, and so on."""
    field = section.model_fields.get(names[0])
    return field is not None and (
        not names[1:] or any(has_setting(s, names[1:]) for s in sections_in(field.annotation))
    )


def sections_in(hint: Any) -> list[type[Section]]:
    own = [hint] if isinstance(hint, type) and issubclass(hint, Section) else []
    return own + [section for inner in get_args(hint) for section in sections_in(inner)]


# --- what is described -----------------------------------------------------------------------------------------------


def test_every_synthetic_task_stands_in_its_table_with_its_dials():
    text = (CHECKOUT / "flows" / "configs" / "README.md").read_text().split("| `task` | `dials` |")[1].split("\n\n")[0]
    rows = [re.findall(r"`(\w+)`", line) for line in text.splitlines() if "`" in line]
    assert {task: set(dials) for task, *dials in rows} == {
        task: set(generator.dials_model.model_fields) for task, generator in SYNTHETIC.items()
    }


def test_every_kind_of_constraint_is_named():
    text = (CHECKOUT / "flows" / "configs" / "README.md").read_text().split("The kinds are ")[1].split(".")[0]
    assert re.findall(r"`(\w+)`", text) == list(KINDS)


def test_every_recipe_stands_in_its_table():
    text = (CHECKOUT / "flows" / "configs" / "README.md").read_text().split("## Recipes")[1].split("\n\n")[1]
    assert set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE)) == {path.stem for path in CONFIGS.glob("*.yaml")}


def test_every_deepspeed_file_stands_in_its_table():
    text = (CHECKOUT / "ds_configs" / "README.md").read_text()
    assert set(re.findall(r"^\| `(\w+\.json)`", text, re.MULTILINE)) == {
        path.name for path in SHIPPED_DS_CONFIGS.glob("*.json")
    }


def test_the_packages_and_their_arrows_are_those_that_are_tested():
    rows = re.findall(r"^\| (`.+?`) \|.*\|$", (CHECKOUT / "hir_core" / "README.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    there = {path.stem for path in (CHECKOUT / "hir_core").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert named == there - {"__init__", "__pycache__", "py"}


def test_every_message_that_is_explained_is_one_of_the_program():
    """Messages with `…` in the place of what differs, as the literals and f-strings of the source have them."""
    sources = [path for folder in ("flows", "hir_core") for path in (CHECKOUT / folder).rglob("*.py")]
    written = {text for path in sources for text in messages(ast.parse(path.read_text()))}
    quoted = [text.strip() for _, text in blocks(CHECKOUT / "flows" / "TROUBLESHOOTING.md")]
    assert len(quoted) >= 25
    assert [text for text in quoted if not any(text in message for message in written)] == []


def messages(tree: ast.AST) -> set[str]:
    """The texts in a module, with `…` in the place of what an f-string inserts."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            found.add(re.sub("…+", "…", "".join(map(str, parts))))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


# --- the examples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "example"),
    [
        ("README.md", "custom_reward/mine.yaml"),
        ("README.md", "custom_reward/my_rewards.py"),
        ("flows/configs/README.md", "custom_relabeler/my_relabeler.py"),
        ("flows/examples/chat/README.md", "chat/chat.yaml"),
    ],
)
def test_an_example_is_quoted_to_the_letter(page, example):
    text = (EXAMPLES / example).read_text()
    assert text in [block for _, block in blocks(CHECKOUT / page)]
    assert len(text.splitlines()) <= 20


def test_the_question_that_the_readme_shows_is_the_first_of_the_example():
    first = (EXAMPLES / "custom_reward" / "questions.jsonl").read_text().splitlines()[0]
    assert first in spans(CHECKOUT / "README.md")


def test_the_chat_that_the_page_shows_is_the_first_of_the_example():
    first, _ = (EXAMPLES / "chat" / "chats.jsonl").read_text().split("\n", 1)
    assert ("json", f"{first}\n") in blocks(EXAMPLES / "chat" / "README.md")


@pytest.fixture
def example(request, tmp_path, monkeypatch) -> Path:
    """A copy of the examples; the current folder is that of the named one."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("runs", "__pycache__"))
    folder = tmp_path / "examples" / request.param
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.parametrize("example", ["custom_reward"], indirect=True)
def test_the_example_of_a_reward_can_run_and_scores(example):
    config = load_config(example / "mine.yaml")
    table = check(Run(config)).rows
    assert table.height == len((example / "questions.jsonl").read_text().splitlines())
    assert isinstance(config.reward, PythonReward)
    scored = build_reward(config.reward).score(samples("42", " 42.", "43", "forty"), prompts({"references": ["42"]}))
    assert scored["score"].to_list() == [1.0, 1.0, 0.0, None]


@pytest.mark.parametrize("example", ["custom_relabeler"], indirect=True)
def test_the_example_of_a_relabeler_can_run_and_relabels(example):
    config = load_config(example / "relabeled.yaml")
    check(Run(config))
    facts = {"model": "m", "instruction": "i", "k": 0, "prompt_ids": [1], "completion_ids": [2], "logprobs": [-0.1],
             "finish_reason": "eos", "seed": 0}  # fmt: skip
    rows = [facts | row for row in samples("14", "6", "7").to_dicts()]
    drawn = pl.DataFrame(rows, schema=Samples.create_empty().schema)
    questions = prompts({"query": "Which is larger, 6 or 14?", "references": ["14"]})
    scored = build_reward(ExactMatchReward()).score(drawn, questions)
    triples, rejected = build_relabeler(config.relabel, config.instructions).relabel(drawn, scored, questions)
    assert dict(triples.select("output", "instruction").iter_rows()) == {
        "14": config.instructions.correct,
        "6": config.instructions.wrong,
    }
    assert rejected == {"left out by the function": 1}


TINY_CHAT_MODEL = (
    "model={type: scratch, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64, context: 512, "
    'template: "{history}\\n{instruction}\\n{query}\\n"}'
)
"""What stands in for the pretrained model of the example `chat`."""


@pytest.mark.parametrize("example", ["chat"], indirect=True)
def test_the_example_of_chats_is_checked_and_relabels(example):
    config = load_config(example / "chat.yaml", [TINY_CHAT_MODEL])
    rows = check(Run(config)).rows
    found = check_config(Run(config), check(Run(config)))
    assert (found.train + found.test, found.errors, found.warnings) == (400, [], [])
    assert found.prompt_tokens is not None
    asks = pl.col("query").str.ends_with("Write in small letters only. Do not use any commas.")
    asked = rows.filter(asks, split="train")[:1]
    answers = samples("wash it, then eat", "Wash it, then eat", "wash it", prompt_id=asked["prompt_id"][0])
    facts = {"model": "m", "instruction": "", "k": 0, "prompt_ids": [1], "completion_ids": [2], "logprobs": [-0.1],
             "finish_reason": "eos", "seed": 0}  # fmt: skip
    drawn = pl.DataFrame([facts | row for row in answers.to_dicts()], schema=Samples.create_empty().schema)
    scored = build_reward(config.reward).score(drawn, asked)
    assert scored["score"].to_list() == [0.5, 0.0, 1.0]
    triples, _ = build_relabeler(config.relabel, config.instructions).relabel(drawn, scored, asked)
    asked_for = {row["output"]: row["query"] for row in triples.iter_rows(named=True)}
    assert asked_for["wash it, then eat"].endswith("? Write in small letters only.")
    assert asked_for["wash it"] == asked["query"][0]


@pytest.mark.parametrize("example", ["chat"], indirect=True)
def test_the_chats_of_the_example_are_those_that_its_script_writes(example):
    written = (example / "chats.jsonl").read_text()
    (example / "chats.jsonl").unlink()
    runpy.run_path("make_chats.py", run_name="__main__")
    assert (example / "chats.jsonl").read_text() == written


@pytest.mark.slow
@pytest.mark.parametrize("example", ["chat"], indirect=True)
def test_the_example_of_chats_runs_to_its_end(example, prefect_home):
    output = hir(example, prefect_home, "run", "chat.yaml", "iterations=1", "sampling.prompts=32", TINY_CHAT_MODEL)
    assert "model   runs/chat/models/0001-" in output
    assert manifest(example / "runs/chat", "rewards@1")["rows"] == 32 * 4
    assert manifest(example / "runs/chat", "triples@1")["rows"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("example", ["custom_reward"], indirect=True)
def test_the_example_of_a_reward_runs_to_its_end(example, prefect_home):
    tiny = "model={type: scratch, hidden_size: 32, layers: 1, heads: 2, intermediate_size: 64, context: 64}"
    changes = ["iterations=1", tiny, "warm_start.epochs=12", "warm_start.learning_rate=0.01", "sampling.prompts=64"]
    output = hir(example, prefect_home, "run", "mine.yaml", *changes)
    assert "model   runs/mine/models/0001-" in output
    assert manifest(example / "runs/mine", "rewards@1")["rows"] == 64 * 4
    assert 0 < manifest(example / "runs/mine", "triples@1")["rows"] < 64 * 4
