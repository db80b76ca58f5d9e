"""The relabeler `constraints`: the query asks, in hindsight, for the constraints that the output does satisfy.

As in HiR (arXiv 2512.23457), for prompts whose metadata holds `constraints`. What was asked and met stays; what was not
met becomes another constraint of the same topic that the output satisfies, or is dropped. So nothing needs to be right
or wrong: every output that says something demonstrates some set of constraints, and the verifier says which.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from hir_core.prompts.constraints.constraint import Constraint, group_of
from hir_core.prompts.constraints.registry import KINDS, check, read_constraints, restated, satisfied
from hir_core.relabelers.relabeler import EMPTY_COMPLETION, Relabeler
from hir_core.schemas import content_key

NO_CONSTRAINTS = "prompt has no constraints in its query"
SATISFIES_NOTHING = "satisfies nothing that may be asked"
HELD_OUT = "a held-out set of constraints"


class Satisfied(Relabeler):
    """p* = correct, q* = q with the satisfied constraints in place of those that were asked.

    Sets that the test split asks for are left out: they would no longer be unseen.
    """

    name = "constraints"

    def rejection(self) -> pl.Expr:
        return pl.when(pl.col("completion_ids").list.len() == 0).then(pl.lit(EMPTY_COMPLETION))

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        asked = {key: _asked(metadata) for key, metadata in prompts.select("prompt_id", "metadata").iter_rows()}
        train, test = (set(prompts.filter(pl.col("split") == split)["prompt_id"]) for split in ("train", "test"))
        vocabulary = sorted({constraint for key in train for constraint in asked[key]}, key=str)
        held_out = {group_of(asked[key]) for key in test if asked[key]}
        rows = scored.select("sample_id", "prompt_id", "query", "completion").iter_rows()
        told = [
            _restate(key, query, text, asked[prompt_id], vocabulary, held_out) for key, prompt_id, query, text in rows
        ]
        labeled = (
            super()
            .label(scored, prompts)
            .with_columns(
                query=pl.Series([query for query, _ in told], dtype=pl.String),
                rejected=pl.coalesce("rejected", pl.Series([reason for _, reason in told], dtype=pl.String)),
            )
        )
        return labeled.with_columns(pl.col("query").fill_null(scored["query"]))


def _asked(metadata: str | None) -> tuple[Constraint, ...]:
    given = json.loads(metadata or "{}").get("constraints")
    return read_constraints(given) if given else ()


def _restate(
    key: str,
    query: str,
    text: str,
    asked: Sequence[Constraint],
    vocabulary: Sequence[Constraint],
    held_out: set[str],
) -> tuple[str | None, str | None]:
    """The query for what the text satisfies, or why there is none."""
    met = achieved(key, text, asked, vocabulary)
    if not asked or restated(query, asked, asked) is None:
        return None, NO_CONSTRAINTS
    if not met:
        return None, SATISFIES_NOTHING
    return (None, HELD_OUT) if group_of(met) in held_out else (restated(query, asked, met), None)


def achieved(
    key: str, text: str, asked: Sequence[Constraint], vocabulary: Sequence[Constraint]
) -> tuple[Constraint, ...]:
    """What the text satisfies, as near to what was asked as can be: in each one's place itself, or one of its topic."""
    fitting = satisfied(text, vocabulary)
    met: list[Constraint] = []
    for constraint in asked:
        alike = [
            other for other in fitting if KINDS[other.kind].topic == KINDS[constraint.kind].topic and other not in met
        ]
        if check(constraint, text):
            met.append(constraint)
        elif alike:
            met.append(alike[int(content_key("achieved", key, str(constraint)), 16) % len(alike)])
    return tuple(met)
