"""The schemas of all tables, in the order of the loop: prompts, samples, rewards, instructions, triples, evaluations.

Keys are hashes of content, never positions, and every row contains the key of the row that it is made from. Also here:
conversation turns as text. Reads and writes nothing; tables are stored by `store`.
"""

from __future__ import annotations

import hashlib
import json
import json.encoder
from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl

from hir_core.light_imports import left_out

# dataframely imports it where it is installed, as it is with Prefect: an eighth of the imports of a run, and unused.
with left_out("sqlalchemy"):
    import dataframely as dy

ROLES = ("system", "user", "assistant", "tool")
"""Roles of the turns of a conversation."""
OUTCOMES = ("scored", "no_answer", "not_judged")
"""What became of judging a completion."""
History = Sequence[Mapping[str, str]]
"""The turns of a conversation in order, each with `role` and `content`, as in tables and for chat templates."""


def as_lines(history: History | None) -> str:
    """The turns as lines like `User: …`, each with a line end; empty without turns.

    A turn may itself contain such a label, so only a chat template separates turns reliably.
    """
    return "".join(f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in history or ())


def as_text(history: History | None, query: str) -> str:
    """The query as text for a reader; with a history, all turns as lines, the query last."""
    last_turn = {"role": "user", "content": query}
    return as_lines([*history, last_turn]).removesuffix("\n") if history else query


_TURN = dy.Struct({"role": dy.String(regex=f"^({'|'.join(ROLES)})$"), "content": dy.String()})


_as_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True, default=str).encode


def _each_as_json(values: Iterable[object]) -> Iterator[str]:
    as_text = json.encoder.encode_basestring_ascii  # what the encoder calls for a text, after three calls of its own
    return (as_text(value) if type(value) is str else _as_json(value) for value in values)


def content_key(*parts: object) -> str:
    """A 16-digit hexadecimal hash of values; equal values have equal keys on every machine."""
    return hashlib.sha256(_as_json(parts).encode()).hexdigest()[:16]


def content_keys(*columns: Iterable[object]) -> Iterator[str]:
    """The `content_key` of each row of columns, which are of the same length."""
    sha256 = hashlib.sha256  # JSON of a list is that of its items, so no tuple is made and encoded for a row
    for row in zip(*(_each_as_json(column) for column in columns), strict=True):
        yield sha256(f"[{','.join(row)}]".encode()).hexdigest()[:16]


class Prompts(dy.Schema):
    """The prompts of a run, train and test, with their reference answers."""

    prompt_id = dy.String(primary_key=True)
    """Hash of the prompt's content."""
    task = dy.String(min_length=1)
    """Name of the task that the prompt belongs to."""
    group = dy.String()
    """Key shared by prompts with the same story; the prompts of a group are all train or all test prompts."""
    split = dy.Enum(["train", "test"])
    """`train`: sampled and trained on; `test`: used for evaluation only."""
    query = dy.String()
    """The question; in a conversation, the last turn of the user."""
    history = dy.List(_TURN, min_length=1, nullable=True)
    """The turns before the query; null if the prompt is the query alone."""
    options = dy.List(dy.String(), nullable=True)
    """The answer options in the order shown; null for free answers."""
    references = dy.List(dy.String())
    """All accepted answers; empty if none is known."""
    metadata = dy.String(nullable=True)
    """Further data about the prompt, as a JSON object."""

    @dy.rule()
    def query_is_not_blank(cls) -> pl.Expr:
        return pl.col("query").str.strip_chars().str.len_chars() > 0


class Samples(dy.Schema):
    """Completions sampled from a model, as text and as token ids with their log-probabilities."""

    sample_id = dy.String(primary_key=True)
    """Hash that identifies the sample."""
    prompt_id = dy.String()
    """The prompt that was sampled."""
    model = dy.String()
    """Version id of the model that was sampled."""
    instruction = dy.String()
    """The instruction put before the query."""
    k = dy.Int32(min=0)
    """Number of the sample among those of its prompt, from 0."""
    prompt_ids = dy.List(dy.Int32())
    """Token ids of the rendered prompt, as the model read it."""
    completion = dy.String()
    """The completion as text."""
    completion_ids = dy.List(dy.Int32())
    """Token ids of the completion, including the end-of-sequence token if it was sampled."""
    logprobs = dy.List(dy.Float32())
    """Log-probability of each token of the completion at temperature 1, in nats."""
    finish_reason = dy.Enum(["eos", "length"])
    """`eos`: the model ended the completion; `length`: it was cut off at `max_new_tokens`."""
    seed = dy.UInt64()
    """Seed of this row's own random numbers."""

    @dy.rule()
    def one_logprob_per_token(cls) -> pl.Expr:
        return pl.col("logprobs").list.len() == pl.col("completion_ids").list.len()


class SamplesWithStop(Samples):
    """Samples of a run that has stop texts."""

    finish_reason = dy.Enum(["eos", "length", "stop"])
    """`eos`: the model ended the completion; `length`: it was cut off at `max_new_tokens`; `stop`: a stop text ended
    it, which `completion` ends before and `completion_ids` hold."""


class Rewards(dy.Schema):
    """The score that the reward gave to each sample."""

    sample_id = dy.String(primary_key=True)
    """The sample that was scored."""
    reward = dy.String()
    """Type of the reward."""
    outcome = dy.Enum(OUTCOMES)
    """`scored`; `no_answer`: there is no score because the sample names no answer at all, as a refusal does;
    `not_judged`: there is none for another reason, for example because the sample names several answers."""
    score = dy.Float64(nullable=True, allow_inf=False, allow_nan=False)
    """The score; null, which differs from 0, if the sample has none."""
    reason = dy.String()
    """Why the sample got this score, as text."""
    parts = dy.List(
        dy.Struct({"name": dy.String(), "score": dy.Float64(nullable=True, allow_inf=False, allow_nan=False)})
    )
    """The score of each attribute by name, null if it cannot be judged; empty for rewards without attributes."""

    @dy.rule()
    def has_a_score_if_scored(cls) -> pl.Expr:
        return (pl.col("outcome") == "scored") == pl.col("score").is_not_null()

    @dy.rule()
    def part_names_are_unique_and_sorted(cls) -> pl.Expr:
        return pl.col("parts").map_batches(_have_unique_sorted_names, return_dtype=pl.Boolean, is_elementwise=True)


def _have_unique_sorted_names(parts: pl.Series) -> pl.Series:
    """Whether the names in each list are; true of null. Most rewards have no parts, and sorting many lists is slow."""
    are_sorted = pl.Series([True]).new_from_index(0, len(parts))
    several = (parts.list.len() > 1).fill_null(value=False).arg_true()
    if several.is_empty():
        return are_sorted
    names = parts.gather(several).list.eval(pl.element().struct.field("name"))
    return are_sorted.scatter(several, names == names.list.unique().list.sort())


class WrittenInstructions(dy.Schema):
    """The instructions that a model wrote for samples, and whether they are verified (relabeler `learned`)."""

    sample_id = dy.String(primary_key=True)
    """The sample that the instruction was written for."""
    verdict = dy.Enum(["correct", "wrong"])
    """The verdict on the sample that the writer was shown."""
    written = dy.String(nullable=True)
    """The text that the writer wrote; null if its context had no room for any."""
    check = dy.Enum(["named", "constraints", "logprob"], nullable=True)
    """The check that decided; null if there was nothing to check."""
    instruction = dy.String(nullable=True)
    """The verified instruction that the sample follows; null if what was written is not verified."""
    logprob = dy.Float64(nullable=True)
    """Mean log-probability per token, in nats, of the sample under the written instruction, by the model that drew it.
    """
    asked_logprob = dy.Float64()
    """The same under the instruction under which it was sampled."""
    reason = dy.String()
    """Why the instruction is not verified; empty if it is."""


class Triples(dy.Schema):
    """The training data: triples of an instruction, a query and an output that follows the instruction.

    A triple may also, or only, say under which instruction its output is ruled out.
    """

    triple_id = dy.String(primary_key=True)
    """Hash that identifies the triple."""
    prompt_id = dy.String()
    """The prompt that the query comes from."""
    sample_id = dy.String(nullable=True)
    """The sample that the output comes from; null for demonstrations."""
    relabeler = dy.String()
    """Type of the relabeler that chose the instruction."""
    instruction = dy.String()
    """The instruction that the output follows."""
    contrast = dy.List(dy.String())
    """The other instructions, under which the output should be unlikely."""
    query = dy.String()
    """The query that the output is trained on."""
    history = dy.List(_TURN, min_length=1, nullable=True)
    """The turns before the query, as in the prompt; null if there are none."""
    output = dy.String()
    """The output as text."""
    prefix_ids = dy.List(dy.Int32())
    """Token ids of the output's beginning, which is given and not trained on; empty if the whole output is trained on.
    """
    target_ids = dy.List(dy.Int32(), nullable=True)
    """Token ids of the output to predict; null for demonstrations, which are tokenised by the ranks."""
    ends = dy.Bool()
    """Whether the model learns to stop after the target; false if the sample was cut off, or if a stop text, which the
    target holds, ended it."""
    weight = dy.Float64(min=0)
    """Weight of the triple in the loss of demonstrations; 0: it demonstrates nothing, and is only ruled out."""
    excluded_from = dy.String(nullable=True)
    """The instruction under which the output is ruled out: known to be wrong; null if it is not ruled out."""
    removed = dy.Float64(min=0, max=1)
    """Share of the output's probability under that instruction that training takes away; 0 if it is not ruled out."""
    probability = dy.Float64(nullable=True, min=0, max=1)
    """How likely the whole output was when it was sampled, at temperature 1; null for demonstrations."""

    @dy.rule()
    def is_ruled_out_under_an_instruction(cls) -> pl.Expr:
        return (pl.col("removed") > 0) == pl.col("excluded_from").is_not_null()


class Evaluations(dy.Schema):
    """The greedy completions of the test prompts by one model version, with their scores."""

    prompt_id = dy.String(primary_key=True)
    """The test prompt."""
    model = dy.String()
    """Version id of the model."""
    task = dy.String()
    """Name of the prompt's task."""
    instruction = dy.String()
    """The instruction put before the query."""
    completion = dy.String()
    """The completion as text."""
    finish_reason = dy.Enum(["eos", "length"])
    """`eos`: the model ended the completion; `length`: it was cut off at `max_new_tokens`."""
    outcome = dy.Enum(OUTCOMES)
    """Whether the completion has a score and, if not, whether it names no answer at all, as in the rewards."""
    score = dy.Float64(nullable=True, allow_inf=False, allow_nan=False)
    """The score; null if the completion has none."""

    @dy.rule()
    def has_a_score_if_scored(cls) -> pl.Expr:
        return (pl.col("outcome") == "scored") == pl.col("score").is_not_null()


class EvaluationsWithStop(Evaluations):
    """Evaluations of a run that has stop texts."""

    finish_reason = dy.Enum(["eos", "length", "stop"])
    """`eos`: the model ended the completion; `length`: it was cut off at `max_new_tokens`; `stop`: a stop text ended
    it, which `completion` ends before."""


class Logprobs(dy.Schema):
    """Log-probabilities of samples under written instructions: an intermediate table of the stage `instructions`."""

    sample_id = dy.String(primary_key=True)
    """The sample."""
    logprob = dy.Float64(nullable=True)
    """Mean log-probability per token in nats; null if the sequence is too long for the model."""


class Scores(dy.Schema):
    """Outputs of a reward model for texts: an intermediate table of the stages `rewards` and `evaluations`."""

    key = dy.String(primary_key=True)
    """Hash of the text."""
    score = dy.Float64(nullable=True)
    """The score; null if the reward model cannot judge the text."""
    reason = dy.String()
    """Why the text got this score, as text."""


SCHEMAS: dict[str, type[dy.Schema]] = {
    "prompts": Prompts,
    "samples": Samples,
    "rewards": Rewards,
    "instructions": WrittenInstructions,
    "triples": Triples,
    "evaluations": Evaluations,
}
"""The schema of each stage's table; the stage `models` has none."""
SCHEMAS_WITH_STOP: dict[str, type[dy.Schema]] = {"samples": SamplesWithStop, "evaluations": EvaluationsWithStop}
"""The schemas of a run that has stop texts, where they differ."""
