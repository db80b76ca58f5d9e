"""Shared by the tests of the synthetic tasks: drawn tables, cached by their dials, and parts of their rows."""

import json
from functools import cache

from hir_core.config import SyntheticPrompts
from hir_core.prompts.load import load_prompts
from hir_core.prompts.options import read_options
from hir_core.schemas import Prompts

SIZE = 1000
CHI_SQUARE = {2: 10.8, 3: 13.8, 5: 18.5, 6: 20.5, 7: 22.5}  # by number of places, p = 0.001


def synthetic(task, **settings):
    return SyntheticPrompts(type="synthetic", task=task, **({"size": SIZE, "seed": 1} | settings))


@cache
def drawn(task, dials="{}", size=SIZE, seed=1):
    prompts, _ = load_prompts([synthetic(task, dials=json.loads(dials), size=size, seed=seed)])
    Prompts.validate(prompts)
    return prompts


def rows_of(task, dials=None, **settings):
    return drawn(task, json.dumps(dials or {}), **settings).to_dicts()


def right_text(row):
    return row["references"][-1] if row["options"] else row["references"][0]


def before_options(row):
    return read_options(row["query"]).question


def evenly(counts, places):
    """Whether the counts agree with equal probabilities, by a chi-square test at p = 0.001."""
    expected = sum(counts.values()) / places
    return sum((counts[place] - expected) ** 2 / expected for place in range(places)) < CHI_SQUARE[places]
