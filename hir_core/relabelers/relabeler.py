"""`Relabeler`: what every relabeler has in common: scored samples in, triples and counted rejects out.

A relabeler says which samples it rejects and which instructions the others get; the tables are handled here, and which
of the kept ones are trained on is left to `selection`. Every sample becomes one triple or one reject.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from hir_core.config import Instructions, LearnedRelabel, Relabel, SelectConfig
from hir_core.errors import SchemaError
from hir_core.progress import OnRows, counted, ignore
from hir_core.relabelers.selection import select
from hir_core.schemas import Triples, content_key

CANNOT_JUDGE = "cannot judge"
EMPTY_COMPLETION = "empty completion"
BELOW_THRESHOLD = "below threshold"
SHAPE = Triples.create_empty().schema
NO_TEXTS = pl.lit([], dtype=pl.List(pl.String))
NO_IDS = pl.lit([], dtype=pl.List(pl.Int32))


class Relabeler:
    """An instruction generation function phi(p, q, o, R) of Zhang et al. 2023 (arXiv 2302.05206), given as rules.

    The rules are expressions over one row per sample, sorted by sample_id: sample_id, prompt_id, completion,
    completion_ids, finish_reason, score, parts, is_correct, query, history, references, metadata. One that needs more
    than expressions overrides `label`.
    """

    name: str
    config: Relabel
    parent = "sample_id"
    """What its triples' keys are made of."""

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
        return pl.DataFrame(schema=SHAPE)

    def writing_fingerprint(self) -> dict[str, Any]:
        """What decides `writing_demonstrations`, as plain JSON values; empty where there are none."""
        return {}

    def tokenizer_texts(self) -> list[str]:
        """Texts beyond the run's instructions that the tokenizer of a model from scratch is fitted to."""
        return []

    def instruction(self) -> pl.Expr:
        """The instruction that a kept sample demonstrates: the correct one, unless a relabeler says otherwise."""
        return pl.lit(self.instructions.correct)

    def contrast(self) -> pl.Expr:
        """The other instructions, under which it should be unlikely; none unless a relabeler says so."""
        return NO_TEXTS

    def is_judged(self) -> pl.Expr:
        """Whether there is a score to go by."""
        return pl.col("score").is_not_null()

    def rejection(self) -> pl.Expr:
        """Why a sample is left out; null where it is kept."""
        return (
            pl.when(~self.is_judged())
            .then(pl.lit(CANNOT_JUDGE))
            .when(pl.col("completion_ids").list.len() == 0)
            .then(pl.lit(EMPTY_COMPLETION))
        )

    def author(self) -> pl.Expr:
        """The relabeler that a triple is from."""
        return pl.lit(self.name)

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """Adds `rejected`, `instruction` and `contrast`; may change the `query`. `prompts` is the whole table."""
        del prompts  # for relabelers that look beyond a sample's own prompt
        return scored.with_columns(rejected=self.rejection(), instruction=self.instruction(), contrast=self.contrast())

    def relabel(
        self,
        samples: pl.DataFrame,
        rewards: pl.DataFrame,
        prompts: pl.DataFrame,
        selection: SelectConfig | None = None,
        written: pl.DataFrame | None = None,
        *,
        on_rows: OnRows = ignore,
    ) -> tuple[pl.DataFrame, dict[str, int]]:
        """Turns scored samples into Triples, sorted by triple_id, and counts the rejected by reason.

        Args:
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
        labeled = select(labeled, selection or SelectConfig(), self.instructions.correct)
        counts = labeled["rejected"].drop_nulls().value_counts(sort=True)
        triples = self.triples(labeled.filter(pl.col("rejected").is_null()), on_rows=on_rows)
        return triples, dict(sorted(counts.iter_rows()))

    def judged(self, samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """The samples that there is something to say of: with a verdict, `is_correct`, and at least one token."""
        scored = self._scored(samples, rewards, prompts).join(samples.select("sample_id", "logprobs"), on="sample_id")
        return scored.filter(Relabeler.rejection(self).is_null()).sort("sample_id")

    def _scored(self, samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        return _joined(samples, rewards, prompts).with_columns(is_correct=pl.col("score") >= self.config.threshold)

    def triples(self, kept: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """Labeled and weighted rows as a Triples table."""
        triples = kept.with_columns(
            relabeler=self.author(),
            output="completion",
            prefix_ids=pl.coalesce(pl.col("completion_ids").list.head("given"), NO_IDS),
            target_ids=pl.col("completion_ids").list.slice("given"),
            ends=pl.col("finish_reason") == "eos",
        )
        return _with_keys(triples, self.parent, on_rows)


def other_instructions() -> pl.Expr:
    """The instructions that other samples of the prompt got, in order; a row without one adds none."""
    of_prompt = pl.col("instruction").unique().implode().over("prompt_id")
    return of_prompt.list.drop_nulls().list.set_difference(pl.concat_list("instruction")).list.sort()


def _with_keys(triples: pl.DataFrame, parent: str, on_rows: OnRows) -> pl.DataFrame:
    """A sorted Triples table, its `triple_id` made of the parent's key, the relabeler and the instruction."""
    origins = counted(triples.select(parent, "relabeler", "instruction").iter_rows(), triples.height, on_rows)
    keys = pl.Series("triple_id", [content_key(*origin) for origin in origins], dtype=pl.String)
    return triples.with_columns(keys).select(list(SHAPE)).cast(SHAPE).sort("triple_id")


def _joined(samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    for key, table, name in (("sample_id", rewards, "rewards"), ("prompt_id", prompts, "prompts")):
        strangers = samples.join(table, on=key, how="anti")
        if not strangers.is_empty():
            raise SchemaError(
                f"{strangers.height} of {samples.height} samples have no row in {name}, first sample_id "
                f"{strangers['sample_id'].sort()[0]}: pass the tables of one iteration"
            )
    wanted = samples.select("sample_id", "prompt_id", "completion", "completion_ids", "finish_reason")
    scored = wanted.join(rewards.select("sample_id", "score", "parts"), on="sample_id", validate="1:1")
    asked = prompts.select("prompt_id", "query", "history", "references", "metadata")
    return scored.join(asked, on="prompt_id", validate="m:1")
