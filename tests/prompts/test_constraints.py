"""Constraints: what each kind counts, reading every constraint back from its sentence, and hostile texts."""

import json
from collections import Counter
from functools import cache
from itertools import pairwise, product

import polars as pl
import pytest
from reward_tables import parts_of

from hir_core.config import ConstraintsReward, SyntheticPrompts
from hir_core.errors import ConfigError
from hir_core.prompts.constraints.constraint import LETTER, NUMBER, ONE_WORD, Constraint, group_of
from hir_core.prompts.constraints.registry import (
    KINDS,
    check,
    describe,
    describe_all,
    parse,
    read_constraints,
    satisfied,
    with_constraints_replaced,
)
from hir_core.prompts.load import load_prompts
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.splits import check_leaks
from hir_core.prompts.synthetic.constrained_writing import DEFAULT_KINDS
from hir_core.rewards.registry import build_reward
from hir_core.schemas import Prompts, Rewards
from hir_core.stages.evaluation import majority_baseline

VALUES = {
    NUMBER: [1, 2, 3, 10, 999_999],
    ONE_WORD: ["fig", "Paris", "it's", "well-known", "β", "3rd", "क़िला", "שלום"],
    LETTER: ["f", "é", "ж"],
    None: [None],
}
ALL = [Constraint(name, value) for name, kind in KINDS.items() for value in VALUES[kind.parameter]]


def random_constraints(count):
    rng = SeededRng("constraints", 7)
    letters = "abcdefghijklmnopqrstuvwxyz"
    draw = {
        NUMBER: lambda: rng.between(1, 999_999),
        ONE_WORD: lambda: "".join(rng.pick(letters + "ABZ09éß") for _ in range(rng.between(1, 12))),
        LETTER: lambda: rng.pick(letters),
        None: lambda: None,
    }
    names = [rng.pick(list(KINDS)) for _ in range(count)]
    return [Constraint(name, draw[KINDS[name].parameter]()) for name in names]


# --- what a text satisfies -------------------------------------------------------------------------------------------

HAND = {
    "words_exactly=3": (["a fig fell", "a, fig; fell!", "it's well-known now", "ख़ुश हिन्दी दिन"], ["", "a fig", "a - b"]),
    "words_at_least=3": (["a fig fell", "one two three four"], ["a fig", "- - -"]),
    "words_at_most=3": (["fig", "a fig fell"], ["", "...", "one two three four"]),
    "sentences_exactly=2": (
        ["It fell. Why?", "It fell... Why", "Pay 3.50 now! Go", "是。不是。"],
        ["It fell", "a. b. c.", ". ."],
    ),
    "sentences_at_least=2": (["A fig. A plum. A pear."], ["A fig, a plum."]),
    "sentences_at_most=2": (["One", "One. Two."], ["", "One. Two. Three."]),
    "lines_exactly=2": (["a\nb", "\na\n\n b \n", "a\r\nb"], ["a", "a\nb\nc"]),
    "lines_at_least=2": (["a\nb\nc"], ["a\n\n"]),
    "lines_at_most=2": (["a", "a\nb"], ["", "\n \n", "a\nb\nc"]),
    "paragraphs_exactly=2": (["a\n\nb", "a\nb\n \n\nc\n"], ["", "a", "a\nb", "a\n\nb\n\nc"]),
    "paragraphs_at_least=2": (["a\n\nb\n\nc"], ["a\n\n...", "a\nb"]),
    "paragraphs_at_most=2": (["a", "a\n\nb"], ["", "\n\n", "a\n\nb\n\nc"]),
    'contains="fig"': (["a fig fell", "FIG!", "(fig)", "Fig,plum"], ["figs", "a plum", "fig-tree", ""]),
    'excludes="fig"': (["figs", "a plum"], ["a Fig fell", ""]),
    'starts_with="fig"': (["Fig and plum", '"fig"'], ["a fig", "figs fell", ""]),
    'ends_with="fig"': (["a fig.", "fig"], ["fig a", "prefig", ""]),
    "lower_case": (["a fig, 3 plums", "ß"], ["A fig", "123", ""]),
    "upper_case": (["A FIG, 3 PLUMS", "É"], ["a FIG", "123", ""]),
    "title_case": (["A Fig Fell", "3 Figs", "It's Über"], ["A fig", "A FIG", "123", "a", ""]),
    'initials="f"': (["fig falls", "Fig, fell"], ["fig and fell", "", "f 1"]),
    "numbers_in_digits": (["3 figs", "٣ figs"], ["three figs", "3 figs and two plums", "figs"]),
    "numbers_in_words": (["Three figs", "forty-seven figs"], ["3 figs", "three figs and 2 plums", "figs", "someone"]),
    "json_object": (['{"a": [1]}', " {} ", '{"n": ' + "9" * 5000 + "}"], ["[1]", "{a: 1}", '{"a": NaN}', "{} x", ""]),
    "json_list": (["[1, {}]", "[]"], ["{}", "[1,]", "1", "[" * 100_000]),
    "bullets=2": (["- a\n- b", "* a\n\n• b"], ["- a", "- a\nb", "-a\n-b", "- \n- b"]),
    "numbered_list=2": (["1. a\n2. b", "1) a\n\n2) b"], ["1. a", "1. a\nb", "1. a\n3. b", "1.a\n2.b", "1. a\n2. -"]),
    "comma_list=2": (["fig, plum", "fig,plum."], ["fig", "fig,", "fig, plum, pear", "fig,\nplum"]),
    "no_commas": (["So; be it."], ["So, be it.", "好，", "...", ""]),
    "ends_in_mark": (["So.", "So? ", "Oui…", "是。"], ["So", ".", "", "So. Yes"]),
}


def spelled(text):
    kind, _, value = text.partition("=")
    return Constraint(kind, json.loads(value) if value else None)


def test_every_kind_has_its_examples():
    assert {spelled(text).kind for text in HAND} == set(KINDS)


@pytest.mark.parametrize("text", HAND)
def test_a_text_satisfies_what_a_reader_would_say(text):
    constraint, (yes, no) = spelled(text), HAND[text]
    assert {sample for sample in yes if not check(constraint, sample)} == set()
    assert {sample for sample in no if check(constraint, sample)} == set()


def test_amounts_agree_with_plain_counting():
    for words, sentences, lines in product(range(1, 5), range(1, 5), range(1, 5)):
        text = "\n".join([" ".join([" ".join(["fig"] * words) + "."] * sentences)] * lines)
        counts = {"words": words * sentences * lines, "sentences": sentences * lines, "lines": lines}
        for part, count in counts.items():
            for number in range(1, 8):
                assert check(Constraint(f"{part}_exactly", number), text) == (count == number)
                assert check(Constraint(f"{part}_at_least", number), text) == (count >= number)
                assert check(Constraint(f"{part}_at_most", number), text) == (count <= number)


def test_keywords_and_case_agree_with_brute_force():
    words = ["fig", "Plum", "PEAR"]
    for chosen in product(words, repeat=3):
        text, low = " ".join(chosen), [word.lower() for word in chosen]
        for word in ("fig", "plum", "pear"):
            assert check(Constraint("contains", word), text) == (word in low)
            assert check(Constraint("excludes", word), text) == (word not in low)
            assert check(Constraint("starts_with", word), text) == (word == low[0])
            assert check(Constraint("ends_with", word), text) == (word == low[-1])
        assert check(Constraint("lower_case"), text) == (set(chosen) == {"fig"})
        assert check(Constraint("upper_case"), text) == (set(chosen) == {"PEAR"})
        assert check(Constraint("title_case"), text) == (set(chosen) == {"Plum"})


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\0", "...", "- - -", "\u200f\u202e", "\ufeff", "́", "_"])
def test_a_text_that_says_nothing_satisfies_nothing(text):
    assert satisfied(text, ALL) == []


MILLION = 2**20
HOSTILE = {
    "empty": "",
    "NUL": "a\0b\0",
    "right to left": "שלום עולם \u202e gif \u202c مَرْحَبًا",
    "half a character": "fig \ud800 plum",
    "one word": "a" * MILLION,
    "hyphens": "a-" * (MILLION // 2),
    "dots before a letter": "." * MILLION + "a",
    "brackets": "[" * MILLION,
    "objects": '{"a":' * (MILLION // 5),
    "accents": "e" + "́" * MILLION,
    "commas": "a," * (MILLION // 2),
    "bullets": "- a\n" * (MILLION // 4),
    "quotes": "'" * MILLION,
    "emoji": "👩‍👩‍👧" * (MILLION // 8),
    "blank lines": "a" + "\n" * MILLION + "b",
    "spaces": "a\n" + " " * MILLION + "b",
    "full stops": "a. " * (MILLION // 3),
    "marks and brackets": "a.)(" * (MILLION // 4),
    "spaced marks": ". " * (MILLION // 2) + "a",
    "quoted": '"a." ' * (MILLION // 5),
    "numbers of items": "1. a\n2. b\n" * (MILLION // 10),
    "numbers in one line": "1. a 2. b " * (MILLION // 10),
    "headings": "# a\n**b**\n" * (MILLION // 10),
    "targets of links": "](" * (MILLION // 2),
    "tags": "<a " * (MILLION // 3),
    "fences": "```\n" * (MILLION // 4),
    "asterisks": "*" * MILLION + "a",
    "addresses": "a.b@" * (MILLION // 4),
    "initials": "a." * (MILLION // 2),
    "domains": "a" + ".a-" * (MILLION // 3) + ".com",
    "digits": "1," * (MILLION // 2) + "1",
    "ideographs": "是。" * (MILLION // 2),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_raises_or_takes_for_ever(text):
    one_each = {constraint.kind: constraint for constraint in ALL}
    assert len(satisfied(text, one_each.values())) < len(KINDS)


def test_satisfied_is_check_for_each_in_the_order_given():
    vocabulary = random_constraints(300) + ALL
    for text in ("A fig fell.", "- fig\n- plum", '{"a": 1}', "3 FIGS", "it's well-known"):
        assert satisfied(text, vocabulary) == [constraint for constraint in vocabulary if check(constraint, text)]
        assert satisfied(text, []) == []


# --- sentences and values --------------------------------------------------------------------------------------------


def test_every_constraint_reads_back_from_its_sentence():
    for constraint in random_constraints(1000) + ALL:
        sentence = describe(constraint)
        assert parse(sentence) == constraint
        assert sentence.endswith(".")
        assert ". " not in sentence


def test_one_is_singular_and_more_are_plural():
    assert describe(Constraint("words_exactly", 1)) == "Write exactly 1 word."
    assert describe(Constraint("words_exactly", 2)) == "Write exactly 2 words."
    assert parse("Write exactly 1 words.") is parse("Write exactly 2 word.") is None


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "Use the word.",
        "Use the word two figs.",
        "use the word fig.",
        "Use the word fig",
        "Use the word fig. ",
        "Write exactly 0 words.",
        "Write exactly 03 words.",
        "Write exactly ٣ words.",
        "Write exactly {} words.",
        "Begin every word with the letter F.",
        "Begin every word with the letter fg.",
        "\0" * 1000,
    ],
)
def test_what_no_constraint_says_is_none(sentence):
    assert parse(sentence) is None


def test_equal_constraints_are_one_and_their_text_and_json_are_canonical():
    assert len({Constraint("contains", "fig"), Constraint("contains", "fig"), Constraint("contains", "plum")}) == 2
    assert str(Constraint("words_exactly", 3)) == "words_exactly=3"
    assert str(Constraint("contains", "3")) == 'contains="3"'
    assert str(Constraint("lower_case")) == "lower_case"
    assert len({str(constraint) for constraint in ALL}) == len(ALL)
    parsed = json.loads(json.dumps([constraint.to_json() for constraint in ALL]))
    assert read_constraints(parsed) == tuple(ALL)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "expected a list of .*found None"),
        ([], r"found \[\]: give at least one"),
        ({"kind": "lower_case"}, "expected a list of"),
        (["lower_case"], "found 'lower_case': correct it"),
        ([{"kind": "lower_case", "n": 3}], "expected .*kind.*value"),
        ([{"kind": "lowercase"}], "no kind 'lowercase'; did you mean `lower_case`"),
        ([{"kind": ["x"]}], r"no kind \['x'\]; choose from words_exactly"),
        ([{"kind": "lower_case", "value": 3}], "lower_case: expected no value, found 3"),
        ([{"kind": "words_exactly"}], "words_exactly: expected a whole number from 1 .*found None"),
        ([{"kind": "words_exactly", "value": 0}], "found 0"),
        ([{"kind": "words_exactly", "value": "3"}], "found '3'"),
        ([{"kind": "words_exactly", "value": True}], "found True"),
        ([{"kind": "words_exactly", "value": 3.0}], r"found 3\.0"),
        ([{"kind": "contains", "value": "two figs"}], "contains: expected one word without blanks as value"),
        ([{"kind": "contains", "value": 3}], "found 3"),
        ([{"kind": "initials", "value": "F"}], "initials: expected one small letter"),
    ],
)
def test_metadata_that_holds_no_constraints_is_explained(metadata, message):
    with pytest.raises(ConfigError, match=message):
        read_constraints(metadata)


def test_a_set_is_one_group_in_any_order():
    fig, plum = Constraint("contains", "fig"), Constraint("contains", "plum")
    three_words = Constraint("words_exactly", 3)
    assert group_of([fig, three_words]) == group_of((three_words, fig, fig)) != group_of([plum, three_words])


def test_a_query_can_ask_for_other_constraints_instead():
    asked, other = [Constraint("words_exactly", 3), Constraint("lower_case")], [Constraint("contains", "fig")]
    query = f"Write a line. {describe_all(asked)}"
    assert with_constraints_replaced(query, asked, other) == "Write a line. Use the word fig."
    assert with_constraints_replaced(query, asked[::-1], other) is None
    assert with_constraints_replaced(f"{query} {describe_all(asked)}", asked, other) is None
    assert with_constraints_replaced(query, [], other) is None


# --- the reward ------------------------------------------------------------------------------------------------------


def prompts(*metadata):
    rows = [
        {"prompt_id": f"p{n}", "task": "t", "group": "g", "split": "train", "query": "q", "options": None}
        | {"references": [], "metadata": None if data is None else json.dumps(data)}
        for n, data in enumerate(metadata)
    ]
    return pl.DataFrame(rows, schema=Prompts.create_empty().schema)


def asking(*constraints):
    return {"constraints": [constraint.to_json() for constraint in constraints]}


THREE = (Constraint("words_exactly", 2), Constraint("contains", "fig"), Constraint("upper_case"))


@pytest.mark.parametrize(
    ("completion", "score", "reason"),
    [
        ("A FIG", 1.0, "meets all 3"),
        ("a fig", 2 / 3, "unmet: 'Write in capital letters only.'"),
        ("fig", 1 / 3, "unmet: 'Write exactly 2 words. Write in capital letters only.'"),
        ("", 0.0, "unmet: 'Write exactly 2 words. Use the word fig. Write in capital letters only.'"),
    ],
)
def test_the_score_is_the_share_of_constraints_that_are_met(completion, score, reason):
    samples = pl.DataFrame({"sample_id": ["s"], "prompt_id": ["p0"], "completion": [completion]})
    scored = build_reward(ConstraintsReward(type="constraints")).score(samples, prompts(asking(*THREE)))
    Rewards.validate(scored)
    assert scored.select("reward", "score", "reason").row(0) == ("constraints", score, reason)


def test_the_parts_are_the_shares_by_kind():
    asked = asking(*THREE, Constraint("contains", "plum"))
    samples = pl.DataFrame({"sample_id": ["s"], "prompt_id": ["p0"], "completion": ["a fig"]})
    scored = build_reward(ConstraintsReward(type="constraints")).score(samples, prompts(asked))
    assert parts_of(scored) == [{"contains": 0.5, "upper_case": 0.0, "words_exactly": 1.0}]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "its metadata has no `constraints`"),
        ({"level": 3}, "its metadata has no `constraints`"),
        ({"constraints": []}, "give at least one"),
        ({"constraints": [{"kind": "contain", "value": "fig"}]}, "did you mean `contains`"),
    ],
)
def test_prompts_that_ask_for_no_constraint_stop_the_run(metadata, message):
    with pytest.raises(ConfigError, match=f"1 of 2 prompts cannot be judged; the first is p1 .*{message}"):
        build_reward(ConstraintsReward(type="constraints")).check_prompts(prompts(asking(*THREE), metadata))


# --- the prompts -----------------------------------------------------------------------------------------------------

EVERY_KIND = {"kinds": list(KINDS), "max_constraints": 2}


def written(size=1000, seed=1, **dials):
    return drawn(size, seed, json.dumps(dials))


@cache
def drawn(size, seed, dials):
    source = SyntheticPrompts(
        type="synthetic", task="constrained_writing", size=size, seed=seed, dials=json.loads(dials)
    )
    table, rejected = load_prompts([source])
    Prompts.validate(table)
    assert (table.height, rejected) == (size, {})
    return table


def constraints_of(row):
    return read_constraints(json.loads(row["metadata"])["constraints"])


@pytest.mark.parametrize("dials", [{}, EVERY_KIND], ids=["default", "every kind"])
def test_a_query_names_its_constraints_and_nothing_else_is_asked(dials):
    for row in written(**dials).iter_rows(named=True):
        constraints = constraints_of(row)
        assert row["query"].endswith(f" {describe_all(constraints)}")
        opening, *sentences = row["query"].split(". ")
        assert "words" in opening
        said = [parse(sentence.removesuffix(".") + ".") for sentence in sentences]
        assert tuple(said[-len(constraints) :]) == constraints
        assert row["group"] == group_of(constraints)
        assert (row["references"], row["options"]) == ([], None)


def test_no_set_of_constraints_crosses_the_split():
    table = written(size=400, words=3, max_words=3, max_constraints=2)
    sides = {}
    for row in table.iter_rows(named=True):
        sides.setdefault(frozenset(constraints_of(row)), set()).add(row["split"])
    assert len(sides) < table.height, "some set must be asked for in two orders"
    assert all(len(split) == 1 for split in sides.values())
    assert set.union(*sides.values()) == {"train", "test"}
    check_leaks(table)


@pytest.mark.parametrize("dials", [{}, EVERY_KIND], ids=["default", "every kind"])
def test_every_set_can_be_satisfied(dials):
    for row in written(**dials, examples=True).iter_rows(named=True):
        (example,) = row["references"]
        assert all(check(constraint, example) for constraint in constraints_of(row)), row


@pytest.mark.parametrize("dials", [{}, EVERY_KIND], ids=["default", "every kind"])
def test_every_kind_is_asked_for_and_no_topic_twice(dials):
    sets = [constraints_of(row) for row in written(**dials).iter_rows(named=True)]
    counts = Counter(constraint.kind for constraints in sets for constraint in constraints)
    assert set(counts) == set(dials.get("kinds", DEFAULT_KINDS))
    assert min(counts.values()) > 0.1 * max(counts.values())
    for constraints in sets:
        topics = [KINDS[c.kind].topic or c.kind for c in constraints]
        keywords = [c.value for c in constraints if KINDS[c.kind].parameter is ONE_WORD]
        assert len(set(topics)) == len(topics)
        assert len(set(keywords)) == len(keywords)


def test_no_single_line_satisfies_most_prompts():
    sets = [constraints_of(row) for row in written(size=500, min_constraints=2).iter_rows(named=True)]
    lines = [row["references"][0] for row in written(size=200, seed=5, examples=True).iter_rows(named=True)]
    best = max(sum(all(check(c, line) for c in constraints) for constraints in sets) for line in lines)
    assert best / len(sets) < 0.2


def test_one_seed_is_one_table_and_another_seed_another():
    assert written(200).equals(drawn.__wrapped__(200, 1, "{}"))
    first, other = (set(written(200, seed=seed)["prompt_id"]) for seed in (1, 2))
    assert len(first & other) < 60


def test_without_examples_there_is_no_majority_answer():
    assert majority_baseline(written(50)) is None


@pytest.mark.parametrize(
    ("dials", "message"),
    [
        ({"kinds": ["contain"]}, r"unknown kinds \['contain'\]: choose from words_exactly"),
        ({"min_constraints": 4}, "max_constraints 3 must be at least min_constraints 4"),
        ({"kinds": ["lower_case", "upper_case"]}, "at most 1, the topics of kinds"),
        ({"word": 3}, "did you mean `words`"),
        ({"words": 1}, "words: .* greater than or equal to 2"),
        (
            {"words": 2, "kinds": ["contains", "starts_with", "ends_with"], "min_constraints": 3},
            "10000 lines in a row without 3 constraints .* raise words",
        ),
    ],
)
def test_a_wrong_dial_is_named(dials, message):
    with pytest.raises(ConfigError, match=message):
        written(10, **dials)


def test_the_sentences_of_a_sample_are_a_prompt_that_it_satisfies():
    """As in hindsight relabeling: the constraints that a line satisfies become its query, which the line answers."""
    table = written(60, examples=True)
    vocabulary = sorted({c for row in table.iter_rows(named=True) for c in constraints_of(row)}, key=str)
    rows = table.to_dicts()
    for row, other in pairwise(rows):
        (line,) = other["references"]
        met = satisfied(line, vocabulary)[:2]
        query = with_constraints_replaced(row["query"], constraints_of(row), met)
        assert query is not None
        assert query.endswith(describe_all(met))
        assert all(check(constraint, line) for constraint in met)
