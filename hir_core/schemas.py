"""The tables that stages pass on, in the order of the loop, and those that they are made from.

Keys come from content, never from positions, and every row names its parent row. Reads and writes nothing itself;
the store decides where tables live.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import dataframely as dy
import polars as pl

ROLES = ("system", "user", "assistant")
History = Sequence[Mapping[str, str]]
"""Turns, the first one first, each a mapping of `role` and `content`: as tables hold and chat templates take them."""


def as_lines(history: History | None) -> str:
    """The turns as `User: …`, one below the other, each with a line end; empty where there are none.

    The labels are plain text, which a turn may hold as well: only a chat template keeps turns apart for certain.
    """
    return "".join(f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in history or ())


def as_text(history: History | None, query: str) -> str:
    """What was asked, for a reader: the query as it is, or, where turns stand before it, all of them as lines."""
    asked = {"role": "user", "content": query}
    return as_lines([*history, asked]).removesuffix("\n") if history else query


_OPTIONAL = {"optional": True}
_TURN = dy.Struct({"role": dy.String(regex=f"^({'|'.join(ROLES)})$"), "content": dy.String()})


def content_key(*parts: object) -> str:
    """A 16-digit hexadecimal key of the given values: equal values, equal key, on every machine."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Prompts(dy.Schema):
    """What the model is asked, with the answers that are accepted."""

    prompt_id = dy.String(primary_key=True)
    task = dy.String(min_length=1)
    group = dy.String()
    """Items of one story share it; splits never divide a group."""
    split = dy.Enum(["train", "test"])
    query = dy.String()
    """The question; of a conversation the last user turn."""
    history = dy.List(_TURN, min_length=1, nullable=True, metadata=_OPTIONAL)
    """The turns before the query, `role` and `content` of each; null where the query is all that is said."""
    options = dy.List(dy.String(), nullable=True)
    """The options as offered, in order; null for free answers."""
    references = dy.List(dy.String())
    """Every accepted answer; empty where none is known."""
    metadata = dy.String(nullable=True)
    """Further facts about the item, as a JSON object."""

    @dy.rule()
    def query_is_not_blank(cls) -> pl.Expr:
        return pl.col("query").str.strip_chars().str.len_chars() > 0


class Samples(dy.Schema):
    """What a model wrote under an instruction, as token ids with their log-probabilities."""

    sample_id = dy.String(primary_key=True)
    prompt_id = dy.String()
    model = dy.String()
    """Version id of the model that wrote it."""
    instruction = dy.String()
    k = dy.Int32(min=0)
    prompt_ids = dy.List(dy.Int32())
    """The rendered prompt, as the model read it."""
    completion = dy.String()
    completion_ids = dy.List(dy.Int32())
    """The sampled tokens, the end-of-sequence token included where one was sampled."""
    logprobs = dy.List(dy.Float32())
    """Natural log-probability of each sampled token at temperature 1."""
    finish_reason = dy.Enum(["eos", "length"])
    seed = dy.UInt64()
    """Seed of this row's own random numbers."""

    @dy.rule()
    def one_logprob_per_token(cls) -> pl.Expr:
        return pl.col("logprobs").list.len() == pl.col("completion_ids").list.len()


class Rewards(dy.Schema):
    """How a reward judged each sample."""

    sample_id = dy.String(primary_key=True)
    reward = dy.String()
    score = dy.Float64(nullable=True, allow_inf=False, allow_nan=False)
    """Null: the reward cannot judge this sample, which is not 0."""
    reason = dy.String()
    parts = dy.List(
        dy.Struct({"name": dy.String(), "score": dy.Float64(nullable=True, allow_inf=False, allow_nan=False)})
    )
    """The score of each attribute by name, null where it cannot be judged; empty where one score is all there is."""

    @dy.rule()
    def parts_have_names_of_their_own_in_order(cls) -> pl.Expr:
        names = pl.col("parts").list.eval(pl.element().struct.field("name"))
        return names == names.list.unique().list.sort()


class WrittenInstructions(dy.Schema):
    """What a model wrote as the instruction that a sample follows, and whether it is verified."""

    sample_id = dy.String(primary_key=True)
    verdict = dy.Enum(["correct", "wrong"])
    """What the writer was told of the sample."""
    written = dy.String(nullable=True)
    """Null: there was no room to write."""
    check = dy.Enum(["named", "constraints", "logprob"], nullable=True)
    """The check that decided; null where there was nothing to check."""
    instruction = dy.String(nullable=True)
    """What the sample is a demonstration of; null: what was written is not verified."""
    logprob = dy.Float64(nullable=True)
    """Of the sample's tokens under what was written: their mean, in nats, by the model that drew them."""
    asked_logprob = dy.Float64()
    """The same under the instruction that they were sampled under."""
    reason = dy.String()
    """Why it is not verified; empty where it is."""


class Triples(dy.Schema):
    """What is trained on: an instruction and query, and an output that is right under them."""

    triple_id = dy.String(primary_key=True)
    prompt_id = dy.String()
    sample_id = dy.String(nullable=True)
    """Null for demonstrations, which nobody sampled."""
    relabeler = dy.String()
    instruction = dy.String()
    contrast = dy.List(dy.String())
    """The other instructions, under which the output should be unlikely."""
    query = dy.String()
    history = dy.List(_TURN, min_length=1, nullable=True, metadata=_OPTIONAL)
    """The turns before the query, as its prompt has them."""
    output = dy.String()
    prefix_ids = dy.List(dy.Int32())
    """Tokens of the output that are given, not trained on; empty for whole outputs."""
    target_ids = dy.List(dy.Int32(), nullable=True)
    """The sampled tokens to predict; null for demonstrations, whose text is tokenised in the launch."""
    ends = dy.Bool()
    """Whether the target finishes the output: a truncated sample is never taught to stop."""
    weight = dy.Float64(min=0)


class Evaluations(dy.Schema):
    """A model version's greedy answers to the held-out prompts, scored."""

    prompt_id = dy.String(primary_key=True)
    model = dy.String()
    task = dy.String()
    instruction = dy.String()
    completion = dy.String()
    finish_reason = dy.Enum(["eos", "length"])
    score = dy.Float64(nullable=True, allow_inf=False, allow_nan=False)


class Logprobs(dy.Schema):
    """How likely samples are under other instructions; no stage of its own, but what one is made from."""

    sample_id = dy.String(primary_key=True)
    logprob = dy.Float64(nullable=True)
    """Mean of the sample's tokens, in nats; null: too long to score."""


class Scores(dy.Schema):
    """What a classifier said of texts; no stage of its own, but what one is made from."""

    key = dy.String(primary_key=True)
    """Of the text: equal texts, equal key."""
    score = dy.Float64(nullable=True)
    """Null: it cannot judge this text."""
    reason = dy.String()


SCHEMAS: dict[str, type[dy.Schema]] = {
    "prompts": Prompts,
    "samples": Samples,
    "rewards": Rewards,
    "instructions": WrittenInstructions,
    "triples": Triples,
    "evaluations": Evaluations,
}


def optional_columns(schema: type[dy.Schema]) -> dict[str, pl.DataType]:
    """The columns that only a table with a value in them is written with, by name, and their types.

    Whether there is one follows from what the table is made from, so they are no part of what names a version.
    """
    return {name: column.dtype for name, column in schema.columns().items() if column.metadata == _OPTIONAL}


def as_written(schema: type[dy.Schema], table: pl.DataFrame) -> pl.DataFrame:
    """The table as its parts hold it: without the optional columns that have no value."""
    return table.drop(name for name in optional_columns(schema) if table[name].null_count() == table.height)


def as_declared(schema: type[dy.Schema], table: pl.DataFrame) -> pl.DataFrame:
    """The table with all columns of its schema: the optional ones that its parts do not hold are null."""
    missing = {name: dtype for name, dtype in optional_columns(schema).items() if name not in table.columns}
    return table.with_columns(pl.lit(None, dtype=dtype).alias(name) for name, dtype in missing.items())
