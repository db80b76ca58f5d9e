"""`hir report`: what the report of a run says, as typed values, iteration by iteration.

Reads manifests, and of the tables only the columns that it needs, their digests checked. `flows.report` draws the page
from these values; `hir report --json` prints them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.inspect.benchmarks import benchmarks_of
from hir_core.inspect.examples import (
    ChangedAnswer,
    IterationExamples,
    SampleRow,
    changed_answers,
    clip,
    sample_examples,
    sample_rows,
)
from hir_core.inspect.history import Iteration, history, prompts_of
from hir_core.inspect.rows import columns_of
from hir_core.inspect.stage_reports import (
    EvaluationReport,
    ModelReport,
    RewardsReport,
    SamplesReport,
    TriplesReport,
    scored_samples,
)
from hir_core.inspect.stats import Bin, bins
from hir_core.store.graph import VersionGraph
from hir_core.store.manifest import Manifest, evaluation_key
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


def page_path(store: Store) -> Path:
    """The file of a run's report."""
    return store.run_dir / "report.html"


@dataclass(frozen=True, kw_only=True)
class PromptsReport:
    """The prompts of a run."""

    version: str
    rows: int
    tasks: dict[str, dict[str, int]]
    """By task, how many prompts each split has."""

    @classmethod
    def read(cls, store: Store, ref: VersionRef) -> PromptsReport:
        """The report of a prompts version."""
        table = columns_of(store, ref, ["prompt_id", "task", "split"])
        tasks: dict[str, dict[str, int]] = {}
        for task, split, rows in table.group_by("task", "split").len().sort("task", "split").iter_rows():
            tasks.setdefault(clip(task), {})[split] = rows
        return cls(version=str(ref), rows=table.height, tasks=tasks)


@dataclass(frozen=True, kw_only=True)
class IterationReport:
    """One iteration; each stage is None where it has no version, or not yet."""

    iteration: int
    versions: tuple[str, ...]
    samples: SamplesReport | None
    rewards: RewardsReport | None
    triples: TriplesReport | None
    model: ModelReport | None
    evaluation: EvaluationReport | None
    """The main evaluation of the model: of the kind that most models have."""

    @classmethod
    def read(
        cls,
        graph: VersionGraph,
        iteration: Iteration,
        scored: pl.DataFrame | None,
        score_bins: Sequence[Bin],
        main_evaluations: Sequence[VersionRef],
    ) -> IterationReport:
        """The report of an iteration, with the scores of its samples where they are scored."""
        samples, rewards, triples, model = iteration.samples, iteration.rewards, iteration.triples, iteration.model
        evaluations = [ref for ref in iteration.evaluations if ref in main_evaluations]
        return cls(
            iteration=iteration.iteration,
            versions=tuple(map(str, iteration.versions)),
            samples=None if samples is None else SamplesReport.read(graph, samples, scored),
            rewards=None
            if rewards is None or scored is None
            else RewardsReport.read(graph, rewards, scored, score_bins),
            triples=None if triples is None else TriplesReport.read(graph, triples),
            model=None if model is None else ModelReport.read(graph, model),
            evaluation=EvaluationReport.read(graph, evaluations[-1]) if evaluations else None,
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationPoint(EvaluationReport):
    """An evaluation, and the iteration of its model."""

    iteration: int


@dataclass(frozen=True, kw_only=True)
class FurtherEvaluations:
    """Evaluations of another kind than the main one: under other settings, or of other prompts."""

    config: dict[str, Any]
    points: tuple[EvaluationPoint, ...]

    @classmethod
    def read(cls, graph: VersionGraph, evaluations: Sequence[VersionRef]) -> FurtherEvaluations:
        """The report of evaluations of one kind."""
        points = (
            EvaluationPoint(iteration=ref.iteration, **vars(EvaluationReport.read(graph, ref))) for ref in evaluations
        )
        return cls(config=graph.manifests[str(evaluations[0])].config, points=tuple(points))


@dataclass(frozen=True, kw_only=True)
class AnswerChanges:
    """How many answers to the run's own tasks changed from the first to the last main evaluation."""

    became_right: int
    became_wrong: int
    stayed_right: int
    stayed_wrong: int

    @classmethod
    def read(cls, graph: VersionGraph, first: VersionRef, last: VersionRef) -> AnswerChanges:
        """The changes between two evaluations of the same prompts."""
        tables = []
        for ref in (first, last):
            manifest = graph.manifests[str(ref)]
            table = columns_of(graph.store, ref, ["prompt_id", "task", "score"])
            table = table.filter(pl.col("task").is_in(manifest.metrics["overall"]["tasks"]))
            is_right = (pl.col("score") >= manifest.config["threshold"]).fill_null(value=False)
            tables.append(table.select("prompt_id", right=is_right))
        both = tables[0].join(tables[1], on="prompt_id", suffix="_last")
        counts = Counter(both.select("right", "right_last").iter_rows())
        return cls(
            became_right=counts[False, True],
            became_wrong=counts[True, False],
            stayed_right=counts[True, True],
            stayed_wrong=counts[False, False],
        )


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows worth reading."""

    iterations: tuple[IterationExamples, ...]
    """Samples of the first and the last iteration that was scored."""
    changed: tuple[ChangedAnswer, ...]
    table: tuple[SampleRow, ...]
    """Samples of the last iteration that was scored, for a table that can be searched."""

    @classmethod
    def read(
        cls, graph: VersionGraph, iterations: Iterable[Iteration], main_evaluations: Sequence[VersionRef]
    ) -> Examples:
        """The examples of a run, from its samples and its main evaluations."""
        scored = [each for each in iterations if each.samples is not None and each.rewards is not None]
        first_and_last = scored if len(scored) < 2 else [scored[0], scored[-1]]
        samples = tuple(sample_examples(graph, iteration) for iteration in first_and_last)
        table = sample_rows(graph, scored[-1]) if scored else ()
        return cls(iterations=samples, changed=changed_answers(graph, main_evaluations), table=table)


@dataclass(frozen=True, kw_only=True)
class VersionReport:
    """A version, from its manifest."""

    version: str
    stage: str
    iteration: int
    rows: int | None
    rejected: int
    bytes: int
    created: str
    code_version: str
    parents: tuple[str, ...]
    config: dict[str, Any]

    @classmethod
    def of(cls, manifest: Manifest) -> VersionReport:
        """The report of a version."""
        # The config of prompts is a digest of them; what people set, such as their source, is in the metrics.
        sources = manifest.metrics if manifest.stage == "prompts" else {}
        return cls(
            version=f"{manifest.stage}/{manifest.id}",
            stage=manifest.stage,
            iteration=manifest.iteration,
            rows=manifest.rows,
            rejected=sum(manifest.rejected.values()),
            bytes=sum(part.bytes for part in manifest.parts),
            created=manifest.created,
            code_version=manifest.code_version,
            parents=manifest.parents,
            config={**manifest.config, **sources},
        )


@dataclass(frozen=True, kw_only=True)
class Report:
    """The report of a run up to one model."""

    run: str
    model: str | None
    began: str | None
    """When the first version was committed: UTC, ISO 8601."""
    ended: str | None
    """When the last version was committed."""
    prompts: PromptsReport | None
    score_bins: tuple[Bin, ...]
    """The bars of the histograms of scores, the same in every iteration."""
    iterations: tuple[IterationReport, ...]
    further: tuple[FurtherEvaluations, ...]
    benchmarks: tuple[dict[str, Any], ...]
    """Kept results of `hir evaluate` of these models, in the order of the iterations: see `inspect.benchmarks`."""
    answers: AnswerChanges | None
    """None where there are fewer than two main evaluations."""
    picks: Examples
    versions: tuple[VersionReport, ...]
    """All versions that led to the model, in the order of the loop."""
    forks: tuple[str, ...]
    """Models that did not lead to this one."""

    @property
    def seconds(self) -> float | None:
        """Seconds from the first to the last commit; None where nothing was committed."""
        if self.began is None or self.ended is None:
            return None
        return (datetime.fromisoformat(self.ended) - datetime.fromisoformat(self.began)).total_seconds()

    @property
    def samples(self) -> dict[int, SamplesReport]:
        """Samples by iteration, where there are any."""
        return {each.iteration: each.samples for each in self.iterations if each.samples}

    @property
    def rewards(self) -> dict[int, RewardsReport]:
        """Rewards by iteration, where there are any."""
        return {each.iteration: each.rewards for each in self.iterations if each.rewards}

    @property
    def triples(self) -> dict[int, TriplesReport]:
        """Triples by iteration, where there are any."""
        return {each.iteration: each.triples for each in self.iterations if each.triples}

    @property
    def models(self) -> dict[int, ModelReport]:
        """Models by iteration."""
        return {each.iteration: each.model for each in self.iterations if each.model}

    @property
    def evaluations(self) -> dict[int, EvaluationReport]:
        """Main evaluations by iteration, where there are any."""
        return {each.iteration: each.evaluation for each in self.iterations if each.evaluation}


def build_report(store: Store, last: VersionRef | None = None) -> Report:
    """The report of a run up to one model.

    Args:
        store: the run.
        last: the model; None means the one committed last.

    Raises:
        VersionCorrupt: a version is damaged.
    """
    graph = VersionGraph(store)
    iterations = history(graph, last)
    prompts = prompts_of(graph, iterations)
    refs = [*([] if prompts is None else [prompts]), *(ref for iteration in iterations for ref in iteration.versions)]
    versions = tuple(VersionReport.of(graph.manifests[str(ref)]) for ref in refs)
    times = sorted(version.created for version in versions)
    models = [iteration.model for iteration in iterations if iteration.model is not None]
    main, *further = _evaluations_by_kind(graph, iterations) or [[]]
    scored = {
        iteration.iteration: scored_samples(store, iteration.rewards, iteration.samples)
        for iteration in iterations
        if iteration.rewards is not None
    }
    score_bins = tuple(bins(score for table in scored.values() for score in table["score"].drop_nulls()))
    return Report(
        run=store.run_dir.resolve().name,
        model=str(models[-1]) if models else None,
        began=times[0] if times else None,
        ended=times[-1] if times else None,
        prompts=None if prompts is None else PromptsReport.read(store, prompts),
        score_bins=score_bins,
        iterations=tuple(
            IterationReport.read(graph, iteration, scored.get(iteration.iteration), score_bins, main)
            for iteration in iterations
        ),
        further=tuple(FurtherEvaluations.read(graph, evaluations) for evaluations in further),
        benchmarks=tuple(result.model_dump(mode="json") for ref in models for result in benchmarks_of(store, ref)),
        answers=AnswerChanges.read(graph, main[0], main[-1]) if len(main) > 1 else None,
        picks=Examples.read(graph, iterations, main),
        versions=versions,
        forks=tuple(name for name, ref in graph.refs.items() if ref.stage == "models" and ref not in models),
    )


def _evaluations_by_kind(graph: VersionGraph, iterations: Iterable[Iteration]) -> list[list[VersionRef]]:
    """Evaluations, grouped by what makes their accuracies comparable; the first group is the main one.

    The main kind is the one that most models have; of several, the one that was evaluated first.
    """
    by_key: dict[str, list[VersionRef]] = {}
    for ref in (ref for iteration in iterations for ref in iteration.evaluations):
        by_key.setdefault(evaluation_key(graph.manifests[str(ref)]), []).append(ref)
    main = max(by_key, key=lambda key: len({ref.iteration for ref in by_key[key]}), default=None)
    return [by_key[key] for key in sorted(by_key, key=lambda key: key != main)]
