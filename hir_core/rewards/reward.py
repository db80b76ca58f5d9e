"""`Reward`, the interface of all rewards: completions and their prompts in, one verdict per completion out.

Serves the stage `score` and the evaluation. A reward implements `verdicts`, or as a `RowReward` `verdict` for one
completion at a time; joining samples with their prompts and building the Rewards table is done here, once for all.
Reads and writes tables in memory only.
"""

from __future__ import annotations

import gc
import json
import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple, TypedDict, cast

import polars as pl
import pyarrow as pa

from hir_core.config import Section
from hir_core.errors import ConfigError, SchemaError
from hir_core.progress import OnRows, counted, ignore
from hir_core.schemas import Rewards

_SCHEMA = Rewards.create_empty().schema
OUTCOME = _SCHEMA["outcome"]
NO_PARTS = pl.lit([], dtype=_SCHEMA["parts"])
"""The column `parts` of a reward without attributes."""
_NO_PARTS: Mapping[str, float | None] = MappingProxyType({})


class PromptRow(TypedDict):
    """A row of the Prompts table whose `metadata` is decoded: {} where it is null."""

    prompt_id: str
    task: str
    group: str
    split: str
    query: str
    history: list[dict[str, str]] | None
    options: list[str] | None
    references: list[str]
    metadata: dict[str, Any]


class Verdict(NamedTuple):
    """How a completion was judged."""

    score: float | None
    """None: the reward cannot judge, which is not 0."""
    reason: str
    parts: Mapping[str, float | None] = _NO_PARTS
    """The score of each attribute by name, None where it cannot be judged; empty where one score is all there is."""
    no_answer: bool = False
    """Whether there is no score because the completion names no answer at all, as a refusal does."""

    @property
    def outcome(self) -> str:
        """`scored`, `no_answer` or `not_judged`."""
        if self.score is not None:
            return "scored"
        return "no_answer" if self.no_answer else "not_judged"


UNJUDGED = Verdict(None, "")


class Reward(ABC):
    """Judges completions against their prompts: R(p, q, o) of Zhang et al. 2023 (arXiv 2302.05206)."""

    name: str
    config: Section
    launches = False
    """Whether judging needs a launch, which must not run beside another launch."""
    judges_in_slices = False
    """Whether it may judge a large table a slice at a time, each completion by itself and with its prompt alone."""
    uses_references = True
    """Whether it compares with references, so that always giving the most frequent reference is a baseline."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def fingerprint(self) -> dict[str, Any]:
        """What decides its scores, as plain JSON values."""
        return self.config.fingerprint()

    @abstractmethod
    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        """One verdict per completion.

        Args:
            prompts: the prompt of each completion.
            on_rows: called with how many completions are judged, and of how many.
        """

    def prepare(self, completions: Sequence[str], prompts: Sequence[PromptRow]) -> None:
        """Scores all these rows in one launch, so that later calls of `verdicts` need no launch each."""
        del completions, prompts

    def unusable(self, prompt: PromptRow) -> str | None:
        """Why no completion of this prompt can be judged; None where they can."""
        del prompt
        return None

    def check_prompts(self, prompts: pl.DataFrame) -> None:
        """Makes sure, before anything is sampled, that completions of every prompt can be judged.

        Raises:
            ConfigError: counts the prompts for which they cannot, and names the first.
        """
        self._check(_prompt_rows(prompts))

    def _check(self, prompts: Sequence[PromptRow]) -> None:
        reasons = ((row, self.unusable(row)) for row in prompts)
        unusable = [(row, reason) for row, reason in reasons if reason]
        if unusable:
            row, reason = unusable[0]
            raise ConfigError(
                f"reward {self.name}: {len(unusable)} of {len(prompts)} prompts cannot be judged; the first is "
                f"{row['prompt_id']} ({row['task']}: {shortened(row['query'])}): {reason}"
            )

    def judge(self, completions: pl.DataFrame, prompts: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """The given rows with `outcome`, `score`, `reason` and `parts`, in the same order.

        Args:
            completions: rows with a `prompt_id` and a `completion`.
            prompts: the Prompts table.
            on_rows: called with how many completions are judged, and of how many.

        Raises:
            ConfigError: a prompt cannot be judged; found before anything is scored.
            SchemaError: a row names a prompt that the prompts table lacks.
        """
        prompt_rows = self._prompts_of(completions, prompts)
        texts = completions["completion"].to_list()
        verdicts = [finite(verdict) for verdict in self.verdicts(texts, prompt_rows, on_rows=on_rows)]
        return completions.with_columns(
            outcome=pl.Series([verdict.outcome for verdict in verdicts], dtype=OUTCOME),
            score=pl.Series([verdict.score for verdict in verdicts], dtype=pl.Float64),
            reason=pl.Series([verdict.reason for verdict in verdicts], dtype=pl.String),
            parts=_parts_column(verdicts),
        )

    def judge_ahead(self, completions: pl.DataFrame, prompts: pl.DataFrame) -> None:
        """Runs the launch that judging these rows needs, if any, so that a later `judge` of them starts none.

        The launch reports its own progress. Raises what `judge` raises.
        """
        self.prepare(completions["completion"].to_list(), self._prompts_of(completions, prompts))

    def score(self, samples: pl.DataFrame, prompts: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """The Rewards table of all samples, sorted by sample_id.

        Raises:
            ConfigError: a prompt cannot be judged.
            SchemaError: a sample names a prompt that the prompts table lacks.
        """
        judged = self.judge(samples.select("sample_id", "prompt_id", "completion"), prompts, on_rows=on_rows)
        return (
            judged.select("sample_id", pl.lit(self.name).alias("reward"), "outcome", "score", "reason", "parts")
            .sort("sample_id")
            .cast(_SCHEMA)
        )

    def _prompts_of(self, completions: pl.DataFrame, prompts: pl.DataFrame) -> list[PromptRow]:
        """The prompt of each row, once every prompt is known to be in the table and to be judgeable."""
        needed = needed_prompts(completions, prompts)
        rows = _prompt_rows(needed)  # once: what a reward works out from a row to check it, it needs again to judge
        self._check(rows)
        refuse_unknown_prompts(completions, needed)
        by_id = {row["prompt_id"]: row for row in rows}
        return [by_id[prompt_id] for prompt_id in completions["prompt_id"].to_list()]


class RowReward(Reward):
    """A reward that judges each completion independently of the others."""

    judges_in_slices = True

    @abstractmethod
    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        """How well one completion answers its prompt."""

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        rows_of_prompt: dict[int, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows_of_prompt.setdefault(id(prompt), []).append(row)
        # One prompt after the other, so that what is worked out from it is at hand; equal completions are judged once.
        order = [row for rows in rows_of_prompt.values() for row in rows]
        verdicts: list[Verdict] = [UNJUDGED] * len(order)
        known: dict[str, Verdict] = {}
        current: PromptRow | None = None
        with _no_search_for_cycles():
            for row in counted(order, len(order), on_rows):
                completion, prompt = completions[row], prompts[row]
                if prompt is not current:
                    known, current = {}, prompt
                verdict = known.get(completion)
                if verdict is None:
                    verdict = known[completion] = self.verdict(completion, prompt)
                verdicts[row] = verdict
        return verdicts


@contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Switches Python's garbage collector off.

    Of many rows, it took a quarter of the time of judging them: it looks for cycles among all objects again and again,
    and verdicts have none.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def needed_prompts(completions: pl.DataFrame, prompts: pl.DataFrame) -> pl.DataFrame:
    """The prompts that rows to judge name."""
    return prompts.join(completions, on="prompt_id", how="semi", maintain_order="left")


def refuse_unknown_prompts(completions: pl.DataFrame, prompts: pl.DataFrame) -> None:
    """Makes sure that every row to judge names a prompt of the table.

    Raises:
        SchemaError: counts the rows that do not, and names the prompt of the first.
    """
    unknown = completions.select("prompt_id").join(prompts, on="prompt_id", how="anti", maintain_order="left")
    if not unknown.is_empty():
        raise SchemaError(
            f"{unknown.height} of {completions.height} rows to judge name prompts that the prompts table lacks, "
            f"first {unknown.item(0, 0)}: pass the prompts they were sampled from"
        )


def _prompt_rows(prompts: pl.DataFrame) -> list[PromptRow]:
    names = prompts.columns
    columns = (prompts[name].to_list() for name in names)  # by column: polars makes single rows slowly
    rows = [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]
    for row in rows:
        row["metadata"] = json.loads(row["metadata"]) if row.get("metadata") else {}
    return cast(list[PromptRow], rows)


def _parts_column(verdicts: Sequence[Verdict]) -> pl.Expr | pl.Series:
    """The column `parts`, built from flat arrays: from a Python list per row it would take longer than judging."""
    if not any(verdict.parts for verdict in verdicts):
        return NO_PARTS
    offsets, names, scores = [0], [], []
    for verdict in verdicts:
        for name, score in sorted(verdict.parts.items()):
            names.append(name)
            scores.append(score)
        offsets.append(len(names))
    fields = pa.StructArray.from_arrays(
        [pa.array(names, pa.large_string()), pa.array(scores, pa.float64())], ["name", "score"]
    )
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), fields)
    return pl.Series(lists, dtype=_SCHEMA["parts"])


def finite(verdict: Verdict) -> Verdict:
    """The verdict with None in place of scores that are NaN or infinite, which no threshold can be compared with."""
    if verdict.parts:
        scores = verdict.parts.items()
        parts = {name: score if score is not None and math.isfinite(score) else None for name, score in scores}
        verdict = verdict._replace(parts=parts)
    if verdict.score is None or math.isfinite(verdict.score):
        return verdict
    reason = f"not finite: {verdict.score}{f', {verdict.reason}' if verdict.reason else ''}"
    return verdict._replace(score=None, reason=reason)


def unscored_reasons(judged: pl.DataFrame, most: int = 20) -> dict[str, int]:
    """How many rows have no score, by reason, the frequent ones first; those that name no answer included.

    The text of a reason after its first colon is about one completion and is left out of the count.

    Args:
        judged: rows with `score` and `reason`.
        most: how many reasons are named; all others are counted together as `other`.
    """
    reasons = judged.filter(pl.col("score").is_null())["reason"].to_list()
    counts = Counter(reason.partition(": ")[0] for reason in reasons)
    frequent = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])
    rest = len(reasons) - sum(frequent.values())
    return frequent | ({"other": frequent.get("other", 0) + rest} if rest else {})


def attribute_means(judged: pl.DataFrame) -> dict[str, Any]:
    """`{"attributes": {name: {"mean": mean score, "judged": rows with a score}}}`; {} where there are no attributes.

    Args:
        judged: rows with `parts`.
    """
    parts = judged.select("parts").explode("parts").unnest("parts")
    means = parts.group_by("name").agg(mean=pl.col("score").mean(), judged=pl.col("score").count()).sort("name")
    return {"attributes": {row.pop("name"): row for row in means.to_dicts()}} if means.height else {}


def after_marker(text: str, marker: str | None) -> str | None:
    """The text after the last occurrence of a marker, in any case; None where it does not occur.

    Without a marker, the whole text.
    """
    if marker is None:
        return text
    ends = [match.end() for match in re.finditer(re.escape(marker), text, re.IGNORECASE)]
    return text[ends[-1] :] if ends else None


def shortened(text: str, width: int = 60) -> str:
    """The beginning of a text in quotes and on one line, for messages and reasons."""
    line = " ".join(text.split())
    return repr(line if len(line) <= width else line[: width - 1] + "…")
