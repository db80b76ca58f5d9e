"""Prompts: exact answers, fair options, splits that keep stories whole, and a message for every wrong input."""

import json
import re
from collections import Counter
from itertools import pairwise

import polars as pl
import pytest
from benchmark_files import BBH, needs_benchmarks

from hir_core.config import BigBenchHardPrompts, FilePrompts, SyntheticPrompts
from hir_core.errors import ConfigError
from hir_core.prompts.load import load_prompts
from hir_core.prompts.numbers import number_word
from hir_core.prompts.options import option_references, read_options, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.splits import check_leaks, leaks
from hir_core.prompts.synthetic.object_counting import CATEGORIES
from hir_core.schemas import Prompts, content_key

EASY = {
    "min_kinds": 2,
    "max_kinds": 2,
    "count_weights": [1] * 9,
    "decoy_share": 0,
    "words": 6,
    "categories": ["fruits"],
    "numbers": "digits",
}
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}


def synthetic(task="object_counting", **settings):
    return SyntheticPrompts(type="synthetic", task=task, **({"size": 200, "seed": 1} | settings))


def table(*sources, also=()):
    prompts, _ = load_prompts(sources, also)
    Prompts.validate(prompts)
    return prompts


def jsonl(tmp_path, *rows, name="mine.jsonl", **settings):
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return FilePrompts(type="file", path=path, **settings)


def rows_of(*sources, also=()):
    return table(*sources, also=also).to_dicts()


def only_row(*sources):
    (row,) = rows_of(*sources)
    return row


# --- object counting -------------------------------------------------------------------------------------------------


def counted_by_hand(query):
    """The answer, from the words of the query alone."""
    listed, category = re.fullmatch(r"I have (.*)\. How many (.*) do I have\?", query).groups()
    wanted = {word for noun in CATEGORIES[category] for word in noun}
    total = 0
    for part in re.split(r", and | and |, ", listed):
        number, noun = part.split(" ", 1)
        total += (int(number) if number.isdigit() else NUMBERS[number]) if noun in wanted else 0
    return total


@pytest.mark.parametrize("dials", [EASY, {}], ids=["easy", "as hard as BIG-bench"])
def test_an_independent_reading_of_the_text_finds_the_same_count(dials):
    prompts = table(synthetic(size=1000, dials=dials))
    assert prompts.height == 1000
    for row in prompts.iter_rows(named=True):
        assert row["references"][0] == str(counted_by_hand(row["query"])), row["query"]
        assert row["references"][1] == number_word(int(row["references"][0]))


@pytest.mark.parametrize(
    ("number", "word"), [(0, "zero"), (8, "eight"), (13, "thirteen"), (20, "twenty"), (47, "forty-seven")]
)
def test_numbers_have_their_english_names(number, word):
    assert number_word(number) == word


def test_no_two_categories_share_a_thing():
    words = Counter(word for nouns in CATEGORIES.values() for noun in nouns for word in set(noun))
    assert words.most_common(1)[0][1] == 1


def test_articles_fit_their_nouns():
    for row in rows_of(synthetic(size=500)):
        assert not re.search(r"\ban [^aeiou]|\ba [aeiou]", row["query"])


def test_easy_dials_give_two_small_counts_and_nothing_to_ignore():
    for row in rows_of(synthetic(dials=EASY)):
        assert re.fullmatch(r"I have [1-9] [a-z]+ and [1-9] [a-z]+\. How many fruits do I have\?", row["query"])


def test_decoys_come_as_often_as_their_share_and_never_among_objects():
    rows = rows_of(synthetic(size=2000, dials={"categories": ["fruits", "tools"], "decoy_share": 0.25}))
    share = sum(json.loads(row["metadata"])["decoys"] > 0 for row in rows) / len(rows)
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 2000) ** 0.5
    objects = rows_of(synthetic(dials={"categories": ["objects"], "decoy_share": 1}))
    assert {json.loads(row["metadata"])["decoys"] for row in objects} == {0}


def test_one_story_is_one_group_whatever_its_order():
    rows = rows_of(synthetic(size=900, dials={**EASY, "words": 4}))
    groups = {}
    for row in rows:
        story = tuple(sorted(re.findall(r"[1-9] [a-z]+?(?=s? and|s?\. )", row["query"])))
        groups.setdefault(story, set()).add(row["group"])
    assert len(groups) < len(rows), "some story should stand here in both orders"
    assert all(len(names) == 1 for names in groups.values())
    assert len(set.union(*groups.values())) == len(groups)


def test_the_majority_answer_is_rare():
    for dials in (EASY, {}):
        answers = Counter(row["references"][0] for row in rows_of(synthetic(size=1000, dials=dials)))
        assert answers.most_common(1)[0][1] < 150


# --- tracking shuffled objects ---------------------------------------------------------------------------------------


def followed_by_hand(query):
    """What the person in the question has, by following the text."""
    text = read_options(query).question
    has = dict(re.findall(r"(\w+) (?:holds|wears|uses|carries|rides) (the \w+ \w+)", text))
    for person, other in re.findall(r"(\w+) and (\w+) (?:trade|exchange|swap|change) \w+\.", text):
        has[person], has[other] = has[other], has[person]
    return has[re.search(r"Which \w+ does (\w+) ", text)[1]]


@pytest.mark.parametrize("dials", [{}, {"people": 7, "swaps": 12}, {"people": 2, "swaps": 1}])
def test_following_the_swaps_in_the_text_finds_the_reference(dials):
    for row in rows_of(synthetic("tracking_shuffled_objects", size=300, dials=dials)):
        name, text = row["references"]
        assert text == followed_by_hand(row["query"])
        assert f"\n{name} {text}" in row["query"]
        assert row["query"].count("\n(") == len(row["options"]) == dials.get("people", 3)


def test_the_right_option_stands_in_every_place_equally_often():
    rows = rows_of(synthetic("tracking_shuffled_objects", size=3000))
    counts = Counter(row["references"][0] for row in rows)
    assert set(counts) == {"(A)", "(B)", "(C)"}
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 13.8  # chi-square, 2 degrees, p = 0.001


def test_a_reference_can_show_the_counts_that_are_added_in_their_order():
    shown = {"max_kinds": 4, "decoy_share": 0.5, "categories": ["fruits", "tools"], "words": 5}
    plain, summed = (
        {row["query"]: row["references"] for row in rows_of(synthetic(dials=shown | more))}
        for more in ({}, {"reference": "sum"})
    )
    assert plain.keys() == summed.keys()
    for query, (reference,) in summed.items():
        category = "fruits" if "How many fruits" in query else "tools"
        nouns = {form for noun in CATEGORIES[category][:5] for form in noun}
        words = re.findall(r"\w+", query.partition(". ")[0])
        counts = [NUMBERS[count] for count, noun in pairwise(words) if noun in nouns and count in NUMBERS]
        assert reference == f"{' + '.join(map(str, counts))} = {plain[query][0]}"


# --- synthetic sources -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["object_counting", "tracking_shuffled_objects"])
def test_one_seed_is_one_table_and_another_seed_another(task):
    assert table(synthetic(task)).equals(table(synthetic(task)))
    first, second = (set(table(synthetic(task, seed=seed))["prompt_id"]) for seed in (1, 2))
    assert len(first & second) < 20


def test_the_drawn_prompts_never_change():
    prompts = table(synthetic(size=50), synthetic("tracking_shuffled_objects", size=50))
    assert content_key(prompts["prompt_id"].to_list()) == "e2dfc0712358305a"


def test_demonstrations_can_name_an_option_by_its_text():
    lettered, named = (
        {row["query"]: row for row in rows_of(synthetic("geometric_shapes", shown=shown))}
        for shown in ("letter", "text")
    )
    assert named.keys() == lettered.keys()
    for query, row in named.items():
        assert row["references"][0] in row["options"]
        assert sorted(row["references"]) == sorted(lettered[query]["references"])
    assert rows_of(synthetic(shown="text")) == rows_of(synthetic()), "no options to name"


def test_how_options_are_named_is_part_of_the_fingerprint_and_by_letter_unless_set():
    assert synthetic("geometric_shapes").fingerprint()["shown"] == "letter"
    assert synthetic("geometric_shapes", shown="text").fingerprint()["shown"] == "text"


def test_random_choices_are_uniform():
    rng, draws = SeededRng("fair"), 6000
    for counts in (
        Counter(rng.below(6) for _ in range(draws)),
        Counter(rng.between(1, 6) for _ in range(draws)),
        Counter(rng.pick("abcdef") for _ in range(draws)),
        Counter(rng.shuffled("abcdef")[2] for _ in range(draws)),
        Counter(rng.weighted([2] * 6) for _ in range(draws)),
    ):
        assert len(counts) == 6
        assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 20.5  # 5 degrees, p = 0.001
    assert {rng.weighted([0, 1, 0]) for _ in range(100)} == {1}


@pytest.mark.parametrize("task", ["object_counting", "tracking_shuffled_objects"])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_no_group_crosses_the_split_and_the_share_is_exact(task, share):
    prompts = table(synthetic(task, size=500, test_share=share, dials=EASY if task == "object_counting" else {}))
    sides = prompts.group_by("group").agg(pl.col("split").n_unique(), side=pl.col("split").first())
    assert sides["split"].max() == 1
    assert sides.filter(pl.col("side") == "test").height == round(share * sides.height)


def test_rows_are_sorted_and_keyed_by_content():
    prompts = table(synthetic(), synthetic("tracking_shuffled_objects"))
    assert prompts.equals(prompts.sort("split", "task", "prompt_id"))
    for row in prompts.iter_rows(named=True):
        assert row["prompt_id"] == content_key(row["task"], row["query"], row["options"], row["references"])


def test_a_later_synthetic_source_takes_no_story_of_an_earlier_one():
    easy = {**EASY, "words": 4}
    prompts = table(synthetic(dials=easy), synthetic(dials=easy), also=[synthetic(dials=easy, size=50)])
    assert prompts.height == 450
    check_leaks(prompts)


def test_unknown_synthetic_task_is_answered_with_the_near_one():
    with pytest.raises(ConfigError, match="no synthetic task `object_count`; did you mean `object_counting`"):
        load_prompts([synthetic("object_count")])


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"max_kind": 3}, "max_kind: unknown dial; did you mean `max_kinds`"),
        ({"min_kinds": 5, "max_kinds": 3}, "max_kinds 3 must be at least min_kinds 5"),
        ({"words": 4}, "max_kinds 10 must be .* at most 4"),
        ({"words": 2, "max_kinds": 2}, "max_decoys 3 exceeds"),
        ({"categories": ["fruit"]}, r"unknown categories \['fruit'\]: choose from fruits"),
        ({"count_weights": [0, 0]}, "one of them above 0"),
        ({"numbers": "roman"}, "'words' or 'digits'.*found 'roman'"),
    ],
)
def test_a_wrong_dial_is_named(dials, message):
    with pytest.raises(ConfigError, match=message):
        load_prompts([synthetic(dials=dials)])


def test_all_wrong_dials_are_named_at_once():
    with pytest.raises(ConfigError, match="2 wrong dial") as caught:
        load_prompts([synthetic("tracking_shuffled_objects", dials={"people": 1, "swap": 3})])
    assert "people" in str(caught.value)
    assert "did you mean `swaps`" in str(caught.value)


def test_dials_that_allow_too_few_prompts_are_refused():
    few = {**EASY, "words": 2, "count_weights": [1]}  # one story, in two orders
    with pytest.raises(ConfigError, match=r"expected 200 different prompts, found 2, .*lower size"):
        load_prompts([synthetic(dials=few)])


# --- files -----------------------------------------------------------------------------------------------------------


def test_jsonl_rows_become_prompts_with_the_rest_in_metadata(tmp_path):
    row = only_row(
        jsonl(tmp_path, {"query": "2 + 2?", "references": ["4", "four"], "level": 1, "metadata": {"by": "me"}})
    )
    assert (row["task"], row["query"], row["references"], row["options"]) == ("mine", "2 + 2?", ["4", "four"], None)
    assert row["group"] == row["prompt_id"]
    assert json.loads(row["metadata"]) == {"by": "me", "level": 1}


@pytest.mark.parametrize(
    ("columns", "references"),
    [
        ({"reference": "4"}, ["4"]),
        ({"answer": 4}, ["4"]),
        ({"references": "4"}, ["4"]),
        ({"references": ["4", " ", "4"]}, ["4"]),
        ({"references": None}, []),
        ({}, []),
    ],
)
def test_references_come_under_three_names_as_list_or_value(tmp_path, columns, references):
    assert only_row(jsonl(tmp_path, {"query": "2 + 2?", **columns}))["references"] == references


def test_parquet_reads_as_jsonl_does(tmp_path):
    rows = [{"query": f"{n} + 1?", "answer": str(n + 1), "group": f"g{n % 3}", "note": n} for n in range(12)]
    pl.DataFrame(rows).write_parquet(tmp_path / "mine.parquet")
    parquet = FilePrompts(type="file", path=tmp_path / "mine.parquet")
    assert table(parquet).equals(table(jsonl(tmp_path, *rows)))


def test_a_number_that_is_not_finite_is_a_missing_value_in_every_kind_of_file(tmp_path):
    rows = [
        {"query": f"{n} + 1?", "answer": float(answer), "note": float("nan")} for n, answer in enumerate(["nan", 2])
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "mine.parquet")
    for prompts in (table(FilePrompts(path=tmp_path / "mine.parquet")), table(jsonl(tmp_path, *rows))):
        assert sorted(prompts["references"].to_list()) == [[], ["2.0"]]
        assert set(prompts["metadata"]) <= {None, '{"note": null}'}


def test_a_table_of_prompts_reads_back_as_the_same_prompts(tmp_path):
    prompts = table(synthetic(size=40), synthetic("tracking_shuffled_objects", size=40))
    prompts.write_parquet(tmp_path / "prompts.parquet")
    assert table(FilePrompts(type="file", path=tmp_path / "prompts.parquet")).equals(prompts)


def test_groups_stay_whole_and_stated_splits_are_kept(tmp_path):
    rows = [{"query": f"question {n}", "group": f"story {n // 4}"} for n in range(80)]
    prompts = table(jsonl(tmp_path, *rows, {"query": "stated", "group": "story 1", "split": "test"}, test_share=0.25))
    sides = prompts.group_by("group").agg(pl.col("split").unique())
    assert sides["split"].list.len().max() == 1
    # 19 groups are free; round(0.25 * 19) = 5 of them, and the stated one, are test
    assert sides.filter(pl.col("split").list.first() == "test").height == 6


def test_the_split_does_not_depend_on_the_order_of_rows(tmp_path):
    rows = [{"query": f"question {n}"} for n in range(50)]
    assert table(jsonl(tmp_path, *rows)).equals(table(jsonl(tmp_path, *reversed(rows))))


def test_options_are_shuffled_by_seed_and_lettered_in_the_query(tmp_path):
    rows = [{"query": f"q{n}?", "options": ["red", "green", "blue"], "answer": "red"} for n in range(900)]
    prompts = rows_of(jsonl(tmp_path, *rows))
    for row in prompts[:50]:
        assert row["query"].split("\n", 1)[1] == with_options("", row["options"]).lstrip("\n")
        assert row["references"] == [f"({'ABC'[row['options'].index('red')]})", "red"]
    places = Counter(row["references"][0] for row in prompts)
    assert sum((count - 300) ** 2 / 300 for count in places.values()) < 13.8
    other = rows_of(jsonl(tmp_path, *rows, seed=5))
    assert {row["query"] for row in other} != {row["query"] for row in prompts}


def test_references_may_name_several_options_by_letter_or_text(tmp_path):
    row = only_row(
        jsonl(tmp_path, {"query": "warm?", "options": ["red", "blue", "orange"], "references": ["(A)", "orange"]})
    )
    places = sorted(row["options"].index(colour) for colour in ("red", "orange"))
    assert row["references"] == [*(f"({'ABC'[n]})" for n in places), *(row["options"][n] for n in places)]


def test_a_query_that_shows_its_options_is_left_as_it_is(tmp_path):
    query = "Which?\nOptions:\n(A) red\n(B) blue"
    row = only_row(jsonl(tmp_path, {"query": query, "answer": "(B)"}))
    assert (row["query"], row["options"], row["references"]) == (query, ["red", "blue"], ["(B)", "blue"])


def test_rows_without_a_question_are_counted_not_read(tmp_path):
    blank = {"query": "  ", "options": ["a", "b"], "answer": "a"}
    prompts, rejected = load_prompts([jsonl(tmp_path, {"query": ""}, {"query": "2 + 2?"}, blank)])
    assert (prompts.height, rejected) == (1, {"blank query": 2})


def test_a_file_without_rows_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no prompts in .*mine\.jsonl"):
        load_prompts([jsonl(tmp_path)])
    with pytest.raises(ConfigError, match="rejected: 1 blank query"):
        load_prompts([jsonl(tmp_path, {"query": " "})])


def test_a_prompt_given_twice_names_both_rows(tmp_path):
    same = {"query": "2 + 2?", "answer": "4"}
    with pytest.raises(ConfigError, match=r"mine\.jsonl line 3 is the same prompt as .*mine\.jsonl line 1"):
        load_prompts([jsonl(tmp_path, same, {"query": "other"}, same)])
    first, second = (jsonl(tmp_path, same, name=f"{name}.jsonl", task="sums") for name in "ab")
    with pytest.raises(ConfigError, match=r"b\.jsonl line 1 is the same prompt as .*a\.jsonl line 1"):
        load_prompts([first, second])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"query": "x"', r"line 2 is not JSON: .* at column"),
        ("[1]", "line 2: expected a JSON object with a `query`, found list"),
        ('{"Query": "x"}', "line 2: expected a `query`, found Query: rename `Query`"),
        ('{"text": "x"}', "line 2: expected a `query`, found text: name the column"),
        ('{"query": 3}', "line 2: `query` must be text, found 3"),
        ('{"query": "x", "answer": "1", "references": ["1"]}', "line 2: references and answer mean the same"),
        ('{"query": "x", "answer": {"a": 1}}', "line 2: a reference must be text or a number"),
        ('{"query": "x", "answer": true}', "line 2: a reference must be text or a number, found True"),
        ('{"query": "x", "split": "dev"}', "line 2: `split` must be train or test, found 'dev'"),
        ('{"query": "x", "options": "a b"}', "line 2: `options` must be a list of texts"),
        ('{"query": "x", "options": ["a", "a"]}', "line 2: expected at most 26 different options"),
        (
            '{"query": "x", "options": ["a", "b"], "answer": "c d"}',
            "line 2: the reference 'c d' is none of the options",
        ),
        ('{"query": "x", "group": [1]}', r"line 2: `group` must be text, found \[1\]"),
        ('{"query": "x", "metadata": 3}', "line 2: `metadata` must be an object, found 3"),
        ('{"query": "\\ud800"}', "line 2 is not UTF-8 text"),
        ('{"query": "x\\nOptions:\\n(A) a", "options": ["b"]}', "line 2: `options` .* are not those in the query"),
    ],
)
def test_a_malformed_line_is_named_with_what_is_wrong(tmp_path, line, message):
    with pytest.raises(ConfigError, match=message):
        load_prompts([jsonl(tmp_path, {"query": "fine"}, line)])


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no such file .*gone\.jsonl"):
        load_prompts([FilePrompts(type="file", path=tmp_path / "gone.jsonl")])
    with pytest.raises(
        ConfigError, match=r"expected a \.jsonl, \.json, \.parquet, \.csv or \.tsv file, found .*mine\.xlsx"
    ):
        load_prompts([jsonl(tmp_path, {"query": "x"}, name="mine.xlsx")])
    with pytest.raises(ConfigError, match="cannot be read as Parquet"):
        load_prompts([jsonl(tmp_path, {"query": "x"}, name="mine.parquet")])


def test_lines_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "latin.jsonl"
    path.write_bytes('{"query": "é"}'.encode("latin-1"))
    with pytest.raises(ConfigError, match="line 1 is not UTF-8 text"):
        load_prompts([FilePrompts(type="file", path=path)])


# --- BIG-Bench-Hard --------------------------------------------------------------------------------------------------


def bbh_file(tmp_path, *examples, name="task.json", **settings):
    path = tmp_path / name
    path.write_text(
        json.dumps(
            {"canary": "a canary", "examples": [dict(zip(("input", "target"), e, strict=True)) for e in examples]}
        )
    )
    return BigBenchHardPrompts(type="bbh", path=path, **settings)


def test_options_are_read_from_the_input_which_stays_whole(tmp_path):
    lettered, listed, free = "One. Who?\nOptions:\n(A) red\n(B) blue", "So?\nOptions:\n- Yes\n- No", "2 + 2 ="
    source = bbh_file(tmp_path, (lettered, "(B)"), (listed, "Yes"), (free, "4"))
    rows = {row["query"]: row for row in rows_of(source)}
    assert (rows[lettered]["options"], rows[lettered]["references"]) == (["red", "blue"], ["(B)", "blue"])
    assert (rows[listed]["options"], rows[listed]["references"]) == (["Yes", "No"], ["Yes"])
    assert (rows[free]["options"], rows[free]["references"]) == (None, ["4"])
    assert {(row["task"], row["split"], row["metadata"]) for row in rows.values()} == {
        ("task", "test", '{"canary": "a canary"}')
    }


def test_a_text_that_two_options_share_is_no_reference(tmp_path):
    assert option_references([1], ["red", "red", "blue"]) == ("(B)",)
    row = only_row(bbh_file(tmp_path, ("Who?\nOptions:\n(A) red\n(B) red\n(C) blue", "(C)")))
    assert row["references"] == ["(C)", "blue"]


@pytest.mark.parametrize(
    "query",
    ["See Options:\n(A) red\n(B) blue", "Options:\n(A) red\nor so", "Options:\n(A) red\n(C) blue", "Options:\n"],
)
def test_what_only_resembles_an_options_block_is_part_of_the_question(query):
    assert read_options(query) == (query, (), False)


def test_one_story_asked_twice_is_one_group_but_a_common_preamble_is_not(tmp_path):
    stories = [(f"Ann has {n} hats. {who} has?", str(n)) for n in range(20) for who in ("Ann", "Bob")]
    assert table(bbh_file(tmp_path, *stories))["group"].n_unique() == 20
    preamble = [(f"Is this plausible? Player {n} scored.", "yes") for n in range(40)]
    assert table(bbh_file(tmp_path, *preamble))["group"].n_unique() == 40


def test_another_shape_is_refused(tmp_path):
    path = tmp_path / "task.json"
    source = BigBenchHardPrompts(type="bbh", path=path)
    for text, message in (
        (None, "no such file"),
        ("{", "is not JSON"),
        ("[]", "expected .*examples"),
        ('{"examples": [{"input": "x"}]}', "example 1: expected texts `input` and `target`"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            load_prompts([source])


@needs_benchmarks
@pytest.mark.parametrize("name", ["object_counting", "tracking_shuffled_objects_three_objects"])
def test_every_item_of_the_benchmark_is_read(name):
    path = BBH / f"{name}.json"
    examples = json.loads(path.read_text())["examples"]
    rows = {row["query"]: row for row in rows_of(BigBenchHardPrompts(type="bbh", path=path))}
    assert len(rows) == len(examples) == 250
    for example in examples:
        row = rows[example["input"]]
        assert row["references"][0] == example["target"]
        assert (row["options"] is None) == ("Options:" not in example["input"])
    assert {row["split"] for row in rows.values()} == {"test"}


@needs_benchmarks
def test_synthetic_prompts_are_not_those_of_the_benchmark():
    benchmark = [BigBenchHardPrompts(type="bbh", path=path) for path in sorted(BBH.glob("*.json"))]
    drawn = [synthetic(size=2000), synthetic("tracking_shuffled_objects", size=500)]
    check_leaks(table(*drawn, also=benchmark))


# --- evaluated only, and leaks ---------------------------------------------------------------------------------------


def test_an_evaluated_source_is_all_test_and_keeps_its_task_apart(tmp_path):
    also = [
        bbh_file(tmp_path, ("Count 3", "3"), name="object_counting.json", test_share=0.0),
        synthetic(size=30, seed=9),
    ]
    prompts = table(synthetic(), also=also)
    by_task = prompts.group_by("task").agg(pl.len(), pl.col("split").unique().sort())
    assert {row["task"]: (row["len"], row["split"]) for row in by_task.to_dicts()} == {
        "object_counting": (200, ["train", "test"]),
        "object_counting (bbh)": (1, ["test"]),
        "object_counting (synthetic)": (30, ["test"]),
    }


def test_prompts_without_any_to_train_on_are_the_callers_matter():
    assert set(table(also=[synthetic()])["split"]) == {"test"}


def test_a_group_on_both_sides_is_a_leak(tmp_path):
    rows = [{"query": f"q{n}{s}", "group": f"g{n}", "split": s} for n in range(5) for s in ("train", "test")]
    prompts = table(jsonl(tmp_path, *rows))
    with pytest.raises(ConfigError, match="5 of 5 test prompts leak into train") as caught:
        check_leaks(prompts)
    leaked = leaks(prompts)
    assert leaked.height == 5
    lines = str(caught.value).splitlines()
    assert lines[1].startswith("  5 share their group with a train prompt")
    assert [re.findall(r"[0-9a-f]{16}", line) for line in lines[2:5]] == [
        list(pair) for pair in leaked.select("train_id", "test_id").head(3).iter_rows()
    ]
    assert lines[5:] == ["    and 2 more"]


@pytest.mark.parametrize(
    ("train", "test", "leaks_out"),
    [
        ("How many apples?", "how many  apples", True),
        ("I have a pear, and a plum.", "I have a pear and a plum", True),
        ("5 - 3", "5 / 3", False),
        ("not (True and False)", "(not True) and False", False),
        ("twelve", "twenty", False),
    ],
)
def test_a_test_query_that_reads_like_a_train_query_is_a_leak(tmp_path, train, test, leaks_out):
    prompts = table(jsonl(tmp_path, {"query": train, "split": "train"}, {"query": test, "split": "test"}))
    assert leaks(prompts).height == int(leaks_out)
    if leaks_out:
        with pytest.raises(ConfigError, match="1 share their query"):
            check_leaks(prompts)
