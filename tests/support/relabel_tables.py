"""Small Samples, Rewards and Prompts tables for tests of relabelers."""

import polars as pl

from hir_core.config import Instructions
from hir_core.schemas import Prompts, Rewards, Samples

INSTRUCTIONS = Instructions(correct="Be right.", wrong="Be wrong.")
UNSCORED = {None: "not_judged", "no_answer": "no_answer"}


def tables(*scores, prompt_ids=None, completions=None, finish_reasons=None, parts=None, **changed):
    """Samples, Rewards and Prompts: one sample per score, all of one prompt unless `prompt_ids` are given.

    A score may be `no_answer`; None was not judged. `parts` are the scores of each sample as `{attribute: score}`.
    """
    defaults = {"prompt_id": "p", "model": "m", "instruction": "i", "k": 0, "prompt_ids": [1], "completion": "8",
                "completion_ids": [5, 2], "logprobs": [-0.1, -0.2], "finish_reason": "eos", "seed": 0}  # fmt: skip
    rows = [defaults | changed | {"sample_id": f"s{n}"} for n in range(len(scores))]
    rows = [row | {"prompt_id": key} for row, key in zip(rows, prompt_ids or ["p"] * len(rows), strict=True)]
    for row, text in zip(rows, completions or [], strict=False):
        row |= {"completion": text, "completion_ids": [ord(text), 2]}
    for row, reason in zip(rows, finish_reasons or [], strict=False):
        row |= {"finish_reason": reason, "completion_ids": row["completion_ids"][: None if reason == "eos" else 1]}
    samples = pl.DataFrame(rows, schema=Samples.create_empty().schema)
    judged = [
        {"sample_id": f"s{n}", "reward": "r", "outcome": UNSCORED.get(score, "scored"),
         "score": None if score in UNSCORED else score, "reason": "",
         "parts": [{"name": name, "score": part} for name, part in sorted(by_name.items())]}
        for n, (score, by_name) in enumerate(zip(scores, parts or [{}] * len(scores), strict=True))
    ]  # fmt: skip
    return samples, pl.DataFrame(judged, schema=Rewards.create_empty().schema), prompts(4)


def prompts(size, split="train", references=("8", "eight")):
    rows = [{"prompt_id": f"p{n}" if n else "p", "task": "t", "group": f"{n}", "split": split, "query": f"q{n}",
             "options": None, "references": list(references), "metadata": None} for n in range(size)]  # fmt: skip
    return pl.DataFrame(rows, schema=Prompts.create_empty().schema)
