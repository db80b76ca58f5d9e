"""The relabeler `constraints`: the query is rewritten to ask for the constraints that the output does satisfy."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from hir_core.prompts.constraints.constraint import Constraint, group_of
from hir_core.prompts.constraints.registry import KINDS, check, read_constraints, satisfied, with_constraints_replaced
from hir_core.relabelers.relabeler import EMPTY_COMPLETION, Relabeler
from hir_core.schemas import content_key

NO_CONSTRAINTS = "prompt has no constraints in its query"
SATISFIES_NOTHING = "satisfies no constraint that can be asked for"
HELD_OUT = "satisfies a set of constraints kept for the test"


class SatisfiedConstraints(Relabeler):
    """Hindsight on constraints, as in HiR (arXiv 2512.23457), for prompts whose metadata holds `constraints`.

    p* = correct, q* = q with the constraints that o satisfies in place of those that q asks for. A constraint that the
    output satisfies stays; one that it does not becomes another constraint of the same topic that it satisfies, or is
    dropped. So every output that satisfies some constraint is a demonstration, whatever its score. Sets of constraints
    that the test split asks for are rejected, because the test must ask for sets that were not trained on.
    """

    name = "constraints"

    def rejection(self) -> pl.Expr:
        return pl.when(pl.col("completion_ids").list.len() == 0).then(pl.lit(EMPTY_COMPLETION))

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        asked: dict[str, tuple[Constraint, ...]] = {}
        for prompt_id, metadata in prompts.select("prompt_id", "metadata").iter_rows():
            constraints = json.loads(metadata or "{}").get("constraints")
            asked[prompt_id] = read_constraints(constraints) if constraints else ()
        train, test = (set(prompts.filter(pl.col("split") == split)["prompt_id"]) for split in ("train", "test"))
        vocabulary = sorted({constraint for prompt_id in train for constraint in asked[prompt_id]}, key=str)
        held_out = {group_of(asked[prompt_id]) for prompt_id in test if asked[prompt_id]}
        rows = scored.select("sample_id", "prompt_id", "query", self.answers(scored["completion"])).iter_rows()
        restatements = [
            _restate(sample_id, query, completion, asked[prompt_id], vocabulary, held_out)
            for sample_id, prompt_id, query, completion in rows
        ]
        queries = pl.Series([query for query, _ in restatements], dtype=pl.String)
        reasons = pl.Series([reason for _, reason in restatements], dtype=pl.String)
        return (
            super()
            .label(scored, prompts)
            .with_columns(query=pl.coalesce(queries, "query"), rejected=pl.coalesce("rejected", reasons))
        )


def _restate(
    sample_id: str,
    query: str,
    completion: str,
    asked: Sequence[Constraint],
    vocabulary: Sequence[Constraint],
    held_out: set[str],
) -> tuple[str | None, str | None]:
    """The query that asks for what the completion satisfies, or None and the reason why there is none."""
    met = achieved(sample_id, completion, asked, vocabulary)
    if not asked or with_constraints_replaced(query, asked, asked) is None:
        return None, NO_CONSTRAINTS
    if not met:
        return None, SATISFIES_NOTHING
    return (None, HELD_OUT) if group_of(met) in held_out else (with_constraints_replaced(query, asked, met), None)


def achieved(
    sample_id: str, completion: str, asked: Sequence[Constraint], vocabulary: Sequence[Constraint]
) -> tuple[Constraint, ...]:
    """The constraints that a completion satisfies, close to those asked for.

    In place of each one that was asked for: itself where it is satisfied, otherwise a satisfied one of the same topic,
    chosen by a hash of the sample, or nothing where there is none.
    """
    candidates = satisfied(completion, vocabulary)
    met: list[Constraint] = []
    for constraint in asked:
        topic = KINDS[constraint.kind].topic
        same_topic = [c for c in candidates if KINDS[c.kind].topic == topic and c not in met and c not in asked]
        if check(constraint, completion):
            met.append(constraint)
        elif same_topic:
            met.append(same_topic[int(content_key("achieved", sample_id, str(constraint)), 16) % len(same_topic)])
    return tuple(met)
