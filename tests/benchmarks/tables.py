"""Tables of any size like those of a run: prompts, samples as a model draws them, and their rewards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from hir_core.schemas import SCHEMAS
from hir_core.store.manifest import Identity, identity
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

K = 4
"""Samples of each prompt."""
PROMPT_TOKENS, MAX_NEW_TOKENS, VOCABULARY = 24, 40, 30_000
ROWS_OF_A_PART = 25_000
MODEL = "models/0000-00000000"
SAMPLES = identity("samples", 1, {}, ["prompts/0000-00000000", MODEL])


def key(prefix: str) -> pl.Expr:
    """Keys of 16 digits from the column `n`."""
    return pl.lit(prefix) + pl.col("n").cast(pl.String).str.zfill(16 - len(prefix))


def prompts(count: int) -> pl.DataFrame:
    """Prompts with one accepted answer each."""
    query = pl.format("What is {} and {}?", pl.col("n"), pl.col("n") % 97)
    return _as_stage(
        "prompts",
        pl.DataFrame({"n": np.arange(count)}).with_columns(
            prompt_id=key("p"), task=pl.lit("sums"), group=key("g"), split=pl.lit("train"), query=query,
            references=pl.concat_list((pl.col("n") + pl.col("n") % 97).cast(pl.String)),
        ),
    )  # fmt: skip


def samples(rows: int, seed: int = 0) -> pl.DataFrame:
    """Samples with prompts of 24 tokens and outputs of 1 to 40 tokens, with their log-probabilities."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(1, MAX_NEW_TOKENS + 1, rows)
    tokens = int(lengths.sum())
    outputs = (
        pl.DataFrame(
            {
                "n": np.repeat(np.arange(rows), lengths),
                "completion_ids": draw.integers(0, VOCABULARY, tokens, dtype=np.int32),
                "logprobs": -draw.exponential(1.0, tokens).astype(np.float32),
            }
        )
        .with_columns(word=pl.format("word{}", pl.col("completion_ids") % 1000))
        .group_by("n", maintain_order=True)
        .agg("completion_ids", "logprobs", completion=pl.col("word").str.join(" "))
    )
    prompt_ids = draw.integers(0, VOCABULARY, (rows // K + 1, PROMPT_TOKENS), dtype=np.int32)
    return _as_stage(
        "samples",
        outputs.with_columns(
            sample_id=key("5"), prompt_id=pl.col("n").floordiv(K).pipe(_prompt_key), model=pl.lit(MODEL),
            instruction=pl.lit("Generate a correct answer to this problem."), k=pl.col("n") % K, seed=pl.col("n") % K,
            prompt_ids=pl.Series(prompt_ids[np.arange(rows) // K]).arr.to_list(), finish_reason=pl.lit("eos"),
        ),
    )  # fmt: skip


def rewards(rows: int) -> pl.DataFrame:
    """Rewards of these samples: every third one is right."""
    score = (pl.col("n") % 3 == 0).cast(pl.Float64)
    return _as_stage(
        "rewards",
        pl.DataFrame({"n": np.arange(rows)}).with_columns(
            sample_id=key("5"), reward=pl.lit("exact_match"), outcome=pl.lit("scored"), score=score,
            reason=pl.format("expected {}", pl.col("n")), parts=pl.lit([], pl.List(pl.Null)),
        ),
    )  # fmt: skip


def parts_of(table: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The table, cut into parts as ranks write them."""
    return table.iter_slices(ROWS_OF_A_PART)


def commit(store: Store, version: Identity, table: pl.DataFrame) -> VersionRef:
    """Writes a table in parts and commits it."""
    draft = store.draft(version)
    for number, part in enumerate(parts_of(table)):
        draft.write(f"{number:05}", part)
    return draft.commit()


def make_run(folder: Path, rows: int) -> None:
    """Writes a run with one iteration of prompts, samples and rewards."""
    store = Store(folder)
    of_prompts = commit(store, identity("prompts", 0, {}, []), prompts(rows // K))
    of_samples = commit(store, identity("samples", 1, {}, [str(of_prompts), MODEL]), samples(rows))
    commit(store, identity("rewards", 1, {}, [str(of_prompts), str(of_samples)]), rewards(rows))


def _prompt_key(number: pl.Expr) -> pl.Expr:
    return pl.lit("p") + number.cast(pl.String).str.zfill(15)


def _as_stage(stage: str, table: pl.DataFrame) -> pl.DataFrame:
    """The columns of a stage's table with its types; columns that are not given are null."""
    schema = SCHEMAS[stage].create_empty().schema
    given = [pl.col(name) if name in table.columns else pl.lit(None).alias(name) for name in schema]
    return table.select(given).cast(schema)
