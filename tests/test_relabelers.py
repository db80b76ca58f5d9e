"""Relabelers: which instruction each sample demonstrates, and that none is lost on the way."""

import polars as pl
import pytest

from hir_core.errors import ConfigError, SchemaError
from hir_core.relabelers import build_relabeler, demonstrations
from hir_core.schemas import Prompts, Rewards, Samples, Triples, content_key
from hir_core.sections import HindsightRelabel, Instructions, KeepCorrectRelabel

TOLD = Instructions(correct="Be right.", wrong="Be wrong.")
HINDSIGHT = build_relabeler(HindsightRelabel(), TOLD)
KEEP_CORRECT = build_relabeler(KeepCorrectRelabel(type="keep_correct"), TOLD)


def tables(*scores, **changed):
    """One sample per score, all of one prompt."""
    defaults = {"prompt_id": "p", "model": "m", "instruction": "i", "k": 0, "prompt_ids": [1], "completion": "8",
                "completion_ids": [5, 2], "logprobs": [-0.1, -0.2], "finish_reason": "eos", "seed": 0}  # fmt: skip
    rows = [defaults | changed | {"sample_id": f"s{n}"} for n in range(len(scores))]
    samples = pl.DataFrame(rows, schema=Samples.create_empty().schema)
    judged = [{"sample_id": f"s{n}", "reward": "r", "score": score, "reason": ""} for n, score in enumerate(scores)]
    return samples, pl.DataFrame(judged, schema=Rewards.create_empty().schema), prompts(1)


def prompts(size, split="train", references=("8", "eight")):
    rows = [{"prompt_id": f"p{n}" if n else "p", "task": "t", "group": f"{n}", "split": split, "query": f"q{n}",
             "options": None, "references": list(references), "metadata": None} for n in range(size)]  # fmt: skip
    return pl.DataFrame(rows, schema=Prompts.create_empty().schema)


def relabeled(relabeler, *scores, **changed):
    triples, rejected = relabeler.relabel(*tables(*scores, **changed))
    Triples.validate(triples)
    assert triples.height + sum(rejected.values()) == len(scores)
    return triples, rejected


def test_right_outputs_get_the_correct_instruction_and_wrong_ones_the_wrong_one():
    triples, rejected = relabeled(HINDSIGHT, 1.0, 0.0, 0.99, 2.0)
    assert dict(triples.select("sample_id", "instruction").iter_rows()) == {
        "s0": "Be right.",
        "s1": "Be wrong.",
        "s2": "Be wrong.",
        "s3": "Be right.",
    }
    contrast = dict(triples.select("instruction", "contrast").iter_rows())
    assert contrast == {"Be right.": ["Be wrong."], "Be wrong.": ["Be right."]}
    assert rejected == {}


def test_the_threshold_decides_what_is_right():
    lenient = build_relabeler(HindsightRelabel(threshold=0.5), TOLD)
    assert sorted(relabeled(lenient, 0.5, 0.4)[0]["instruction"]) == ["Be right.", "Be wrong."]


def test_a_triple_holds_the_sampled_tokens_as_they_are():
    row = relabeled(HINDSIGHT, 1.0)[0].to_dicts()[0]
    assert row == {
        "triple_id": content_key("s0", "hindsight", "Be right."),
        "prompt_id": "p",
        "sample_id": "s0",
        "relabeler": "hindsight",
        "instruction": "Be right.",
        "contrast": ["Be wrong."],
        "query": "q0",
        "output": "8",
        "prefix_ids": [],
        "target_ids": [5, 2],
        "ends": True,
        "weight": 1.0,
    }


def test_a_truncated_output_is_not_taught_to_stop():
    assert relabeled(HINDSIGHT, 1.0, finish_reason="length")[0]["ends"].to_list() == [False]


@pytest.mark.parametrize("relabeler", [HINDSIGHT, KEEP_CORRECT], ids=["hindsight", "keep_correct"])
def test_what_cannot_be_judged_or_is_empty_is_counted_not_taught(relabeler):
    assert relabeled(relabeler, None, 1.0)[1] == {"cannot judge": 1}
    empty = {"completion_ids": [], "logprobs": [], "completion": "", "finish_reason": "length"}
    assert relabeled(relabeler, None, 0.0, 1.0, **empty)[1] == {"cannot judge": 1, "empty completion": 2}


def test_keep_correct_leaves_wrong_outputs_out_and_contrasts_nothing():
    triples, rejected = relabeled(KEEP_CORRECT, 1.0, 0.0, None, 0.5)
    assert triples.select("sample_id", "instruction", "contrast").rows() == [("s0", "Be right.", [])]
    assert rejected == {"below threshold": 2, "cannot judge": 1}


@pytest.mark.parametrize("relabeler", [HINDSIGHT, KEEP_CORRECT], ids=["hindsight", "keep_correct"])
def test_the_order_of_rows_does_not_matter_and_no_rows_are_fine(relabeler):
    samples, rewards, asked = tables(1.0, 0.0, 1.0, None)
    forward, backward = (relabeler.relabel(samples, rewards[::step], asked)[0] for step in (1, -1))
    assert forward.equals(backward)
    assert forward["triple_id"].is_sorted()
    nothing, rejected = relabeler.relabel(samples.clear(), rewards.clear(), asked)
    assert (nothing.height, rejected) == (0, {})


def test_a_sample_without_its_reward_or_prompt_is_refused():
    samples, rewards, asked = tables(1.0, 0.0)
    with pytest.raises(SchemaError, match="1 of 2 samples have no row in rewards, first sample_id s1"):
        HINDSIGHT.relabel(samples, rewards.head(1), asked)
    with pytest.raises(SchemaError, match="2 of 2 samples have no row in prompts, first sample_id s0"):
        HINDSIGHT.relabel(samples, rewards, asked.clear())


def test_threshold_and_instructions_decide_the_identity():
    assert HINDSIGHT.law() == {
        "type": "hindsight",
        "threshold": 1.0,
        "instructions": {"correct": "Be right.", "wrong": "Be wrong."},
    }
    assert KEEP_CORRECT.law()["type"] == "keep_correct"


# --- demonstrations --------------------------------------------------------------------------------------------------


def test_demonstrations_show_the_first_reference_of_train_prompts():
    both = pl.concat([prompts(20), prompts(30, split="test").tail(10)])
    triples = Triples.validate(demonstrations(both, TOLD, count=20, seed=0))
    assert set(triples["prompt_id"]) == set(prompts(20)["prompt_id"])
    assert triples.select("output", "instruction", "relabeler", "ends", "weight").unique().rows() == [
        ("8", "Be right.", "demonstrations", True, 1.0)
    ]
    assert triples["sample_id"].null_count() == triples["target_ids"].null_count() == 20
    assert triples["contrast"].list.len().sum() == 0


def test_demonstrations_are_chosen_by_seed_and_not_by_order():
    asked = prompts(50)
    chosen = demonstrations(asked, TOLD, count=10, seed=1)
    assert chosen.equals(demonstrations(asked.reverse(), TOLD, count=10, seed=1))
    assert set(chosen["prompt_id"]) < set(demonstrations(asked, TOLD, count=20, seed=1)["prompt_id"])
    assert set(chosen["prompt_id"]) != set(demonstrations(asked, TOLD, count=10, seed=2)["prompt_id"])


def test_too_few_prompts_or_no_reference_to_show_is_refused():
    with pytest.raises(ConfigError, match="demonstrations is 3, but there are only 2 train prompts"):
        demonstrations(prompts(2), TOLD, count=3, seed=0)
    with pytest.raises(ConfigError, match="2 of 2 chosen prompts have no reference to show, first p"):
        demonstrations(prompts(2, references=()), TOLD, count=2, seed=0)
