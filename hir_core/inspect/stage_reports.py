"""What `hir report` says of one version of each stage, as typed values: samples, rewards, triples, model, evaluation.

Each class reads itself from a version's manifest and from the columns that it needs, their digests checked. A
measurement that was not taken is None: a model that was not trained has no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import polars as pl

from hir_core.inspect.diagnostics import cut_off_advice, distinguishes_instructions, graded_score, reward_advice
from hir_core.inspect.examples import clip
from hir_core.inspect.rows import columns_of
from hir_core.inspect.stats import Bin, Lengths, histogram, lengths, scores
from hir_core.store.graph import VersionGraph
from hir_core.store.manifest import OTHER, value_counts
from hir_core.store.store import Store
from hir_core.store.training_log import TrainingStep, read_training_log
from hir_core.store.version import VersionRef

INSTRUCTIONS_KEPT = 5
"""Instructions that are counted one by one; all others are counted together."""


class AttributeMean(TypedDict, total=False):
    """One of the attributes that a reward scores, as the manifest has it."""

    mean: float | None
    judged: int


class Accuracy(TypedDict, total=False):
    """The accuracy of an evaluation, overall or on one task, as the manifest has it."""

    items: int
    judged: int
    no_answer: int
    not_judged: int
    accuracy: float | None
    low: float
    """Lower end of the 95 % interval."""
    high: float
    mean_score: float | None
    majority_baseline: float | None
    """The accuracy of always giving the most frequent accepted answer."""
    attributes: dict[str, AttributeMean]
    tasks: list[str]
    """Only overall: the tasks that the run trains on, over which the accuracy is taken."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """What a step of a job took; each None where it was not measured."""

    seconds: float | None
    """Seconds of training or sampling alone."""
    step_seconds: float | None
    """Seconds of the whole step, preparing and writing included."""
    tokens: int | None
    tokens_per_s: float | None
    """Tokens per second of all ranks together."""
    peak_bytes: float | None
    """The most memory that any rank has held up to the end of the step."""


@dataclass(frozen=True, kw_only=True)
class SamplesReport(Measurements):
    """The samples of an iteration."""

    version: str
    rows: int
    prompts: int
    mixed_prompts: int | None
    """Prompts that have both correct and other samples; None where nothing is scored yet."""
    distinct: int
    """Different completions, counted prompt by prompt."""
    finish_reasons: dict[str, int]
    mean_logprob: float | None
    """Of a token, in nats; its negative estimates the entropy."""
    cut_off_advice: str | None
    """What to set where many outputs were cut off."""
    tokens_each: Lengths | None
    """Tokens per completion."""

    @classmethod
    def read(cls, graph: VersionGraph, ref: VersionRef, scored: pl.DataFrame | None) -> SamplesReport:
        """The report of a samples version, with what `scored_samples` says of them where they are scored."""
        table = columns_of(graph.store, ref, ["prompt_id", "completion", "completion_ids", "finish_reason"])
        mixed_prompts = None
        if scored is not None:
            of_prompt = scored.group_by("prompt_id").agg(some=pl.col("right").any(), every=pl.col("right").all())
            mixed_prompts = int((of_prompt["some"] & ~of_prompt["every"]).sum())
        return cls(
            version=str(ref),
            rows=table.height,
            prompts=table["prompt_id"].n_unique(),
            mixed_prompts=mixed_prompts,
            distinct=table.select("prompt_id", pl.col("completion").hash()).unique().height,
            finish_reasons=value_counts(table["finish_reason"]),
            mean_logprob=graph.manifests[str(ref)].metrics.get("mean_logprob"),
            cut_off_advice=cut_off_advice(graph.manifests[str(ref)]),
            tokens_each=lengths(table["completion_ids"]),
            **_measured(graph.manifests[str(ref)].metrics),
        )


@dataclass(frozen=True, kw_only=True)
class RewardsReport:
    """The rewards of an iteration's samples."""

    version: str
    rows: int
    right: int
    """Rows whose score reaches the threshold."""
    no_answer: int
    """Rows without a score because they name no answer at all."""
    not_judged: int
    """Rows without a score for another reason."""
    mean: float | None
    threshold: float
    share_correct: float | None
    """The share of all rows whose score reaches the threshold."""
    histogram: tuple[int, ...]
    """Rows in each of the report's `score_bins`."""
    unscored_reasons: dict[str, int]
    """Rows without a score, by the beginning of their reason."""
    advice: str | None
    """What is odd about the scores."""
    graded_mean: float | None
    """The mean score, where scores are more than right and wrong."""
    pass_at: dict[str, float]
    """Share of prompts with a correct one among k samples, by k."""
    attributes: dict[str, AttributeMean]

    @classmethod
    def read(
        cls, graph: VersionGraph, ref: VersionRef, scored: pl.DataFrame, score_bins: Sequence[Bin]
    ) -> RewardsReport:
        """The report of a rewards version, from what `scored_samples` says of its samples."""
        manifest = graph.manifests[str(ref)]
        threshold = float(manifest.config["threshold"])
        stats = scores(scored, threshold)
        return cls(
            version=str(ref),
            rows=scored.height,
            right=int(scored["right"].sum()),
            no_answer=stats["no_answer"],
            not_judged=stats["not_judged"],
            mean=manifest.metrics.get("mean_score", stats["mean"]),
            threshold=threshold,
            share_correct=manifest.metrics.get("correct_share", stats["share_correct"]),
            histogram=tuple(bar["rows"] for bar in histogram(scored["score"].drop_nulls(), score_bins)),
            unscored_reasons=manifest.metrics.get("unscored_reasons", {}),
            advice=reward_advice(manifest),
            graded_mean=graded_score(manifest),
            pass_at=manifest.metrics.get("pass_at", {}),
            attributes=manifest.metrics.get("attributes", {}),
        )


def scored_samples(store: Store, rewards: VersionRef, samples: VersionRef | None) -> pl.DataFrame:
    """The `outcome` and `score` of each sample of a rewards version, its `prompt_id`, and whether it is `right`."""
    threshold = store.manifest(rewards).config["threshold"]
    scored = columns_of(store, rewards, ["sample_id", "outcome", "score"])
    scored = scored.with_columns(right=(pl.col("score") >= threshold).fill_null(value=False))
    if samples is None:
        return scored.with_columns(prompt_id=pl.lit(None, dtype=pl.String))
    return scored.join(columns_of(store, samples, ["sample_id", "prompt_id"]), on="sample_id", how="left")


@dataclass(frozen=True, kw_only=True)
class InstructionCount:
    """How many triples have an instruction."""

    instruction: str
    """Clipped to one line; `other` for all that are not among the most frequent."""
    rows: int
    right: int
    """Triples whose output is correct by its score."""
    name: str | None
    """The instruction's name in the config, where it has one."""


@dataclass(frozen=True, kw_only=True)
class TriplesReport:
    """The triples that an iteration trains on."""

    version: str
    rows: int
    rows_in: int | None
    rejected: dict[str, int]
    """Samples that became no triple, by reason."""
    instructions: tuple[InstructionCount, ...]
    """Of the demonstrations: the most frequent ones, and all others together."""
    only_ruled_out: int
    """Triples that are no demonstrations: their outputs are only ruled out."""
    judged_outputs: int | None
    """Distinct outputs that were judged; None where no sample was relabeled, as for a warm start."""
    outputs_with_gradient: float | None
    """The share of them from which the model learns: demonstrations, and outputs that are ruled out."""

    @classmethod
    def read(cls, graph: VersionGraph, ref: VersionRef) -> TriplesReport:
        """The report of a triples version."""
        manifest = graph.manifests[str(ref)]
        table = columns_of(graph.store, ref, ["sample_id", "instruction", "weight"])
        demonstrations = table.filter(pl.col("weight") > 0)
        return cls(
            version=str(ref),
            rows=table.height,
            rows_in=manifest.rows_in,
            rejected=dict(manifest.rejected),
            instructions=_count_instructions(graph, ref, demonstrations),
            only_ruled_out=table.height - demonstrations.height,
            judged_outputs=manifest.metrics.get("judged_outputs"),
            outputs_with_gradient=manifest.metrics.get("outputs_with_gradient"),
        )


def _count_instructions(graph: VersionGraph, triples: VersionRef, table: pl.DataFrame) -> tuple[InstructionCount, ...]:
    right_ids: set[str] = set()
    for rewards in graph.parents(triples, "rewards"):
        scored = scored_samples(graph.store, rewards, None)
        right_ids |= set(scored.filter("right")["sample_id"])
    config = graph.manifests[str(triples)].config
    names = {text: name for name, text in config.get("relabel", {}).get("instructions", {}).items()}
    most_frequent = set(value_counts(table["instruction"], INSTRUCTIONS_KEPT)) & set(table["instruction"])
    is_counted = pl.col("instruction").is_in(list(most_frequent))
    group = pl.when(is_counted).then("instruction").otherwise(pl.lit(OTHER)).alias("instruction")
    rows = table.select(group, right=pl.col("sample_id").is_in(list(right_ids)).fill_null(value=False))
    counts = rows.group_by("instruction").agg(rows=pl.len(), right=pl.col("right").sum())
    return tuple(
        InstructionCount(instruction=clip(text), rows=count, right=right, name=names.get(text))
        for text, count, right in counts.sort("rows", "instruction", descending=[True, False]).iter_rows()
    )


@dataclass(frozen=True, kw_only=True)
class ModelReport(Measurements):
    """The training of a model: means over the last pass over the triples; None where nothing was trained."""

    version: str
    loss: float | None
    supervised: float | None
    contrastive: float | None
    entropy: float | None
    grad_norm: float | None
    logprob_gap: float | None
    """Mean absolute gap between the trainer's and the sampler's log-probabilities, in nats per token."""
    steps: int | None
    """Optimizer steps."""
    target_tokens: int | None
    save: dict[str, Any]
    """What the manifest says of writing the model: its size and measurements."""
    made_with: dict[str, Any]
    """Versions of the software, and the machine."""
    tells_apart: bool | None
    """See `distinguishes_instructions`."""
    training_steps: tuple[TrainingStep, ...]
    """Every optimizer step; none where they were not kept."""

    @property
    def saving(self) -> Measurements:
        """The measurements of writing the model."""
        return Measurements(**_measured(self.save))

    @classmethod
    def read(cls, graph: VersionGraph, ref: VersionRef) -> ModelReport:
        """The report of a model, with the diagnosis by the triples that it was trained on."""
        manifest, triples = graph.manifests[str(ref)], graph.parents(ref, "triples")
        metrics, save = manifest.metrics, manifest.metrics.get("save", {})
        return cls(
            version=str(ref),
            loss=metrics.get("loss"),
            supervised=metrics.get("supervised"),
            contrastive=metrics.get("contrastive"),
            entropy=metrics.get("entropy"),
            grad_norm=metrics.get("grad_norm"),
            logprob_gap=metrics.get("logprob_gap"),
            steps=metrics.get("steps"),
            target_tokens=metrics.get("target_tokens"),
            save=save,
            made_with=save.get("made_with", {}),
            tells_apart=distinguishes_instructions(manifest, graph.manifests[str(triples[0])]) if triples else None,
            training_steps=tuple(
                TrainingStep(**row) for row in read_training_log(graph.store, ref).iter_rows(named=True)
            ),
            **_measured(metrics),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationReport(Measurements):
    """The evaluation of a model."""

    version: str
    rows: int
    overall: Accuracy
    tasks: dict[str, Accuracy]
    finish_reasons: dict[str, int]
    sampled: dict[str, Any] | None
    """Of sampled answers beside the greedy ones `correct_share`, `mean_score` and `pass_at`; None without any."""
    graded_mean: float | None
    """The mean score, where scores are more than right and wrong."""
    cut_off_advice: str | None
    """What to set where many answers were cut off."""

    @classmethod
    def read(cls, graph: VersionGraph, ref: VersionRef) -> EvaluationReport:
        """The report of an evaluations version."""
        metrics, table = graph.manifests[str(ref)].metrics, columns_of(graph.store, ref, ["prompt_id", "finish_reason"])
        return cls(
            version=str(ref),
            rows=table.height,
            overall=metrics.get("overall", {}),
            tasks=metrics.get("tasks", {}),
            finish_reasons=value_counts(table["finish_reason"]),
            sampled=metrics.get("sampled"),
            graded_mean=graded_score(graph.manifests[str(ref)]),
            cut_off_advice=cut_off_advice(graph.manifests[str(ref)]),
            **_measured(metrics),
        )


def _measured(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metrics.get(name) for name in ("seconds", "step_seconds", "tokens", "tokens_per_s", "peak_bytes")}
