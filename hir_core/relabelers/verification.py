"""Verification of instructions that a model wrote: whether an output does follow the one that was written for it.

Serves the stage `instruct`. A rule decides where it can: one of the run's own two instructions is verified where the
reward's verdict agrees, and one made of known constraints where the output satisfies all of them. Any other is decided
by the policy: it is verified where log p(o | p*, q) - log p(o | p, q) > margin, in nats per token, for the written
instruction p* and the one that the output was sampled under, p. What no check confirms is refused, because unchecked
instructions of a reverse model made training worse (Yuan et al. 2023, arXiv 2308.01825, App. D.1). Reads and writes
tables in memory only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import Instructions
from hir_core.progress import OnRows, counted, ignore
from hir_core.prompts.constraints.constraint import Constraint
from hir_core.prompts.constraints.registry import check, describe_all, parse
from hir_core.schemas import WrittenInstructions

NAMED, CONSTRAINTS, LOGPROB = "named", "constraints", "logprob"
NO_ROOM = "too long for the writer's context"
EMPTY = "empty"
UNFINISHED = "too long: it was cut off"
OTHER_VERDICT = "contradicts the reward's verdict"
UNPARSABLE = "contains an unknown constraint"
UNSATISFIED = "constraints that the output does not satisfy"
GIVES_AWAY = "contains the output itself"
NOT_SCORED = "too long to score the output under it"
NOT_LIKELIER = "output not more likely under it"


class WrittenInstruction(NamedTuple):
    """A written instruction, and what it is checked against."""

    written: str | None
    """None: the model did not get to write."""
    is_whole: bool
    """Whether the model ended it."""
    output: str
    is_correct: bool
    asked_logprob: float
    """Of the output under the instruction that it was sampled under: mean over its tokens, in nats."""
    logprob: float | None
    """The same under the written instruction; None: not scored."""


class Verification(NamedTuple):
    """The result of checking a written instruction."""

    check: str | None
    """The check that decided; None: there was nothing to check."""
    instruction: str | None
    """The instruction that the output demonstrates; None: it is not verified."""
    reason: str = ""
    """Why it is not verified; empty where it is."""


def verify(claim: WrittenInstruction, own: Instructions, margin: float) -> Verification:
    """Whether a written instruction is verified, and by which check.

    Args:
        own: the run's two instructions.
        margin: nats per token that the output must gain under the written instruction.
    """
    written = claim.written
    if written is None:
        return Verification(None, None, NO_ROOM)
    if not written.strip():
        return Verification(None, None, EMPTY)
    if not claim.is_whole:
        return Verification(None, None, UNFINISHED)
    for text, is_correct in ((own.correct, True), (own.wrong, False)):
        if folded(written) == folded(text):  # verified as the config's text, byte for byte
            agrees = claim.is_correct == is_correct
            return Verification(NAMED, text) if agrees else Verification(NAMED, None, OTHER_VERDICT)
    return _by_constraints(written, claim.output) or _by_logprob(claim, written, margin)


def folded(text: str) -> str:
    """The words of a text in lower case, separated by single spaces and without punctuation."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _by_constraints(written: str, output: str) -> Verification | None:
    """The verification of a text that is made of constraints; None where no sentence of it is a known constraint."""
    parsed = [parse(sentence) for sentence in re.split(r"(?<=\.)\s+", written.strip())]
    known: list[Constraint] = [constraint for constraint in parsed if constraint is not None]
    if not known:
        return None
    if len(known) < len(parsed):
        return Verification(CONSTRAINTS, None, UNPARSABLE)
    if not all(check(constraint, output) for constraint in known):
        return Verification(CONSTRAINTS, None, UNSATISFIED)
    return Verification(CONSTRAINTS, describe_all(known))


def _by_logprob(claim: WrittenInstruction, written: str, margin: float) -> Verification:
    # An instruction that contains the output makes it likely, and teaches nothing but to repeat it.
    if (output := folded(claim.output)) and f" {output} " in f" {folded(written)} ":
        return Verification(LOGPROB, None, GIVES_AWAY)
    if claim.logprob is None:
        return Verification(LOGPROB, None, NOT_SCORED)
    if not claim.logprob - claim.asked_logprob > margin:
        return Verification(LOGPROB, None, NOT_LIKELIER)
    return Verification(LOGPROB, written)


def verify_all(
    asked: pl.DataFrame,
    written: pl.DataFrame,
    weights: pl.DataFrame,
    own: Instructions,
    margin: float,
    on_rows: OnRows = ignore,
) -> pl.DataFrame:
    """The WrittenInstructions of the samples that a model wrote about, sorted by sample_id.

    Args:
        asked: the samples to write about: `sample_id`, `completion`, `logprobs` and `is_correct`.
        written: what was written, as Samples whose `prompt_id` is the `sample_id` that they are about.
        weights: `sample_id` and `logprob` of the outputs under what was written, where they could be scored.
        own: the run's two instructions.
        margin: nats per token that an output must gain under the written instruction.
        on_rows: called with how many samples are checked, and of how many.
    """
    texts = written.select(
        pl.col("prompt_id").alias("sample_id"), pl.col("completion").alias("written"), "finish_reason"
    )
    joined = asked.join(texts, on="sample_id", how="left").join(weights, on="sample_id", how="left").sort("sample_id")
    rows = []
    for row in counted(joined.iter_rows(named=True), joined.height, on_rows):
        claim = WrittenInstruction(
            written=row["written"],
            is_whole=row["finish_reason"] == "eos",
            output=row["completion"],
            is_correct=row["is_correct"],
            asked_logprob=sum(row["logprobs"]) / len(row["logprobs"]),
            logprob=row["logprob"],
        )
        rows.append({
            "sample_id": row["sample_id"],
            "verdict": verdict_word(claim.is_correct),
            "written": claim.written,
            "asked_logprob": claim.asked_logprob,
            "logprob": claim.logprob,
            **verify(claim, own, margin)._asdict(),
        })  # fmt: skip
    return pl.DataFrame(rows, schema=WrittenInstructions.create_empty().schema)


def verdict_word(is_correct: bool) -> str:
    """A verdict in the word that the writer reads."""
    return "correct" if is_correct else "wrong"


def verification_metrics(tables: Sequence[pl.DataFrame]) -> dict[str, Any]:
    """The metrics of WrittenInstructions tables: how many, the verified share by check, and the refusals by reason."""
    rows = pl.concat(tables)
    by_check = rows.filter(pl.col("instruction").is_not_null())["check"].value_counts().sort("check")
    refused = rows.filter(pl.col("instruction").is_null())["reason"].value_counts().sort("reason")
    return {
        "asked": rows.height,
        "verified_share": by_check["count"].sum() / rows.height if rows.height else None,
        "verified_by_check": dict(by_check.iter_rows()),
        "refused": dict(refused.iter_rows()),
    }
