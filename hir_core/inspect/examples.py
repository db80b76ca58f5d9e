"""Rows of a run that are worth reading: its best and worst outputs, and the answers that changed most.

Chosen by rules without chance, so that the same run shows the same rows. Reads a run's tables, verified; texts are cut,
and say by how much, for an output can be of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from hir_core.inspect.history import Iteration
from hir_core.inspect.rows import columns_of
from hir_core.schemas import SCHEMAS
from hir_core.store.graph import VersionGraph
from hir_core.store.version import VersionRef

Facts = dict[str, Any]
PICKED = 3
"""Of each kind."""
CHARACTERS = 600
NAME_CHARACTERS = 160


def examples(graph: VersionGraph, rounds: Sequence[Iteration], tested: Sequence[VersionRef]) -> Facts:
    """Rows of a run, as plain JSON values.

    Args:
        rounds: the run's.
        tested: its evaluations, which ask the same prompts, the first one first.

    Returns:
        `rounds`: of the first and the last round that was scored the `iteration`, and of its samples the `best`, the
        `worst` (of equal scores those that the model was surest of; one of each prompt) and some `not_judged`;
        `changed`: test prompts with their `answers` in every evaluation whose score rose or fell most from the first
        to the last one.

    Raises:
        VersionCorrupt: a version is damaged.
    """
    scored = [one for one in rounds if one.samples is not None and one.rewards is not None]
    shown = scored if len(scored) < 2 else [scored[0], scored[-1]]
    return {"rounds": [_of_round(graph, one) for one in shown], "changed": _changed(graph, tested)}


def clip(text: str, kept: int = NAME_CHARACTERS) -> str:
    """The beginning of a text that is to stand on one line."""
    return text if len(text) <= kept else f"{text[: kept - 1]}…"


def excerpt(text: str | None) -> Facts:
    """The beginning of a text, and how many characters follow."""
    text = text or ""
    return {"text": text[:CHARACTERS], "more": max(0, len(text) - CHARACTERS)}


# --- outputs ---------------------------------------------------------------------------------------------------------


def _of_round(graph: VersionGraph, one: Iteration) -> Facts:
    assert one.samples is not None
    assert one.rewards is not None
    drawn = columns_of(graph.store, one.samples, ["sample_id", "prompt_id", "logprobs"])
    drawn = drawn.select("sample_id", "prompt_id", logprob=pl.col("logprobs").list.mean())
    rows = drawn.join(columns_of(graph.store, one.rewards, ["sample_id", "score"]), on="sample_id", how="inner")
    judged = rows.drop_nulls("score")
    apart = judged["score"].n_unique() > 1
    chosen = {
        "best": _first(judged, by="score", descending=True),
        "worst": _first(judged, by="score", descending=False) if apart else [],
        "not_judged": _first(rows.filter(pl.col("score").is_null()), by="score", descending=True),
    }
    told = {row["sample_id"]: row for row in _told(graph, one, [key for keys in chosen.values() for key in keys])}
    return {"iteration": one.iteration, **{kind: [told[key] for key in keys] for kind, keys in chosen.items()}}


def _first(rows: pl.DataFrame, by: str, *, descending: bool) -> list[str]:
    """Samples by score, then by how sure the model was, one of each prompt."""
    ordered = rows.sort(by, "logprob", "sample_id", descending=[descending, True, False], nulls_last=True)
    found: list[str] = (
        ordered.unique("prompt_id", keep="first", maintain_order=True).head(PICKED)["sample_id"].to_list()
    )
    return found


def _told(graph: VersionGraph, one: Iteration, keys: Sequence[str]) -> list[Facts]:
    """Samples with their prompts and scores, and the instruction that each was asked and became an example of."""
    assert one.samples is not None
    assert one.rewards is not None
    samples = _rows(graph, one.samples, "sample_id", keys)
    scores = {row["sample_id"]: row for row in _rows(graph, one.rewards, "sample_id", keys)}
    became: dict[str, list[Facts]] = {}
    for triple in [] if one.triples is None else _rows(graph, one.triples, "sample_id", keys):
        became.setdefault(triple["sample_id"], []).append(triple)
    asked = _prompts(graph, one.samples, [row["prompt_id"] for row in samples])
    return [
        {
            "sample_id": row["sample_id"],
            "score": scores[row["sample_id"]]["score"],
            "reason": excerpt(scores[row["sample_id"]]["reason"]),
            "logprob": row["logprobs"] and sum(row["logprobs"]) / len(row["logprobs"]),
            "tokens": None if row["completion_ids"] is None else len(row["completion_ids"]),
            "finish_reason": row["finish_reason"],
            "completion": excerpt(row["completion"]),
            "asked": {"instruction": excerpt(row["instruction"]), **_asked(asked, row["prompt_id"])},
            "became": [
                {"instruction": excerpt(triple["instruction"]), "query": excerpt(triple["query"])}
                for triple in became.get(row["sample_id"], [])
            ],
            "relabeled": one.triples is not None,
        }
        for row in samples
    ]


# --- answers ---------------------------------------------------------------------------------------------------------


def _changed(graph: VersionGraph, tested: Sequence[VersionRef]) -> list[Facts]:
    if len(tested) < 2:
        return []
    tables = [columns_of(graph.store, ref, ["prompt_id", "completion", "score"]) for ref in tested]
    ends = tables[0].join(tables[-1], on="prompt_id", suffix="_now")
    moved = ends.select("prompt_id", by=pl.col("score_now").fill_null(0) - pl.col("score").fill_null(0))
    answers = pl.concat(tables).group_by("prompt_id").agg(different=pl.col("completion").n_unique())
    moved = moved.join(answers, on="prompt_id").filter(pl.col("by") != 0)
    keys = []
    for falls, side in ((False, pl.col("by") > 0), (True, pl.col("by") < 0)):
        ordered = moved.filter(side).sort("by", "different", "prompt_id", descending=[not falls, True, False])
        keys += ordered.head(PICKED)["prompt_id"].to_list()
    asked = _prompts(graph, tested[0], keys)
    told = [(ref.iteration, {row["prompt_id"]: row for row in _rows(graph, ref, "prompt_id", keys)}) for ref in tested]
    return [
        {
            "prompt_id": key,
            **_asked(asked, key),
            "answers": [
                {"iteration": n, "completion": excerpt(rows[key]["completion"]), "score": rows[key]["score"]}
                for n, rows in told
                if key in rows
            ],
        }
        for key in keys
    ]


def _prompts(graph: VersionGraph, ref: VersionRef, keys: Sequence[str]) -> dict[str, Facts]:
    """The prompts of these keys, from the versions that a version is made from."""
    rows = [row for prompts in graph.parents(ref, "prompts") for row in _rows(graph, prompts, "prompt_id", keys)]
    return {row["prompt_id"]: row for row in rows}


def _asked(prompts: dict[str, Facts], key: str) -> Facts:
    row = prompts.get(key, {})
    references = row.get("references") or []
    return {"query": excerpt(row.get("query")), "references": [clip(text) for text in references[:PICKED]]}


def _rows(graph: VersionGraph, ref: VersionRef, key: str, keys: Sequence[str]) -> list[Facts]:
    """The rows of these keys, with all columns of their schema."""
    names = SCHEMAS[ref.stage].column_names()
    return columns_of(graph.store, ref, names, pl.col(key).is_in(list(keys))).to_dicts()
