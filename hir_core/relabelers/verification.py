"""Whether an instruction that a model wrote for an output is the one that the output follows: two checks, one reason.

A rule decides where it can: an instruction of the run's own is verified where the verdict says so, one that is made of
known constraints where the output satisfies them all. Otherwise the policy decides: the output must be likelier under
the written instruction than under the one that it was sampled under. Unchecked reverse models made training worse
(Yuan et al. 2023, arXiv 2308.01825, App. D.1), so whatever no check confirms is refused. Reads and writes tables only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import Instructions
from hir_core.progress import OnRows, counted, ignore
from hir_core.prompts.constraints.constraint import Constraint
from hir_core.prompts.constraints.registry import check, described, parse
from hir_core.schemas import WrittenInstructions

NAMED, CONSTRAINTS, LOGPROB = "named", "constraints", "logprob"
NO_ROOM = "no room to write about it"
EMPTY = "empty"
UNFINISHED = "too long: it was cut off"
OTHER_VERDICT = "names the other verdict"
UNPARSABLE = "constraints, but not all of them known"
UNSATISFIED = "constraints that the output does not satisfy"
GIVES_AWAY = "holds the output itself"
NOT_SCORED = "no room to score the output under it"
NOT_LIKELIER = "output not likelier under it"


class WrittenInstruction(NamedTuple):
    """A written instruction, and what it is checked against."""

    written: str | None
    """None: the model did not get to write."""
    is_whole: bool
    """Whether the model ended it."""
    output: str
    is_correct: bool
    asked_logprob: float
    """Of the output under the instruction that it was sampled under: mean of its tokens, in nats."""
    logprob: float | None
    """The same under the written one; None: not scored."""


class Verification(NamedTuple):
    """What came of a claim."""

    check: str | None
    """The check that decided; None: there was nothing to check."""
    instruction: str | None
    """What the output is a demonstration of; None: the claim is not verified."""
    reason: str = ""
    """Why it is not."""


def find(claim: WrittenInstruction, own: Instructions, margin: float) -> Verification:
    """Whether a claim is verified, and by which check.

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
        if folded(written) == folded(text):  # told in the config's words, to the byte
            agrees = claim.is_correct == is_correct
            return Verification(NAMED, text) if agrees else Verification(NAMED, None, OTHER_VERDICT)
    return _by_constraints(written, claim.output) or _by_logprob(claim, written, margin)


def folded(text: str) -> str:
    """A text without case, and without what stands around and between its words."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def _by_constraints(written: str, output: str) -> Verification | None:
    """What the constraints that a text is made of say; None where it holds none."""
    found = [parse(sentence) for sentence in re.split(r"(?<=\.)\s+", written.strip())]
    known: list[Constraint] = [constraint for constraint in found if constraint is not None]
    if not known:
        return None
    if len(known) < len(found):
        return Verification(CONSTRAINTS, None, UNPARSABLE)
    if not all(check(constraint, output) for constraint in known):
        return Verification(CONSTRAINTS, None, UNSATISFIED)
    return Verification(CONSTRAINTS, described(known))


def _by_logprob(claim: WrittenInstruction, written: str, margin: float) -> Verification:
    # An instruction that dictates the output makes it likely, and teaches nothing but to repeat.
    if (said := folded(claim.output)) and f" {said} " in f" {folded(written)} ":
        return Verification(LOGPROB, None, GIVES_AWAY)
    if claim.logprob is None:
        return Verification(LOGPROB, None, NOT_SCORED)
    if not claim.logprob - claim.asked_logprob > margin:
        return Verification(LOGPROB, None, NOT_LIKELIER)
    return Verification(LOGPROB, written)


def verified(
    asked: pl.DataFrame,
    written: pl.DataFrame,
    weights: pl.DataFrame,
    own: Instructions,
    margin: float,
    on_rows: OnRows = ignore,
) -> pl.DataFrame:
    """The WrittenInstructions of samples that a model was asked about, sorted by sample_id.

    Args:
        asked: `sample_id`, `completion`, `logprobs` and `is_correct`.
        written: Samples whose `prompt_id` is the sample that they are about.
        weights: `sample_id` and `logprob`, for the samples that could be scored.
        on_rows: told how many samples are checked.
    """
    about = written.select(
        pl.col("prompt_id").alias("sample_id"), pl.col("completion").alias("written"), "finish_reason"
    )
    joined = asked.join(about, on="sample_id", how="left").join(weights, on="sample_id", how="left").sort("sample_id")
    claims = counted(joined.iter_rows(named=True), joined.height, on_rows)
    rows = [_row(row, own, margin) for row in claims]
    return pl.DataFrame(rows, schema=WrittenInstructions.create_empty().schema)


def _row(row: dict[str, Any], own: Instructions, margin: float) -> dict[str, Any]:
    asked_logprob = sum(row["logprobs"]) / len(row["logprobs"])
    is_whole, is_correct = row["finish_reason"] == "eos", row["is_correct"]
    claim = WrittenInstruction(row["written"], is_whole, row["completion"], is_correct, asked_logprob, row["logprob"])
    return {
        "sample_id": row["sample_id"],
        "verdict": verdict_word(is_correct),
        "written": claim.written,
        "asked_logprob": asked_logprob,
        "logprob": claim.logprob,
        **find(claim, own, margin)._asdict(),
    }


def verdict_word(is_correct: bool) -> str:
    """A verdict as the writer reads it."""
    return "correct" if is_correct else "wrong"


def shares(tables: Sequence[pl.DataFrame]) -> dict[str, Any]:
    """How much of what was written is verified, by which check, and why the rest is not; plain JSON values."""
    rows = pl.concat(tables)
    by_check = rows.filter(pl.col("instruction").is_not_null())["check"].value_counts().sort("check")
    refused = rows.filter(pl.col("instruction").is_null())["reason"].value_counts().sort("reason")
    return {
        "asked": rows.height,
        "verified_share": by_check["count"].sum() / rows.height if rows.height else None,
        "verified_by_check": dict(by_check.iter_rows()),
        "refused": dict(refused.iter_rows()),
    }
