"""`Relabeler`, the interface of all relabelers: scored samples in, triples and counted rejects out.

Serves the stage `relabel`. A relabeler decides which samples it rejects and which instruction each of the others
demonstrates; the tables around that are handled here. Which of the kept samples are trained on is decided by
`select`. Every sample becomes one triple or one reject. Reads and writes tables in memory only.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from hir_core.config import Instructions, LearnedRelabel, Relabel, SelectConfig
from hir_core.errors import SchemaError
from hir_core.progress import OnRows, counted, ignore
from hir_core.relabelers.select import select
from hir_core.schemas import Triples, content_keys

CANNOT_JUDGE = "cannot judge"
NO_ANSWER = "names no answer"
EMPTY_COMPLETION = "empty completion"
BELOW_THRESHOLD = "below threshold"
TRIPLE_SCHEMA = Triples.create_empty().schema
SAMPLE_COLUMNS = ("sample_id", "prompt_id", "completion", "completion_ids", "finish_reason")
"""The columns of the samples that are kept as they are."""
PROBABILITY = pl.col("logprobs").cast(pl.List(pl.Float64)).list.sum().exp().clip(upper_bound=1.0)
"""exp of the sum of a sample's log-probabilities; rounding must not make it more than 1."""
NO_TEXTS = pl.lit([], dtype=pl.List(pl.String))
NO_IDS = pl.lit([], dtype=pl.List(pl.Int32))


class Relabeler:
    """An instruction generation function phi of Zhang et al. 2023 (arXiv 2302.05206): p* = phi(p, q, o, R).

    The rules are expressions over a table with one row per sample, sorted by sample_id: sample_id, prompt_id,
    completion, completion_ids, finish_reason, probability, outcome, score, parts, is_correct, query, history,
    references, metadata. A relabeler that needs more than expressions overrides `label`.
    """

    name: str
    config: Relabel
    parent = "sample_id"
    """The column that a triple's key is made of, with the relabeler and the instruction."""

    def __init__(self, config: Relabel, instructions: Instructions) -> None:
        self.config = config
        self.instructions = instructions

    def fingerprint(self) -> dict[str, Any]:
        """What decides its triples, as plain JSON values."""
        return {**self.config.fingerprint(), "type": self.name, "instructions": self.instructions.fingerprint()}

    @property
    def instruction_model(self) -> LearnedRelabel | None:
        """How a model writes the instructions of samples before they are relabeled; None where rules decide them."""
        return None

    def writing_demonstrations(self, prompts: pl.DataFrame, seed: int) -> pl.DataFrame:
        """Triples that show a model how to write instructions, to be trained on beside the others; usually none."""
        del prompts, seed
        return pl.DataFrame(schema=TRIPLE_SCHEMA)

    def writing_fingerprint(self) -> dict[str, Any]:
        """What decides `writing_demonstrations`, as plain JSON values; empty where there are none."""
        return {}

    def tokenizer_texts(self) -> list[str]:
        """Texts beyond the run's instructions that the tokenizer of a model from scratch is fitted to."""
        return []

    def instruction(self) -> pl.Expr:
        """The instruction that a kept sample demonstrates; by default the correct one."""
        return pl.lit(self.instructions.correct)

    def contrast(self) -> pl.Expr:
        """The other instructions, under which the output should be unlikely; by default none."""
        return NO_TEXTS

    def weight(self) -> pl.Expr:
        """How much a kept sample counts as a demonstration of its instruction, before `select`; by default 1."""
        return pl.lit(1.0)

    def removed(self) -> pl.Expr:
        """The share of a sample's probability under the correct instruction that training takes away; by default 0."""
        return pl.lit(0.0)

    def is_judged(self) -> pl.Expr:
        """Whether a sample has the scores that the relabeler needs; by default its score."""
        return pl.col("score").is_not_null()

    def rejection(self) -> pl.Expr:
        """Why a sample is left out; null where it is kept."""
        outcome = pl.col("outcome")
        return (
            pl.when(~self.is_judged())
            .then(pl.when(outcome == "no_answer").then(pl.lit(NO_ANSWER)).otherwise(pl.lit(CANNOT_JUDGE)))
            .when(pl.col("completion_ids").list.len() == 0)
            .then(pl.lit(EMPTY_COMPLETION))
        )

    def author(self) -> pl.Expr:
        """The name of the relabeler that a triple is from."""
        return pl.lit(self.name)

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """Adds `rejected`, `instruction` and `contrast` to the scored samples; may change the `query`.

        Args:
            prompts: the whole Prompts table, for relabelers that need more than a sample's own prompt.
        """
        del prompts
        return scored.with_columns(rejected=self.rejection(), instruction=self.instruction(), contrast=self.contrast())

    def relabel(
        self,
        samples: pl.DataFrame | pl.LazyFrame,
        rewards: pl.DataFrame,
        prompts: pl.DataFrame,
        selection: SelectConfig | None = None,
        written: pl.DataFrame | None = None,
        *,
        on_rows: OnRows = ignore,
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """The Triples that scored samples become, sorted by triple_id, and how many samples are rejected, by reason.

        Args:
            samples: Samples; of a lazy frame only the columns are read that are needed.
            selection: which of the kept samples are trained on; None: all of them.
            written: WrittenInstructions, where a model wrote some.
            on_rows: called with how many triples are made, and of how many.

        Raises:
            SchemaError: a sample has no reward or no prompt in these tables.
        """
        scored = self._scored(samples, rewards, prompts)
        if written is not None:
            verified = written.select("sample_id", verified="instruction", refusal="reason")
            scored = scored.join(verified, on="sample_id", how="left")
        labeled = self.label(scored.sort("sample_id"), prompts)
        labeled = labeled.with_columns(weight=self.weight(), removed=self.removed())
        labeled = select(labeled, selection or SelectConfig(), self.instructions.correct)
        counts = labeled["rejected"].drop_nulls().value_counts(sort=True)
        triples = self.triples(labeled.filter(pl.col("rejected").is_null()), on_rows=on_rows)
        return triples, dict(sorted(counts.iter_rows()))

    def judged(self, samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """The scored samples that an instruction can be written about: with a score and at least one token.

        Sorted by sample_id, with `logprobs` and the columns that the rules are expressions over.
        """
        scored = self._scored(samples, rewards, prompts).join(samples.select("sample_id", "logprobs"), on="sample_id")
        return scored.filter(Relabeler.rejection(self).is_null()).sort("sample_id")

    def _scored(
        self, samples: pl.DataFrame | pl.LazyFrame, rewards: pl.DataFrame, prompts: pl.DataFrame
    ) -> pl.DataFrame:
        """The samples joined with their scores and prompts, and with `is_correct`."""
        # A log-probability per token takes much memory, and only their sum is needed.
        drawn = samples.lazy().select(*SAMPLE_COLUMNS, probability=PROBABILITY).collect()
        scores = rewards.select("sample_id", "outcome", "score", "parts")
        asked = prompts.select("prompt_id", "query", "history", "references", "metadata")
        scored = drawn.join(scores, on="sample_id", how="left", validate="1:1")
        scored = scored.join(asked, on="prompt_id", how="left", validate="m:1")
        for column, name in (("outcome", "rewards"), ("query", "prompts")):
            unmatched = scored.filter(pl.col(column).is_null())["sample_id"]
            if not unmatched.is_empty():
                raise SchemaError(
                    f"{len(unmatched)} of {drawn.height} samples have no row in {name}, first sample_id "
                    f"{unmatched.sort()[0]}: pass the tables of one iteration"
                )
        return scored.with_columns(is_correct=pl.col("score") >= self.config.threshold)

    def triples(self, kept: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """The Triples table of labeled rows with their `weight`, `removed` and `prefix_length`, sorted by triple_id."""
        triples = kept.with_columns(
            relabeler=self.author(),
            excluded_from=pl.when(pl.col("removed") > 0).then(pl.lit(self.instructions.correct)),
            output="completion",
            prefix_ids=pl.coalesce(pl.col("completion_ids").list.head("prefix_length"), NO_IDS),
            target_ids=pl.col("completion_ids").list.slice("prefix_length"),
            ends=pl.col("finish_reason") == "eos",
        )
        origins = (triples[name].to_list() for name in (self.parent, "relabeler", "instruction"))
        keys = list(counted(content_keys(*origins), triples.height, on_rows))
        with_keys = triples.with_columns(triple_id=pl.Series(keys, dtype=pl.String))
        return with_keys.select(list(TRIPLE_SCHEMA)).cast(TRIPLE_SCHEMA).sort("triple_id")


def other_instructions() -> pl.Expr:
    """The instructions that other samples of the same prompt got, sorted; samples without one add none."""
    of_prompt = pl.col("instruction").unique().implode().over("prompt_id")
    return of_prompt.list.drop_nulls().list.set_difference(pl.concat_list("instruction")).list.sort()
