"""`Relabeler`, the interface of all relabelers: scored samples in, triples and counted rejects out.

Serves the stage `relabel`. A relabeler decides which samples it rejects and which instruction each of the others
demonstrates; the tables around that are handled here, a slice of the samples at a time. Which of the kept samples are
trained on is decided by `select`. Every sample becomes one triple or one reject. Reads and writes tables in memory
only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import Instructions, LearnedRelabel, Relabel, SelectConfig
from hir_core.config.model import Thinking
from hir_core.errors import SchemaError
from hir_core.progress import OnRows, counted, ignore, in_slice
from hir_core.relabelers.select import apply, compared_columns, compares_prompts, kept_of_prompts, limited_and_balanced
from hir_core.relabelers.shares import PROBABILITY, share, shared_weight
from hir_core.schemas import Triples, content_keys

CANNOT_JUDGE = "cannot judge"
NO_ANSWER = "names no answer"
EMPTY_COMPLETION = "empty completion"
BELOW_THRESHOLD = "below threshold"
TRIPLE_SCHEMA = Triples.create_empty().schema
SLICE_COLUMNS = ("sample_id", "prompt_id", "model", "k", "completion", "completion_ids", "finish_reason", PROBABILITY)
"""What is read of samples. A log-probability per token takes much memory, and only their sum is needed."""
REWARD_COLUMNS = ("sample_id", "outcome", "score", "parts")
"""What is read of rewards."""
NO_TEXTS = pl.lit([], dtype=pl.List(pl.String))
NO_IDS = pl.lit([], dtype=pl.List(pl.Int32))
_IS_JUDGED = pl.col("outcome") != "not_judged"
OUTPUT = pl.struct("prompt_id", "completion_ids")
"""Outputs are distinct if their prompt or their token ids differ."""


class Kept(NamedTuple):
    """The samples of a slice that become triples, as labeled rows, and what is counted about all of its samples."""

    rows: pl.DataFrame
    rejected: Counter[str]
    judged_outputs: int


class Relabeled(NamedTuple):
    """What a slice of samples becomes."""

    triples: pl.DataFrame
    """Sorted by triple_id."""
    rejected: Counter[str]
    """How many samples are rejected, by reason."""
    judged_outputs: int
    """How many distinct outputs have a score or name no answer."""
    used_outputs: int
    """How many of them are a demonstration with a weight above 0, or are ruled out."""


class Relabeler:
    """An instruction generation function phi of Zhang et al. 2023 (arXiv 2302.05206): p* = phi(p, q, o, R).

    The rules are expressions over a table with one row per sample, sorted by sample_id: sample_id, prompt_id, model, k,
    completion, completion_ids, finish_reason, probability, outcome, score, parts, is_correct, query, history,
    references, metadata. A relabeler that needs more than expressions overrides `label`.
    """

    name: str
    config: Relabel
    compares_prompts = False
    """Whether what becomes of a sample depends on samples of other prompts, so that a slice must hold all samples."""
    parent = "sample_id"
    """The column that a triple's key is made of, with the relabeler and the instruction."""

    thinking: Thinking | None = None
    """The marks around the model's thinking in its outputs."""
    are_distinct = False
    """Whether the samples of a prompt were drawn without replacement."""

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

    def answers(self, completions: pl.Series) -> pl.Series:
        """The completions without the model's thinking: what was scored."""
        if self.thinking is None:
            return completions
        return pl.Series(completions.name, map(self.thinking.answer, completions), dtype=pl.String)

    def author(self) -> pl.Expr:
        """The name of the relabeler that a triple is from."""
        return pl.lit(self.name)

    def label(self, scored: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """Adds `rejected`, `instruction` and `contrast` to the scored samples; may change the `query`.

        Args:
            scored: all samples of their prompts; all of the table if the relabeler `compares_prompts`.
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
            on_rows: called with how many samples are relabeled, and of how many.

        Raises:
            SchemaError: a sample has no reward or no prompt in these tables.
        """
        selection = selection or SelectConfig()
        drawn = samples.lazy().select(SLICE_COLUMNS).collect()
        (whole,) = self.relabel_slices(
            [drawn], rewards, prompts, selection, written, count=drawn.height, on_rows=on_rows
        )
        return whole.triples, dict(sorted(whole.rejected.items()))

    def relabel_slices(
        self,
        slices: Iterable[pl.DataFrame],
        rewards: pl.DataFrame,
        prompts: pl.DataFrame,
        selection: SelectConfig,
        written: pl.DataFrame | None = None,
        *,
        count: int,
        put_aside: Callable[[Iterable[pl.DataFrame]], Iterable[pl.DataFrame]] = list,
        on_rows: OnRows = ignore,
    ) -> Iterator[Relabeled]:
        """What `relabel` returns, for a slice of the samples at a time; together the same rows and counts.

        Args:
            slices: the SLICE_COLUMNS of Samples; all samples of a prompt are in one slice.
            count: how many samples there are in all slices.
            put_aside: takes all frames, and gives them again in the same order: where to, if memory is short.

        Raises:
            SchemaError: as `relabel`, for the first slice in which it is so.
        """
        kept: Iterator[Kept] = (self._kept(samples, rewards, prompts, selection, written) for samples in slices)
        if compares_prompts(selection):
            kept = self._limited_and_balanced(kept, selection, put_aside)
        done = 0
        for rows, rejected, judged_outputs in kept:
            triples = self.triples(rows, on_rows=in_slice(on_rows, done, count))
            yield Relabeled(triples, rejected, judged_outputs, self._used_outputs(rows))
            done += rows.height + rejected.total()

    def _kept(
        self,
        samples: pl.DataFrame,
        rewards: pl.DataFrame,
        prompts: pl.DataFrame,
        selection: SelectConfig,
        written: pl.DataFrame | None,
    ) -> Kept:
        """The samples that are kept of whole prompts, labeled, sorted by sample_id."""
        scored = self._scored(samples, rewards, prompts)
        if written is not None:
            verified = written.select("sample_id", verified="instruction", refusal="reason")
            scored = scored.join(verified, on="sample_id", how="left", maintain_order="left")
        judged_outputs = scored.lazy().filter(_IS_JUDGED).select(OUTPUT.n_unique()).collect().item()
        labeled = self.label(scored, prompts).with_columns(weight=self.weight(), removed=self.removed())
        if not self.are_distinct:
            return Kept(*kept_of_prompts(labeled, selection), judged_outputs)
        kept, rejected = kept_of_prompts(labeled.with_columns(share=share()), selection)
        return Kept(kept.with_columns(shared_weight()).drop("share"), rejected, judged_outputs)

    def _limited_and_balanced(
        self,
        slices: Iterable[Kept],
        selection: SelectConfig,
        put_aside: Callable[[Iterable[pl.DataFrame]], Iterable[pl.DataFrame]],
    ) -> Iterator[Kept]:
        """The same with the rows and weights that depend on the rows of all slices, which are therefore put aside."""
        counts, compared = [], []

        def rows() -> Iterator[pl.DataFrame]:
            for kept in slices:
                counts.append((kept.rejected, kept.judged_outputs))
                compared.append(compared_columns(kept.rows, selection))
                yield kept.rows

        aside = put_aside(rows())
        decided = limited_and_balanced(compared, selection, self.instructions.correct)
        for kept_rows, weights, (rejected, judged_outputs) in zip(aside, decided, counts, strict=True):
            yield Kept(apply(weights, kept_rows, rejected), rejected, judged_outputs)

    def _used_outputs(self, kept: pl.DataFrame) -> int:
        """How many distinct judged outputs are learned from; none where what is learned was not sampled."""
        if self.parent != "sample_id":
            return 0
        is_used = _IS_JUDGED & ((pl.col("weight") > 0) | (pl.col("removed") > 0))
        return int(kept.lazy().filter(is_used).select(OUTPUT.n_unique()).collect().item())

    def judged(self, samples: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """The scored samples that an instruction can be written about: with a score and at least one token.

        Sorted by sample_id, with `logprobs` and the columns that the rules are expressions over.
        """
        drawn = samples.select(*SLICE_COLUMNS, "logprobs")
        scored = self._scored(drawn, rewards, prompts)
        return scored.filter(Relabeler.rejection(self).is_null())

    def _scored(self, drawn: pl.DataFrame, rewards: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
        """The samples joined with their scores and prompts, and with `is_correct`, sorted by sample_id."""
        scores = _of(drawn, rewards.select(REWARD_COLUMNS), "sample_id")
        asked = _of(drawn, prompts.select("prompt_id", "query", "history", "references", "metadata"), "prompt_id")
        scored = drawn.sort("sample_id")
        scored = scored.join(scores, on="sample_id", how="left", validate="1:1", maintain_order="left")
        scored = scored.join(asked, on="prompt_id", how="left", validate="m:1", maintain_order="left")
        for column, name in (("outcome", "rewards"), ("query", "prompts")):
            unmatched = scored.filter(pl.col(column).is_null())["sample_id"]
            if not unmatched.is_empty():
                raise SchemaError(
                    f"{len(unmatched)} of {drawn.height} samples have no row in {name}, first sample_id "
                    f"{unmatched[0]}: pass the tables of one iteration"
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


def _of(drawn: pl.DataFrame, rows: pl.DataFrame, key: str) -> pl.DataFrame:
    """The rows that belong to the samples; all of them where there are few."""
    return rows.join(drawn, on=key, how="semi") if rows.height > drawn.height else rows


def other_instructions() -> pl.Expr:
    """The instructions that other samples of the same prompt got, sorted; samples without one add none."""
    of_prompt = pl.col("instruction").unique().implode().over("prompt_id")
    return of_prompt.list.drop_nulls().list.set_difference(pl.concat_list("instruction")).list.sort()
