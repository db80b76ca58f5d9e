"""Benchmarks' examples in all their shapes: options keep their letters, malformed ones are counted, others are read."""

import json
from collections import Counter

import polars as pl
import pytest

from hir_core.config import BigBenchHardPrompts, BigBenchPrompts, FilePrompts, OptionChoiceReward
from hir_core.errors import ConfigError
from hir_core.prompts.load import load_prompts
from hir_core.prompts.options import option_references, read_inline_options, read_options
from hir_core.prompts.splits import leaks
from hir_core.rewards.registry import build_reward
from hir_core.schemas import Prompts


def bigbench(folder, *examples, **settings):
    path = folder / "task.json"
    path.write_text(json.dumps({"examples": examples}))
    return BigBenchPrompts(type="bigbench", path=path, **settings)


def bbh(folder, *examples, **settings):
    path = folder / "which.json"
    pairs = [
        dict(zip(("input", "target"), item, strict=True)) if isinstance(item, tuple) else item for item in examples
    ]
    path.write_text(json.dumps({"examples": pairs}))
    return BigBenchHardPrompts(type="bbh", path=path, **settings)


def rows_file(folder, *rows):
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return FilePrompts(type="file", path=path)


def only_row(source):
    prompts, rejected = load_prompts([source])
    Prompts.validate(prompts)
    assert rejected == {}
    (row,) = prompts.to_dicts()
    return row


def score(row, completion):
    prompts = pl.DataFrame([row], schema=Prompts.create_empty().schema)
    answers = pl.DataFrame({"prompt_id": [row["prompt_id"]], "completion": [completion]})
    return build_reward(OptionChoiceReward(type="option_choice")).judge(answers, prompts)["score"].item()


# --- options that are letters already --------------------------------------------------------------------------------

LETTERED = "Which hat is warmer?\nOptions:\n(A) a straw hat\n(B) a fur hat"


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ('Which hat is warmer? a " a straw hat " b " a fur hat " ?', "a b"),
        ("Which hat is warmer? a “a straw hat” b “a fur hat”", "a b"),
        ("Which hat is warmer? (a) a straw hat (b) a fur hat", "(a) (b)"),
        ("Which hat is warmer? (A) a straw hat, or (B) a fur hat", "A B"),
        ("Which hat is warmer? a) a straw hat; b) a fur hat", "a) b)"),
        ("Which hat is warmer?\nA. a straw hat\nB. a fur hat", "A. B."),
        (LETTERED, "(A) (B)"),
        ("Which hat is warmer? (a) a straw hat (b) a fur hat", "a fur hat/a straw hat"),
        (LETTERED, "a fur hat/a straw hat"),
    ],
)
@pytest.mark.parametrize("right", [0, 1])
def test_options_that_the_question_shows_keep_its_letters(tmp_path, question, names, right):
    names = names.split("/" if "/" in names else None)
    scores = {name: int(place == right) for place, name in enumerate(sorted(names, key=lambda name: "fur" in name))}
    shown = ["a straw hat", "a fur hat"]
    for source in (
        bigbench(tmp_path, {"input": question, "target_scores": scores}),
        bigbench(tmp_path, {"input": question, "target_scores": dict(reversed(scores.items()))}, seed=5),
    ):
        row = only_row(source)
        assert (row["query"], row["options"]) == (LETTERED, shown)
        assert row["references"] == [("(A)", "(B)")[right], shown[right]]
        for place, (letter, text) in enumerate(zip(("(A)", "(B)"), shown, strict=True)):
            assert score(row, letter) == score(row, text) == float(place == right)


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("True (T) or false (F)? Snow is cold.", ["F", "T"]),
        ("Fill the gap: ___ apple.", ["a", "an"]),
        ("Which letter comes first?", ["b", "c", "a"]),
        ("Which? a) one b) two b) three", ["a", "b"]),  # more letters than options: which text is whose?
        ("Which is (b)? (a) one (b) two", ["(a)", "(b)"]),  # a letter before them
        ("Which? (a) one (b) two\nAnswer:", ["(a)", "(b)"]),  # a line after them, which is no option
        ('Which of a "one" b "two" is it now?', ["a", "b"]),
    ],
)
def test_letters_are_not_added_to_letters_whose_texts_are_not_shown(tmp_path, question, options):
    for source in (
        bigbench(tmp_path, {"input": question, "target_scores": {name: int(name == options[0]) for name in options}}),
        rows_file(tmp_path, {"query": question, "options": options, "answer": options[0]}),
    ):
        row = only_row(source)
        assert sorted(row["options"]) == sorted(options)
        assert row["query"] == "\n".join([question, "Options:", *(f"- {option}" for option in row["options"])])
        assert row["references"] == [options[0]]
        assert [score(row, option) for option in options] == [1.0] + [0.0] * (len(options) - 1)


def test_a_users_options_keep_the_letters_that_the_query_shows(tmp_path):
    query = "Which hat is warmer? (A) a straw hat (B) a fur hat"
    for options, answer in ((["a fur hat", "a straw hat"], "a fur hat"), (["A", "B"], "B")):
        row = only_row(rows_file(tmp_path, {"query": query, "options": options, "answer": answer}))
        assert (row["query"], row["references"]) == (LETTERED, ["(B)", "a fur hat"])
    free = only_row(rows_file(tmp_path, {"query": query, "answer": "B"}))
    assert (free["query"], free["options"], free["references"]) == (query, None, ["B"])


def test_letters_in_a_text_are_not_taken_for_its_options(tmp_path):
    question = "The law asks for (a) a people (b) a place. Is that all?"
    row = only_row(bigbench(tmp_path, {"input": question, "target_scores": {"yes": 0, "no": 1}}))
    assert (read_options(row["query"]).question, set(row["options"])) == (question, {"yes", "no"})
    for text in ("Which? (A) one", "(a) one (b) two", 'He has a "dog" or two', "Which? (a) (b) two", "Which?"):
        assert read_inline_options(text) == (text, (), False)


def test_a_text_that_is_another_options_letter_is_no_reference(tmp_path):
    assert option_references([0, 2], ["b", "a", "C"]) == ("(A)", "(C)", "C")
    assert option_references([0], ["b", "a"], lettered=False) == ("b",)
    row = only_row(bbh(tmp_path, ("Which letter is last?\nOptions:\n(A) b\n(B) a", "(A)")))
    assert (row["options"], row["references"]) == (["b", "a"], ["(A)"])


# --- BIG-Bench-Hard --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "target", "read"),
    [
        ("Is it so?\nOptions:\n- valid \n- invalid", "invalid", (["valid", "invalid"], ["invalid"])),
        ("Which?\nOptions:\n(A) red\n(B) blue", "B", (["red", "blue"], ["(B)", "blue"])),
        ("Which? (A) red (B) blue", "(B)", (["red", "blue"], ["(B)", "blue"])),
        ("Find rhymes. (A) one (B) two. How many?", "2", (None, ["2"])),
        ("Close the brackets: ( [", "] )", (None, ["] )"])),
    ],
)
def test_options_are_read_from_blocks_and_lines(tmp_path, query, target, read):
    row = only_row(bbh(tmp_path, (query, target)))
    assert (row["options"], row["references"]) == read
    assert row["query"] == (query if "(B)" not in read[1] else "Which?\nOptions:\n(A) red\n(B) blue")


# --- malformed examples ----------------------------------------------------------------------------------------------

NO_OPTION = "malformed: its target is none of its options"
ONLY_ONE = "malformed: only one option"


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (("Which?\nOptions:\n(A) salt\n(B) pepper\n(C) thyme", "salt, pepper"), NO_OPTION),  # torn at its comma
        (("Which?\nOptions:\n(A) salt\n(B) pepper", "(C)"), NO_OPTION),
        (("Which?\nOptions:\n(A) salt\n(C) pepper", "(A)"), NO_OPTION),
        (("Which?\nOptions:\n- Yes\n- No", "A"), NO_OPTION),
        (("Which?", "(A)"), NO_OPTION),
        (("Which?\nOptions:\n(A) The", "(A)"), ONLY_ONE),
        (("Which?\nOptions:\n(A) salt\n(B)", "(A)"), "malformed: a blank option"),
        (("Which?\nOptions:\n(A) salt\n(B) salt\n(C) dill", "(A)"), "malformed: a right option is also a wrong one"),
        ({"input": "Which?"}, "malformed: no text as its input or target"),
        ({"input": 4, "target": "(A)"}, "malformed: no text as its input or target"),
        ("Which?", "malformed: no text as its input or target"),
        (("Which?\nOptions:\n(A) salt\n(B) pepper", " "), "no accepted answer"),
    ],
)
def test_a_malformed_example_of_bbh_is_counted_with_its_reason(tmp_path, example, reason):
    prompts, rejected = load_prompts([bbh(tmp_path, ("1 + 1?", "2"), example, ("2 + 1?", "3"))])
    assert (set(prompts["query"]), rejected) == ({"1 + 1?", "2 + 1?"}, {reason: 1})


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (7, "malformed: no text as its input"),
        ({"input": ["q"], "target": "a"}, "malformed: no text as its input"),
        ({"input": "q", "target": {"a": 1}}, "malformed: no text as its target"),
        ({"input": "q", "target_scores": {"a": "1", "b": 0}}, "malformed: no number as an option's score"),
        ({"input": "q", "target_scores": ["a", "b"]}, "malformed: no number as an option's score"),
        ({"input": "q", "target_scores": {"red": 1}}, ONLY_ONE),
        (
            {"input": "Which? (a) red (b) red", "target_scores": {"(a)": 1, "(b)": 0}},
            "malformed: a right option is also a wrong one",
        ),
        ({"input": "q", "target_scores": {"red": 1, " ": 0}}, "malformed: a blank option"),
    ],
)
def test_a_malformed_example_of_bigbench_is_counted_with_its_reason(tmp_path, example, reason):
    good = [{"input": f"{n} + 1?", "target": str(n + 1)} for n in range(2)]
    prompts, rejected = load_prompts([bigbench(tmp_path, *good, example)])
    assert (set(prompts["query"]), rejected) == ({"0 + 1?", "1 + 1?"}, {reason: 1})


@pytest.mark.parametrize("malformed", [2, 3])
def test_a_file_of_which_most_is_malformed_is_refused_with_one_message(tmp_path, malformed):
    good = [(f"{n} + 1?", str(n + 1)) for n in range(2)]
    source = bbh(tmp_path, *good, *[{"question": "q"}] * malformed)
    if malformed == 2:
        assert load_prompts([source])[1] == {"malformed: no text as its input or target": 2}
        return
    with pytest.raises(ConfigError) as error:
        load_prompts([source])
    assert str(error.value) == (
        f"prompts: {source.path} example 3: expected texts `input` and `target`, found {{'question': 'q'}}; "
        "3 of 5 examples are malformed, so that the file is not "
        '{"examples": [{"input", "target"}]} of BIG-Bench-Hard'
    )


# --- stories ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["bbh", "bigbench", "letters"])
def test_a_benchmark_without_stories_can_be_split(tmp_path, shape):
    pairs = [(f"{n} red hats", f"{n} blue hats") for n in range(40)]
    match shape:
        case "bbh":
            source = bbh(
                tmp_path,
                *((f"Which is more?\nOptions:\n(A) {first}\n(B) {second}", "(A)") for first, second in pairs),
                test_share=0.25,
            )
        case "bigbench":
            examples = [{"input": "Which is more?", "target_scores": {first: 1, second: 0}} for first, second in pairs]
            source = bigbench(tmp_path, *examples, test_share=0.25)
        case "letters":
            examples = [
                {"input": f"Which is more? (a) {first} (b) {second}", "target_scores": {"(a)": 1, "(b)": 0}}
                for first, second in pairs
            ]
            source = bigbench(tmp_path, *examples, test_share=0.25)
    prompts, rejected = load_prompts([source])
    assert Counter(prompts["split"]) == {"train": 30, "test": 10}
    assert rejected == {}
    assert leaks(prompts).is_empty()


def test_what_most_items_begin_with_is_no_story_though_some_go_on_with_more(tmp_path):
    begin = "Is the reply kind? Answer in one word."
    short = [{"input": f"{begin} Reply {n}", "target": "yes"} for n in range(15)]
    longer = [{"input": f"{begin} Reply {n}. Thanks.", "target": "no"} for n in range(20, 45)]
    prompts, _ = load_prompts([bigbench(tmp_path, *short, *longer)])
    assert prompts["group"].n_unique() == 40


def test_several_bare_questions_of_one_file_say_nothing_each(tmp_path):
    questions = ["Which is more?", "Which is less?", "Which is it?"]
    examples = [
        {"input": question, "target_scores": {f"{n} red hats": 1, f"{n} blue hats": 0}}
        for n in range(20)
        for question in questions
    ]
    twice = {"input": questions[0], "target_scores": {"0 red hats": 0, "0 blue hats": 1}}
    prompts, _ = load_prompts([bigbench(tmp_path, *examples, twice)])
    assert prompts.height == 61
    assert prompts["group"].n_unique() == prompts["query"].n_unique() == 60


def test_a_question_that_few_items_share_is_still_their_group(tmp_path):
    examples = [
        {"input": f"Which of {n} hats?", "target_scores": {f"{colour} {n}": 1, "none": 0}}
        for n in range(20)
        for colour in ("red", "blue")
    ]
    prompts, _ = load_prompts([bigbench(tmp_path, *examples)])
    assert set(prompts.group_by("group").len()["len"]) == {2}
