"""Real task files of both benchmarks: none refused, every example read or counted, every letter and text that option's.

The files are those of the folder that `benchmark_files` describes.
"""

import json
import re
from collections import Counter

import polars as pl
import pytest
from benchmark_files import BENCHMARKS, needs_benchmarks
from pydantic import TypeAdapter

from hir_core.config import AnswerReward, BigBenchHardPrompts, BigBenchPrompts, RewardConfig
from hir_core.prompts.bigbench import read_bbh, read_bigbench
from hir_core.prompts.load import load_prompts
from hir_core.prompts.options import letter_index, option_index, read_options
from hir_core.prompts.splits import leaks
from hir_core.rewards.registry import build_reward

FILES = sorted([*BENCHMARKS.rglob("bbh/*.json"), *BENCHMARKS.rglob("task.json")])
pytestmark = needs_benchmarks


def source_of(path, **settings):
    if path.name == "task.json":
        return BigBenchPrompts(type="bigbench", path=path, **settings)
    return BigBenchHardPrompts(type="bbh", path=path, **settings)


def examples_and_items(path):
    read = read_bigbench if path.name == "task.json" else read_bbh
    items = read(source_of(path), frozenset())
    pairs = zip(json.loads(path.read_text())["examples"], items, strict=True)
    return [(example, item) for example, item in pairs if not item.rejected]


every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(BENCHMARKS)))


@every_file
def test_each_example_is_read_or_counted_and_most_are_read(path):
    prompts, rejected = load_prompts([source_of(path)])
    total = len(json.loads(path.read_text())["examples"])
    assert prompts.height + sum(rejected.values()) == total
    assert sum(rejected.values()) <= total / 20


@every_file
def test_each_letter_and_each_text_names_its_own_option(path):
    for _, item in examples_and_items(path):
        if item.options is None:
            continue
        question, options, lettered = read_options(item.query)
        assert options == item.options
        assert len(question) < len(item.query)
        assert [option_index(text, options) for text in options] == list(range(len(options)))
        if lettered:
            letters = [f"({chr(ord('A') + place)})" for place in range(len(options))]
            assert [option_index(letter, options) for letter in letters] == list(range(len(options)))


@every_file
def test_the_references_name_the_right_options_of_the_raw_example(path):
    for example, item in examples_and_items(path):
        if item.options is None:
            continue
        named = {option_index(reference, item.options) for reference in item.references}
        if "target_scores" not in example:
            assert named == {option_index(example["target"].strip(), item.options)}
            continue
        scores = {" ".join(text.split()): score for text, score in example["target_scores"].items()}
        right = {text for text, score in scores.items() if score == max(scores.values())}
        if not right <= set(item.options):  # the raw keys are letters, which the raw question explains
            assert all(re.search(rf"(?i){re.escape(key)}\W+{re.escape(item.options[place])}", example["input"])
                       for place, key in enumerate(sorted(scores)))  # fmt: skip
            right = {item.options[sorted(scores).index(key)] for key in right}
        assert {item.options[place] for place in named} == right


STYLES = ("{}", "**{}**", "The answer is {}.", "Answer: {}", r"\boxed{{{}}}", "<answer>{}</answer>")


@every_file
@pytest.mark.parametrize("reward", ["answer", "option_choice"])
def test_each_option_is_judged_by_its_letter_and_by_its_text(path, reward):
    """A text that two options share, or that is another option's letter, names neither."""
    reward = build_reward(TypeAdapter(RewardConfig).validate_python({"type": reward}))
    prompts, _ = load_prompts([source_of(path)])
    wrong = []
    for prompt in prompts.filter(pl.col("options").is_not_null()).iter_rows(named=True):
        options, lettered = prompt["options"], read_options(prompt["query"]).lettered
        right = {option_index(reference, options) for reference in prompt["references"]}
        for place, text in enumerate(options):
            names = [f"({chr(ord('A') + place)})"] if lettered else []
            is_other_letter = lettered and letter_index(text, len(options)) not in (None, place)
            names += [text] if options.count(text) == 1 and not is_other_letter else []
            for name in names:
                for style in STYLES if len(names[-1]) < 60 else STYLES[:1]:
                    said = reward.verdict(style.format(name), {**prompt, "metadata": {}})
                    if said.score != float(place in right):
                        wrong.append((style.format(name), options[place], said.score, said.reason))
    assert wrong == []


@every_file
def test_a_free_answer_is_judged_right_in_every_style(path):
    reward = build_reward(AnswerReward())
    prompts, _ = load_prompts([source_of(path)])
    wrong = []
    for prompt in prompts.filter(pl.col("options").is_null()).iter_rows(named=True):
        for style in STYLES:
            said = reward.verdict(style.format(prompt["references"][0]), {**prompt, "metadata": {}})
            if said.score != 1.0:
                wrong.append((style.format(prompt["references"][0]), said))
    assert wrong == []


@every_file
def test_a_fifth_can_be_split_off_without_a_leak(path):
    prompts, _ = load_prompts([source_of(path, test_share=0.2)])
    share = Counter(prompts["split"])["test"] / prompts.height
    assert 0.1 < share < 0.3
    assert leaks(prompts).is_empty()
