"""Tasks of stories: options are fair, rewards can judge them, stories stay whole, and wrong dials are named."""

import json
from collections import Counter

import polars as pl
import pytest
from benchmark_files import BBH, BIGBENCH, needs_benchmarks
from generator_cases import SIZE, before_options, drawn, evenly, right_text, rows_of, synthetic

from hir_core.config import BigBenchHardPrompts, ExactMatchReward, OptionChoiceReward
from hir_core.errors import ConfigError
from hir_core.prompts.load import load_prompts
from hir_core.prompts.options import with_options
from hir_core.prompts.splits import check_leaks
from hir_core.prompts.synthetic.registry import SYNTHETIC
from hir_core.rewards.registry import build_reward
from hir_core.schemas import content_key

OPTIONAL = [
    ("logical_deduction", {}),
    ("logical_deduction", {"objects": 5}),
    ("date_understanding", {}),
    ("date_understanding", {"options": 3}),
    ("penguins_in_a_table", {}),
    ("penguins_in_a_table", {"options": 2, "rows": 7, "max_changes": 4}),
]
FREE = [
    ("word_sorting", {}),
    ("word_sorting", {"shared_letters": 1, "max_words": 8}),
    ("date_understanding", {"options": 0}),
    ("penguins_in_a_table", {"options": 0}),
]


def as_params(cases):
    return [pytest.param(task, dials, id=f"{task}-{'-'.join(map(str, dials.values()))}") for task, dials in cases]


@pytest.mark.parametrize(("task", "dials"), as_params(OPTIONAL))
def test_options_differ_and_the_right_one_is_accepted_by_letter_and_text(task, dials):
    for row in rows_of(task, dials):
        options = row["options"]
        assert len({option.lower().replace(" ", "") for option in options}) == len(options)
        assert row["query"] == with_options(before_options(row), options)
        letter, text = row["references"]
        assert options["ABCDEFG".index(letter.strip("()"))] == text
        assert len(options) == dials.get("options", dials.get("objects", len(options)))


@pytest.mark.parametrize(("task", "dials"), as_params(OPTIONAL))
def test_the_right_option_stands_in_every_place_equally_often(task, dials):
    rows = rows_of(task, dials, size=2000)
    (places,) = {len(row["options"]) for row in rows}
    assert evenly(Counter(row["options"].index(right_text(row)) for row in rows), places)


@pytest.mark.parametrize(("task", "dials"), as_params(OPTIONAL))
def test_always_the_majority_answer_is_right_about_as_often_as_chance(task, dials):
    rows = rows_of(task, dials, size=2000)
    chance = 1 / len(rows[0]["options"])
    bound = chance + 4 * (chance * (1 - chance) / len(rows)) ** 0.5
    for reference in (0, 1):  # the most frequent letter, and the most frequent text
        assert Counter(row["references"][reference] for row in rows).most_common(1)[0][1] / len(rows) < bound


@pytest.mark.parametrize(("task", "dials"), as_params(FREE))
def test_the_majority_of_free_answers_is_rare(task, dials):
    rows = rows_of(task, dials)
    assert Counter(row["references"][0] for row in rows).most_common(1)[0][1] / len(rows) < 0.1
    assert {row["options"] for row in rows} == {None}


def judged(reward, prompts, completions):
    answers = pl.DataFrame({"prompt_id": prompts["prompt_id"], "completion": completions})
    return build_reward(reward).judge(answers, prompts)["score"].to_list()


@pytest.mark.parametrize(("task", "dials"), as_params(OPTIONAL))
def test_option_choice_judges_every_option_of_every_item(task, dials):
    prompts, reward = drawn(task, json.dumps(dials)), OptionChoiceReward(type="option_choice")
    rows = prompts.to_dicts()
    for spoken in ([row["references"][0] for row in rows], [row["references"][1] for row in rows]):
        assert judged(reward, prompts, spoken) == [1.0] * SIZE
    wrong = [next(option for option in row["options"] if option != right_text(row)) for row in rows]
    assert judged(reward, prompts, wrong) == [0.0] * SIZE


@pytest.mark.parametrize(("task", "dials"), as_params(FREE))
def test_exact_match_judges_every_free_item(task, dials):
    prompts = drawn(task, json.dumps(dials))
    references = prompts["references"].to_list()
    assert (
        judged(ExactMatchReward(), prompts, [option_references[-1] for option_references in references]) == [1.0] * SIZE
    )
    moved = [option_references[0] for option_references in [*references[1:], references[0]]]
    scores = [float(mine in theirs) for mine, theirs in zip(moved, references, strict=True)]
    assert judged(ExactMatchReward(), prompts, moved) == scores
    assert sum(scores) < 0.1 * SIZE


@pytest.mark.parametrize(("task", "dials"), as_params(OPTIONAL + FREE))
@pytest.mark.parametrize("share", [0.2, 1.0])
def test_no_story_crosses_the_split_and_the_share_is_exact(task, dials, share):
    prompts, _ = load_prompts([synthetic(task, dials=dials, size=300, test_share=share)])
    check_leaks(prompts)
    sides = prompts.group_by("group").agg(pl.col("split").n_unique(), side=pl.col("split").first())
    assert sides["split"].max() == 1
    assert sides.filter(pl.col("side") == "test").height == round(share * sides.height)


@pytest.mark.parametrize(("task", "dials"), as_params(OPTIONAL + FREE))
def test_one_seed_is_one_table_and_another_seed_another(task, dials):
    first, again, other = (load_prompts([synthetic(task, dials=dials, size=200, seed=seed)])[0] for seed in (1, 1, 2))
    assert first.equals(again)
    assert len(set(first["prompt_id"]) & set(other["prompt_id"])) < 20


@pytest.mark.parametrize(
    ("task", "digest"),
    [
        ("logical_deduction", "0644ca7f0c595b32"),
        ("word_sorting", "b7786a4829189cf4"),
        ("date_understanding", "d98e6d448baa2c1f"),
        ("penguins_in_a_table", "a3430f62190fd8db"),
    ],
)
def test_the_drawn_prompts_never_change(task, digest):
    prompts, _ = load_prompts([synthetic(task, size=50)])
    assert content_key(prompts["prompt_id"].to_list()) == digest


@pytest.mark.parametrize(
    ("task", "dials", "message"),
    [
        ("logical_deduction", {"objects": 9}, "objects: .*less than or equal to 8.*found 9"),
        ("logical_deduction", {"object": 3}, "object: unknown dial; did you mean `objects`"),
        ("logical_deduction", {"absolute_share": 1.5}, "absolute_share: .*found 1.5"),
        ("logical_deduction", {"themes": ["walls"]}, r"unknown themes \['walls'\]: choose from line, house"),
        ("word_sorting", {"min_words": 9, "max_words": 4}, "max_words 4 must be at least min_words 9"),
        ("word_sorting", {"shared_letters": 2, "max_words": 30}, "at most 26, the words that there are with"),
        ("word_sorting", {"min_words": 1}, "min_words: .*found 1"),
        ("date_understanding", {"contexts": ["easter"]}, r"unknown contexts \['easter'\]: choose from absolute"),
        ("date_understanding", {"offsets": ["soon"]}, r"unknown offsets \['soon'\]: choose from today, tomorrow"),
        ("date_understanding", {"options": 1}, "options must be 2 or more, or 0 for a free answer"),
        ("date_understanding", {"first_year": 2050}, "last_year 2040 must be at least first_year 2050"),
        ("date_understanding", {"last_year": 9999}, "last_year: .*found 9999"),
        ("penguins_in_a_table", {"rows": 4}, "options 5 must be from 2 to rows 4"),
        ("penguins_in_a_table", {"options": 1}, "options 1 must be from 2 to rows 5, .*or 0 for a free answer"),
        ("penguins_in_a_table", {"questions": ["mean"]}, r"unknown questions \['mean'\]: choose from look-up"),
        ("penguins_in_a_table", {"questions": []}, "questions: .*at least 1"),
    ],
)
def test_a_wrong_dial_is_named_with_what_would_do(task, dials, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_prompts([synthetic(task, dials=dials)])
    assert str(caught.value).startswith(f"prompts: {task}: 1 wrong dial")


def test_all_dials_explain_themselves():
    for generator in SYNTHETIC.values():
        assert all(field.description for field in generator.dials_model.model_fields.values())


@needs_benchmarks
def test_the_drawn_prompts_are_not_those_of_the_benchmarks(tmp_path):
    benchmark = [BigBenchHardPrompts(type="bbh", path=path) for path in sorted(BBH.glob("*.json"))]
    for number, path in enumerate(sorted(BIGBENCH.rglob("task.json"))):
        examples = [{"input": row["input"], "target": ""} for row in json.loads(path.read_text())["examples"]]
        (tmp_path / f"{number}.json").write_text(
            json.dumps({"examples": list({e["input"]: e for e in examples}.values())})
        )
        benchmark.append(BigBenchHardPrompts(type="bbh", path=tmp_path / f"{number}.json"))
    prompts, _ = load_prompts([synthetic(task) for task in dict(OPTIONAL + FREE)], benchmark)
    check_leaks(prompts)
