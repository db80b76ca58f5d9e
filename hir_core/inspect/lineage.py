"""The history of one row, for `hir row` and `hir trace`: what it was made from and what was made from it.

A prompt, sample or triple is looked up by its key. From there the parents that manifests name and the keys that rows
carry lead up to the prompt and the model that wrote the sample, and down to rewards, triples and the models trained on
them. Reads manifests and tables, their digests checked. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NotRequired, TypedDict, cast

import polars as pl

from hir_core.inspect.row_lookup import KEYS, FoundRow, Row, find_row
from hir_core.schemas import SCHEMAS
from hir_core.store.graph import VersionGraph
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

# --- the values that are returned, as plain JSON ---------------------------------------------------------------------


class SampleHistory(TypedDict):
    """A row of samples with its version and iteration, and the rows that were made from it.

    Rows have their `version`. In `triples`, a version of triples that left the sample out has nothing but `version`.
    """

    version: str
    iteration: int
    sample_id: str
    prompt_id: str
    model: str
    instruction: str
    k: int
    prompt_ids: list[int]
    completion: str
    completion_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    seed: int
    rewards: list[Row]
    instructions: list[Row]
    triples: list[Row]


class RowHistory(TypedDict):
    """A prompt with its samples, demonstrations and evaluations; `stage` and `key` say which row was looked up.

    Rows have their `version`. `prompt` is None where no version that holds it is left; `demonstrations` are the triples
    without a sample.
    """

    run: str
    stage: str
    key: str
    prompt: Row | None
    samples: list[SampleHistory]
    demonstrations: list[Row]
    evaluations: list[Row]


class TracedModel(TypedDict):
    """A model, what it was trained from and its evaluations; only `version` where the model itself is gone."""

    version: str
    parents: NotRequired[list[str]]
    loss: NotRequired[float | None]
    evaluations: NotRequired[list[str]]


class TracedTriple(TypedDict):
    """A triple with the models trained on it; only `version` where that version left the sample out."""

    version: str
    triple_id: NotRequired[str]
    instruction: NotRequired[str]
    output: NotRequired[str]
    weight: NotRequired[float]
    """0: the output is no demonstration of the instruction, and only ruled out."""
    excluded_from: NotRequired[str | None]
    removed: NotRequired[float]
    probability: NotRequired[float | None]
    models: NotRequired[list[TracedModel]]


class TracedReward(TypedDict):
    """The score of a sample; None where it could not be judged."""

    version: str
    score: float | None
    reason: str


class TracedInstruction(TypedDict):
    """The instruction that a model wrote for a sample; None where it could not be verified."""

    version: str
    instruction: str | None


class TracedSample(TypedDict):
    """A sample with the `model` that wrote it and what was made from it."""

    version: str
    sample_id: str
    k: int
    completion: str
    model: TracedModel
    rewards: list[TracedReward]
    instructions: list[TracedInstruction]
    triples: list[TracedTriple]


class TracedPrompt(TypedDict):
    """The prompt of a traced row."""

    version: str
    prompt_id: str
    query: str


class Trace(TypedDict):
    """The versions from a prompt and the models that wrote its samples down to the models trained on them."""

    run: str
    stage: str
    key: str
    prompt: TracedPrompt | None
    samples: list[TracedSample]
    demonstrations: list[TracedTriple]


# --- hir row ---------------------------------------------------------------------------------------------------------


def row_history(store: Store, text: str, iteration: int | None = None) -> RowHistory:
    """A prompt with all its samples, their rewards and the triples made from them.

    Args:
        store: the run.
        text: the key of a prompt; or of a sample or a triple, which keeps only this sample of the prompt.
        iteration: keeps only the samples, evaluations and demonstrations of this iteration.

    Raises:
        VersionNotFound: no row has this key, or several keys begin with it.
        VersionCorrupt: a version of the run is damaged.
    """
    return _row_history(find_row(store, text), VersionGraph(store), iteration)


def _row_history(found: FoundRow, graph: VersionGraph, iteration: int | None = None) -> RowHistory:
    stage, row = found.version.stage, found.row
    of_samples, of_demonstrations, of_evaluations = _filters(stage, row)
    refs = [ref for ref in graph.refs.values() if iteration in (None, ref.iteration)]
    is_prompt = pl.col("prompt_id") == row["prompt_id"]
    prompts = (graph.rows(ref, is_prompt) for ref in reversed(_of(list(graph.refs.values()), "prompts")))
    return {
        "run": graph.store.run_dir.resolve().name,
        "stage": stage,
        "key": row[KEYS[stage]],
        "prompt": next((rows[0] for rows in prompts if rows), None),
        "samples": [sample for ref in _of(refs, "samples") for sample in _samples(graph, ref, of_samples)],
        "demonstrations": [triple for ref in _of(refs, "triples") for triple in _rows(graph, ref, of_demonstrations)],
        "evaluations": [answer for ref in _of(refs, "evaluations") for answer in graph.rows(ref, of_evaluations)],
    }


def _filters(stage: str, row: Row) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """The samples, demonstrations and evaluations of a row: those of a prompt, or of one sample or triple alone."""
    without_sample = pl.col("sample_id").is_null()
    if stage == "prompts":
        of_prompt = pl.col("prompt_id") == row["prompt_id"]
        return of_prompt, of_prompt & without_sample, of_prompt
    none = pl.lit(value=False)
    of_samples = none if row["sample_id"] is None else pl.col("sample_id") == row["sample_id"]
    of_demonstrations = none if stage == "samples" else (pl.col("triple_id") == row["triple_id"]) & without_sample
    return of_samples, of_demonstrations, none


def _samples(graph: VersionGraph, ref: VersionRef, where: pl.Expr) -> Iterator[SampleHistory]:
    """The matching samples of a version in order of k, each with the rows made from it."""
    samples = sorted(graph.rows(ref, where), key=lambda row: row["k"])
    of_samples = pl.col("sample_id").is_in([row["sample_id"] for row in samples])
    stages = ("rewards", "instructions", "triples")
    children = {stage: graph.children(ref, stage) if samples else [] for stage in stages}
    rows = {child: _rows(graph, child, of_samples) for refs in children.values() for child in refs}
    for sample in samples:
        made: dict[str, list[Row]] = {stage: [] for stage in stages}
        for stage in stages:
            for child in children[stage]:
                of_sample = [row for row in rows[child] if row["sample_id"] == sample["sample_id"]]
                left_out = [{"version": str(child)}] if stage == "triples" else []
                made[stage] += of_sample or left_out
        row = {"version": sample["version"], "iteration": ref.iteration, **sample, **made}
        yield cast("SampleHistory", row)  # whose columns are those of the schema `Samples`


def _rows(graph: VersionGraph, ref: VersionRef, where: pl.Expr) -> list[Row]:
    """The matching rows of a version; a column that was not there yet when the version was made is null."""
    empty = dict.fromkeys(SCHEMAS[ref.stage].column_names())
    return [{**empty, **row} for row in graph.rows(ref, where)]


def _of(refs: list[VersionRef], stage: str) -> list[VersionRef]:
    return [ref for ref in refs if ref.stage == stage]


# --- hir trace -------------------------------------------------------------------------------------------------------


def trace(store: Store, text: str) -> Trace:
    """The path of a row through the versions: up to its prompt and its model, down to the models trained on it.

    Raises:
        VersionNotFound: no row has this key, or several keys begin with it.
        VersionCorrupt: a version of the run is damaged.
    """
    found, graph = find_row(store, text), VersionGraph(store)
    history = _row_history(found, graph)
    prompt = history["prompt"]
    return {
        "run": history["run"],
        "stage": history["stage"],
        "key": history["key"],
        "prompt": None
        if prompt is None
        else {"version": prompt["version"], "prompt_id": prompt["prompt_id"], "query": prompt["query"]},
        "samples": [_traced_sample(graph, sample) for sample in history["samples"]],
        "demonstrations": [_traced_triple(graph, triple) for triple in history["demonstrations"]],
    }


def _traced_sample(graph: VersionGraph, sample: SampleHistory) -> TracedSample:
    return {
        "version": sample["version"],
        "sample_id": sample["sample_id"],
        "k": sample["k"],
        "completion": sample["completion"],
        "model": _traced_model(graph, sample["model"]),
        "rewards": [
            {"version": reward["version"], "score": reward["score"], "reason": reward["reason"]}
            for reward in sample["rewards"]
        ],
        "instructions": [
            {"version": written["version"], "instruction": written["instruction"]} for written in sample["instructions"]
        ],
        "triples": [_traced_triple(graph, triple) for triple in sample["triples"]],
    }


def _traced_triple(graph: VersionGraph, triple: Row) -> TracedTriple:
    if "triple_id" not in triple:
        return {"version": triple["version"]}
    models = graph.children(graph.refs[triple["version"]], "models")
    return {
        "version": triple["version"],
        "triple_id": triple["triple_id"],
        "instruction": triple["instruction"],
        "output": triple["output"],
        "weight": triple["weight"],
        "excluded_from": triple["excluded_from"],
        "removed": triple["removed"],
        "probability": triple["probability"],
        "models": [_traced_model(graph, str(ref)) for ref in models],
    }


def _traced_model(graph: VersionGraph, name: str) -> TracedModel:
    if name not in graph.refs:
        return {"version": name}
    manifest = graph.manifests[name]
    evaluations = graph.children(graph.refs[name], "evaluations")
    return {
        "version": name,
        "parents": list(manifest.parents),
        "loss": manifest.metrics.get("loss"),
        "evaluations": [str(ref) for ref in evaluations],
    }
