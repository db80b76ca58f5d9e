"""Rows of a run as the chats that other trainers read, for `hir export`: conversations, and pairs of answers.

`conversations` are triples in the form of ShareGPT, `preference_pairs` rewards in the form of TRL's preference data, of
which DPO and reward models learn. Reads versions and their parents, the digests checked.
"""

from __future__ import annotations

import polars as pl

from hir_core.inspect.rows import columns_of
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def conversations(store: Store, triples: VersionRef) -> pl.DataFrame:
    """A conversation for each triple that is trained on, its output as the last turn.

    Returns:
        The columns `id` and `conversations`, whose turns have `from` and `value`.
    """
    shown = ["triple_id", "instruction", "query", "history", "output"]
    rows = columns_of(store, triples, shown, pl.col("weight") > 0)
    chats = []
    for row in rows.iter_rows(named=True):
        turns = [*_asked(row), {"role": "assistant", "content": row["output"]}]
        chats.append([{"from": SHAREGPT_ROLES[turn["role"]], "value": turn["content"]} for turn in turns])
    turn = pl.Struct({"from": pl.String, "value": pl.String})
    return pl.DataFrame({"id": rows["triple_id"], "conversations": pl.Series(chats, dtype=pl.List(turn))})


def preference_pairs(store: Store, rewards: VersionRef) -> pl.DataFrame:
    """Pairs of a right and a wrong completion of the same prompt, each completion once.

    A completion is right where its score reaches the threshold of the run. Equal texts count once, and samples without
    a score not at all. The first right one is paired with the first wrong one, and so on.

    Returns:
        The columns `prompt`, `chosen` and `rejected`, lists of turns with `role` and `content`, and `prompt_id`.
    """
    [samples], [prompts] = store.parents(rewards, "samples"), store.parents(rewards, "prompts")
    threshold = store.manifest(rewards).config["threshold"]
    judged = columns_of(store, rewards, ["sample_id", "score"], pl.col("score").is_not_null())
    judged = judged.select("sample_id", is_right=pl.col("score") >= threshold)
    shown = ["sample_id", "prompt_id", "instruction", "k", "completion"]
    drawn = columns_of(store, store.resolve(f"samples/{samples.id}"), shown).join(judged, on="sample_id")
    drawn = drawn.sort("prompt_id", "k").unique(["prompt_id", "completion"], keep="first", maintain_order=True)
    drawn = drawn.with_columns(place=pl.col("k").cum_count().over("prompt_id", "is_right"))
    right, wrong = (drawn.filter(pl.col("is_right") == value) for value in (True, False))
    pairs = right.join(
        wrong.select("prompt_id", "place", rejected="completion"), on=["prompt_id", "place"], maintain_order="left"
    )
    questions = columns_of(store, store.resolve(f"prompts/{prompts.id}"), ["prompt_id", "query", "history"])
    rows = pairs.join(questions, on="prompt_id", maintain_order="left").rows(named=True)
    turns = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    return pl.DataFrame(
        {
            "prompt": [_asked(row) for row in rows],
            "chosen": [_answer(row["completion"]) for row in rows],
            "rejected": [_answer(row["rejected"]) for row in rows],
            "prompt_id": [row["prompt_id"] for row in rows],
        },
        schema={"prompt": turns, "chosen": turns, "rejected": turns, "prompt_id": pl.String},
    )


def _asked(row: dict[str, object]) -> list[dict[str, object]]:
    """The turns before the query, and the user turn: the instruction in front of the query, as chat models get it."""
    query = f"{row['instruction']}\n\n{row['query']}" if row["instruction"] else row["query"]
    history = row["history"] if isinstance(row["history"], list) else []
    return [*history, {"role": "user", "content": query}]


def _answer(text: object) -> list[dict[str, object]]:
    return [{"role": "assistant", "content": text}]
