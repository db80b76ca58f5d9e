"""Small Prompts and Samples tables for tests of rewards, and the verdicts of a reward on them."""

import polars as pl

from hir_core.rewards.registry import build_reward
from hir_core.schemas import Prompts, Rewards


def prompts(*rows):
    defaults = {"task": "t", "group": "g", "split": "train", "query": "q", "options": None, "references": []}
    full = [defaults | {"prompt_id": f"p{n}", "metadata": None} | row for n, row in enumerate(rows)]
    return pl.DataFrame(full, schema=Prompts.create_empty().schema)


def row(**fields):
    """A prompt as a reward sees it."""
    defaults = {"prompt_id": "p0", "task": "t", "group": "g", "split": "train", "query": "q", "history": None}
    return {**defaults, "options": None, "references": [], "metadata": {}, **fields}


def samples(*completions, prompt_id="p0"):
    rows = [{"sample_id": f"s{n}", "prompt_id": prompt_id, "completion": text} for n, text in enumerate(completions)]
    return pl.DataFrame(rows, schema={"sample_id": pl.String, "prompt_id": pl.String, "completion": pl.String})


def verdict(config, completion, row):
    scored = build_reward(config).score(samples(completion), prompts(row))
    Rewards.validate(scored)
    return scored["score"][0], scored["reason"][0]


def parts_of(scored):
    """The attributes of each row, as `{name: score}`."""
    return [{part["name"]: part["score"] for part in parts} for parts in scored["parts"]]


def verdicts(config, completions, row):
    scored = build_reward(config).score(samples(*completions), prompts(row))
    Rewards.validate(scored)
    return list(scored.select("score", "reason").iter_rows())


def score_one(completions, prompts):
    """A reward function of a user's."""
    return [1.0] * len(completions)
