"""The verdict suite: what rewards say about natural outputs, written down by people who had not read the code.

`verdicts/<reward>.yaml` lists outputs of prompts by what a careful reader says about them, and `verdicts/frames.yaml`
sentences that wrap any answer without changing it. `verdicts/math_later.yaml` has more outputs for `math`, by somebody
who had read its code. With `-s` the figures are printed.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
import yaml
from pydantic import TypeAdapter
from reward_tables import prompts

from hir_core.config import RewardConfig
from hir_core.rewards.registry import build_reward

FOLDER = Path(__file__).parent / "verdicts"
REWARDS = ("exact_match", "answer", "option_choice", "numeric", "math", "constraints")
LEAST_CASES = 60
MOST_UNSCORED = 0.02
"""Largest share of outputs that name a right or a wrong answer for which a reward may give no score."""


class Case(NamedTuple):
    """An output and what a careful reader says about it."""

    settings: str
    """Of the reward, as JSON."""
    prompt: dict[str, Any]
    completion: str
    reader: str
    """`right`, `wrong`, `no_answer`, or `unclear`: it does not commit to one answer."""


def suite(reward: str) -> Iterator[Case]:
    files = (FOLDER / f"{reward}.yaml", FOLDER / f"{reward}_later.yaml")
    texts = [path.read_text(encoding="utf-8") for path in files if path.exists()]
    for entry in (entry for text in texts for entry in yaml.safe_load(text)):
        prompt = {"query": entry["query"], "options": entry.get("options"), "references": entry.get("references", [])}
        if "constraints" in entry:
            prompt["metadata"] = json.dumps({"constraints": entry["constraints"]})
        settings = json.dumps({"type": reward, **entry.get("settings", {})})
        for reader in ("right", "wrong", "no_answer", "unclear"):
            for completion in entry.get(reader, []):
                yield Case(settings, prompt, completion, reader)


def judged(reward: str) -> list[tuple[Case, str, str]]:
    """Each case with what the reward says, in the reader's words, and its reason."""
    results = []
    for settings, group in groupby(
        sorted(suite(reward), key=lambda case: case.settings), key=lambda case: case.settings
    ):
        cases = list(group)
        table = prompts(*(case.prompt for case in cases))
        rows = pl.DataFrame({"prompt_id": table["prompt_id"], "completion": [case.completion for case in cases]})
        config = TypeAdapter(RewardConfig).validate_json(settings)
        verdicts = build_reward(config).judge(rows, table).select("outcome", "score", "reason").iter_rows()
        for case, (outcome, score, reason) in zip(cases, verdicts, strict=True):
            said = "unclear" if outcome == "not_judged" else outcome
            results.append((case, ("right" if score == 1 else "wrong") if outcome == "scored" else said, reason))
    return results


@pytest.mark.parametrize("reward", REWARDS)
def test_a_reward_says_what_a_careful_reader_says(reward):
    results = judged(reward)
    cases, confusion = Counter(), Counter()
    for case, said, _ in results:
        cases[case.reader] += 1
        confusion[case.reader, said] += 1
    print(f"\n{reward}: {dict(cases)}")
    for (reader, said), count in sorted(confusion.items()):
        print(f"  {reader:>9} judged {said:<9} {count:>5}")
    differing = [
        f"{case.reader} judged {said}: {case.completion!r} for {case.prompt['references']} ({reason})"
        for case, said, reason in results
        if said != case.reader
    ]
    print(*(f"  {line}" for line in differing), sep="\n")
    assert min(cases["right"], cases["wrong"]) >= LEAST_CASES
    scored_wrongly = [line for line in differing if line.split(": ")[0].endswith(("judged right", "judged wrong"))]
    assert scored_wrongly == []
    unscored = sum(confusion[reader, said] for reader in ("right", "wrong") for said in ("no_answer", "unclear"))
    assert unscored / (cases["right"] + cases["wrong"]) <= MOST_UNSCORED
    assert (confusion["no_answer", "unclear"], confusion["unclear", "no_answer"]) == (0, 0)
