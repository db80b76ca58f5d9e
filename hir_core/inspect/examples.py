"""Rows of a run that are worth reading, for `hir report`: best and worst samples, and answers that changed most.

Rows are chosen by fixed rules, without chance, so that the same run always gives the same rows. Reads a run's tables,
their digests checked. An output can be of any length, so texts are cut, with the number of characters left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from hir_core.inspect.history import Iteration
from hir_core.inspect.rows import columns_of
from hir_core.schemas import SCHEMAS
from hir_core.store.graph import VersionGraph
from hir_core.store.version import VersionRef

EXAMPLES = 3
"""Rows of each kind, and references of each prompt."""
CHARACTERS = 600
NAME_CHARACTERS = 160
TABLE_ROWS, ROW_CHARACTERS = 200, 200
"""Rows of the table of samples, and characters of each text in it."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Excerpt:
    """The beginning of a text."""

    text: str
    more: int
    """How many characters follow."""

    @classmethod
    def of(cls, text: str | None) -> Excerpt:
        """The first characters of a text; null counts as empty."""
        text = text or ""
        return cls(text[:CHARACTERS], max(0, len(text) - CHARACTERS))


@dataclass(frozen=True)
class AskedPrompt:
    """What a sample was asked."""

    instruction: Excerpt
    query: Excerpt
    references: tuple[str, ...]


@dataclass(frozen=True)
class HindsightPrompt:
    """What a triple pairs a sample with."""

    instruction: Excerpt
    query: Excerpt
    weight: float
    """0: the sample is no demonstration of this, and only ruled out."""
    excluded_from: Excerpt | None
    """The instruction under which the sample is ruled out; None where it is not."""
    removed: float
    probability: float | None


@dataclass(frozen=True)
class SampleExample:
    """A sample with its score, its prompt, and the triples that it became."""

    sample_id: str
    score: float | None
    reason: Excerpt
    logprob: float | None
    """Mean log-probability per token, in nats."""
    tokens: int
    finish_reason: str
    completion: Excerpt
    asked: AskedPrompt
    became: tuple[HindsightPrompt, ...]
    relabeled: bool
    """Whether its iteration has triples yet."""


@dataclass(frozen=True)
class SampleRow:
    """A sample as a row of a table, its texts cut to one line."""

    sample_id: str
    score: float | None
    query: str
    completion: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class IterationExamples:
    """Samples of one iteration, at most one of each prompt in a list; of equal scores the most likely samples."""

    iteration: int
    best: tuple[SampleExample, ...]
    worst: tuple[SampleExample, ...]
    """Empty where all scores are equal."""
    unscored: tuple[SampleExample, ...]


@dataclass(frozen=True)
class Answer:
    """The answer of one iteration's model to a test prompt."""

    iteration: int
    completion: Excerpt
    score: float | None


@dataclass(frozen=True)
class ChangedAnswer:
    """A test prompt whose score changed, with its answers in every evaluation."""

    prompt_id: str
    query: Excerpt
    references: tuple[str, ...]
    answers: tuple[Answer, ...]


def clip(text: str, kept: int = NAME_CHARACTERS) -> str:
    """The beginning of a text that has to fit on one line."""
    return text if len(text) <= kept else f"{text[: kept - 1]}…"


def sample_examples(graph: VersionGraph, iteration: Iteration) -> IterationExamples:
    """The best and worst samples of an iteration, and some without a score.

    Args:
        graph: the run's versions.
        iteration: one that has samples and rewards.

    Raises:
        VersionCorrupt: a version is damaged.
    """
    assert iteration.samples is not None
    assert iteration.rewards is not None
    samples = columns_of(graph.store, iteration.samples, ["sample_id", "prompt_id", "logprobs"])
    samples = samples.select("sample_id", "prompt_id", logprob=pl.col("logprobs").list.mean())
    rewards = columns_of(graph.store, iteration.rewards, ["sample_id", "score"])
    rows = samples.join(rewards, on="sample_id", how="inner")

    def first_ids(rows: pl.DataFrame, *, descending: bool) -> list[str]:
        """Samples by score, then the most likely first, one of each prompt."""
        ordered = rows.sort("score", "logprob", "sample_id", descending=[descending, True, False], nulls_last=True)
        return list(ordered.unique("prompt_id", keep="first", maintain_order=True).head(EXAMPLES)["sample_id"])

    judged = rows.drop_nulls("score")
    best = first_ids(judged, descending=True)
    worst = first_ids(judged, descending=False) if judged["score"].n_unique() > 1 else []
    unscored = first_ids(rows.filter(pl.col("score").is_null()), descending=True)
    by_id = _sample_examples_by_id(graph, iteration, [*best, *worst, *unscored])
    best_worst_unscored = (tuple(by_id[sample_id] for sample_id in ids) for ids in (best, worst, unscored))
    return IterationExamples(iteration.iteration, *best_worst_unscored)


def sample_rows(graph: VersionGraph, iteration: Iteration) -> tuple[SampleRow, ...]:
    """Up to `TABLE_ROWS` samples of an iteration, those with the smallest ids, which are hashes: the best ones first.

    Args:
        graph: the run's versions.
        iteration: one that has samples and rewards.

    Raises:
        VersionCorrupt: a version is damaged.
    """
    assert iteration.samples is not None
    assert iteration.rewards is not None
    scores = dict(columns_of(graph.store, iteration.rewards, ["sample_id", "score"]).iter_rows())
    samples = _rows(graph, iteration.samples, "sample_id", sorted(scores)[:TABLE_ROWS])
    prompts = _prompts_by_id(graph, iteration.samples, [sample["prompt_id"] for sample in samples])
    rows = []
    for sample in samples:
        query, references = _query_and_references(prompts, sample["prompt_id"])
        score, completion = scores[sample["sample_id"]], clip(sample["completion"], ROW_CHARACTERS)
        rows.append(SampleRow(sample["sample_id"], score, clip(query.text, ROW_CHARACTERS), completion, references))
    return tuple(sorted(rows, key=lambda row: (row.score is None, -(row.score or 0.0), row.query, row.sample_id)))


def changed_answers(graph: VersionGraph, evaluations: Sequence[VersionRef]) -> tuple[ChangedAnswer, ...]:
    """The test prompts whose score rose most, then those whose score fell most, from first to last evaluation.

    Args:
        graph: the run's versions.
        evaluations: evaluations of the same prompts, the first one first; fewer than two show no change.

    Raises:
        VersionCorrupt: a version is damaged.
    """
    if len(evaluations) < 2:
        return ()
    tables = [columns_of(graph.store, ref, ["prompt_id", "completion", "score"]) for ref in evaluations]
    ends = tables[0].join(tables[-1], on="prompt_id", suffix="_last")
    changes = ends.select("prompt_id", change=pl.col("score_last").fill_null(0) - pl.col("score").fill_null(0))
    distinct = pl.concat(tables).group_by("prompt_id").agg(distinct_answers=pl.col("completion").n_unique())
    changes = changes.join(distinct, on="prompt_id")
    risen, fallen = changes.filter(pl.col("change") > 0), changes.filter(pl.col("change") < 0)
    most_changed: list[str] = []
    for rows, descending in ((risen, True), (fallen, False)):
        ordered = rows.sort("change", "distinct_answers", "prompt_id", descending=[descending, True, False])
        most_changed += ordered.head(EXAMPLES)["prompt_id"].to_list()
    prompts = _prompts_by_id(graph, evaluations[0], most_changed)
    answers: dict[str, list[Answer]] = {}
    for ref in evaluations:
        for row in _rows(graph, ref, "prompt_id", most_changed):
            answer = Answer(ref.iteration, Excerpt.of(row["completion"]), row["score"])
            answers.setdefault(row["prompt_id"], []).append(answer)
    return tuple(
        ChangedAnswer(prompt_id, *_query_and_references(prompts, prompt_id), tuple(answers[prompt_id]))
        for prompt_id in most_changed
    )


def _sample_examples_by_id(graph: VersionGraph, iteration: Iteration, ids: Sequence[str]) -> dict[str, SampleExample]:
    """Samples with their prompts and scores, the instruction that each was asked, and the triples that it became."""
    assert iteration.samples is not None
    assert iteration.rewards is not None
    samples = _rows(graph, iteration.samples, "sample_id", ids)
    prompts = _prompts_by_id(graph, iteration.samples, [sample["prompt_id"] for sample in samples])
    rewards = {reward["sample_id"]: reward for reward in _rows(graph, iteration.rewards, "sample_id", ids)}
    became: dict[str, list[HindsightPrompt]] = {}
    for triple in [] if iteration.triples is None else _rows(graph, iteration.triples, "sample_id", ids):
        excluded_from = triple["excluded_from"]
        prompt = HindsightPrompt(
            Excerpt.of(triple["instruction"]),
            Excerpt.of(triple["query"]),
            triple["weight"],
            None if excluded_from is None else Excerpt.of(excluded_from),
            triple["removed"],
            triple["probability"],
        )
        became.setdefault(triple["sample_id"], []).append(prompt)
    return {
        sample["sample_id"]: SampleExample(
            sample_id=sample["sample_id"],
            score=rewards[sample["sample_id"]]["score"],
            reason=Excerpt.of(rewards[sample["sample_id"]]["reason"]),
            logprob=sum(sample["logprobs"]) / len(sample["logprobs"]) if sample["logprobs"] else None,
            tokens=len(sample["completion_ids"]),
            finish_reason=sample["finish_reason"],
            completion=Excerpt.of(sample["completion"]),
            asked=AskedPrompt(Excerpt.of(sample["instruction"]), *_query_and_references(prompts, sample["prompt_id"])),
            became=tuple(became.get(sample["sample_id"], ())),
            relabeled=iteration.triples is not None,
        )
        for sample in samples
    }


def _prompts_by_id(graph: VersionGraph, ref: VersionRef, ids: Sequence[str]) -> dict[str, Row]:
    """Prompts by id, from the prompt versions that a version is made from."""
    parents = graph.parents(ref, "prompts")
    return {prompt["prompt_id"]: prompt for parent in parents for prompt in _rows(graph, parent, "prompt_id", ids)}


def _query_and_references(prompts: dict[str, Row], prompt_id: str) -> tuple[Excerpt, tuple[str, ...]]:
    prompt = prompts.get(prompt_id, {})
    references = prompt.get("references") or []
    return Excerpt.of(prompt.get("query")), tuple(clip(text) for text in references[:EXAMPLES])


def _rows(graph: VersionGraph, ref: VersionRef, key: str, ids: Sequence[str]) -> list[Row]:
    """The rows with these ids in the column `key`, with all columns of their schema."""
    names = SCHEMAS[ref.stage].column_names()
    return columns_of(graph.store, ref, names, pl.col(key).is_in(list(ids))).to_dicts()
