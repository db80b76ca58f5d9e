"""`Reward`: what every reward has in common: samples joined to their prompts, judged, one row each.

A reward decides `verdicts`, or as a `RowReward` one `verdict` at a time; the tables around it are handled here.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import Section
from hir_core.errors import ConfigError, SchemaError
from hir_core.progress import OnRows, counted, ignore
from hir_core.schemas import Rewards

PARTS = Rewards.create_empty().schema["parts"]
_NONE: Mapping[str, float | None] = MappingProxyType({})


class Verdict(NamedTuple):
    """How a completion was judged."""

    score: float | None
    """None: the reward cannot judge, which is not 0."""
    reason: str
    parts: Mapping[str, float | None] = _NONE
    """The score of each attribute that was judged by itself, None where it cannot be; none where there is one score."""


class Reward(ABC):
    """Judges completions against their prompts."""

    name: str
    config: Section
    launches = False
    """Whether its verdicts need a launch: they are then asked for while no other launch runs."""
    compares = True
    """Whether it judges by a prompt's references, so that the most frequent of them is a baseline."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def fingerprint(self) -> dict[str, Any]:
        """What decides its scores, as plain JSON values."""
        return self.config.fingerprint()

    @abstractmethod
    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        """One verdict per completion; `prompts` are its rows of the Prompts table, `metadata` decoded."""

    def prepare(self, completions: Sequence[str], prompts: Sequence[dict[str, Any]]) -> None:
        """Does at once, for all these rows, what `verdicts` would else start a launch for each time it is asked."""
        del completions, prompts

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        """Why a prompt cannot be judged by this reward whatever the completion; None where it can."""
        del prompt
        return None

    def check_prompts(self, prompts: pl.DataFrame) -> None:
        """Makes sure, before anything is sampled, that every prompt can be judged.

        Raises:
            ConfigError: counts the prompts that cannot, and names the first.
        """
        reasons = ((row, self.unusable(row)) for row in prompts.iter_rows(named=True))
        unusable = [(row, reason) for row, reason in reasons if reason]
        if unusable:
            row, reason = unusable[0]
            raise ConfigError(
                f"reward {self.name}: {len(unusable)} of {prompts.height} prompts cannot be judged; the first is "
                f"{row['prompt_id']} ({row['task']}: {shortened(row['query'])}): {reason}"
            )

    def judge(self, answers: pl.DataFrame, prompts: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """Adds `score`, `reason` and `parts` to rows with a `prompt_id` and a `completion`, in their own order.

        Raises:
            ConfigError: a prompt cannot be judged; found before anything is scored.
            SchemaError: a row names a prompt that is not there.
        """
        asked_of = self._asked_of(answers, prompts)
        found = [
            finite(verdict) for verdict in self.verdicts(answers["completion"].to_list(), asked_of, on_rows=on_rows)
        ]
        return answers.with_columns(
            score=pl.Series([verdict.score for verdict in found], dtype=pl.Float64),
            reason=pl.Series([verdict.reason for verdict in found], dtype=pl.String),
            parts=pl.Series([_listed(verdict.parts) for verdict in found], dtype=PARTS),
        )

    def judge_ahead(self, answers: pl.DataFrame, prompts: pl.DataFrame) -> None:
        """Has all these rows prepared, so that judging any of them starts no launch; raises what `judge` raises."""
        self.prepare(answers["completion"].to_list(), self._asked_of(answers, prompts))

    def _asked_of(self, answers: pl.DataFrame, prompts: pl.DataFrame) -> list[dict[str, Any]]:
        """The prompt of each row, once all are known to be there and to be judgeable."""
        asked = prompts.filter(pl.col("prompt_id").is_in(answers["prompt_id"].unique().to_list()))
        self.check_prompts(asked)
        by_id = {row["prompt_id"]: _decoded(row) for row in asked.iter_rows(named=True)}
        if strangers := answers.filter(~pl.col("prompt_id").is_in(list(by_id)))["prompt_id"].to_list():
            raise SchemaError(
                f"{len(strangers)} of {answers.height} rows to judge name prompts that the prompts table lacks, first "
                f"{strangers[0]}: pass the prompts they were sampled from"
            )
        return [by_id[key] for key in answers["prompt_id"]]

    def score(self, samples: pl.DataFrame, prompts: pl.DataFrame, *, on_rows: OnRows = ignore) -> pl.DataFrame:
        """The Rewards table of all samples, sorted by sample_id.

        Raises:
            ConfigError: a prompt cannot be judged.
            SchemaError: a sample names a prompt that is not there.
        """
        judged = self.judge(samples.select("sample_id", "prompt_id", "completion"), prompts, on_rows=on_rows)
        return (
            judged.select("sample_id", pl.lit(self.name).alias("reward"), "score", "reason", "parts")
            .sort("sample_id")
            .cast(Rewards.create_empty().schema)
        )


class RowReward(Reward):
    """Judges each completion by itself."""

    @abstractmethod
    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        """How well one completion answers its prompt, a row of the Prompts table, `metadata` decoded."""

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        rows = counted(zip(completions, prompts, strict=True), len(completions), on_rows)
        return [self.verdict(text, prompt) for text, prompt in rows]


def finite(verdict: Verdict) -> Verdict:
    """The verdict without scores that are NaN or infinite, for which no threshold has a meaning."""
    score, reason, parts = verdict
    parts = {name: part if part is not None and math.isfinite(part) else None for name, part in parts.items()}
    if score is None or math.isfinite(score):
        return Verdict(score, reason, parts)
    return Verdict(None, f"not finite: {score}{f', {reason}' if reason else ''}", parts)


def not_judged_reasons(judged: pl.DataFrame, most: int = 20) -> dict[str, int]:
    """How many rows have no score, by reason, frequent ones first; beyond the most frequent they count as `other`.

    What stands after a colon is about one completion, and does not make another reason.
    """
    reasons = judged.filter(pl.col("score").is_null())["reason"].to_list()
    counts = Counter(reason.partition(": ")[0] for reason in reasons)
    named = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most])
    rest = len(reasons) - sum(named.values())
    return named | ({"other": named.get("other", 0) + rest} if rest else {})


def attribute_means(judged: pl.DataFrame) -> dict[str, Any]:
    """As `attributes`, for each by name its `mean` score and how many rows are `judged` on it; {} where there are none.

    Args:
        judged: rows with `parts`.
    """
    parts = judged.select("parts").explode("parts").unnest("parts")
    means = parts.group_by("name").agg(mean=pl.col("score").mean(), judged=pl.col("score").count()).sort("name")
    return {"attributes": {row.pop("name"): row for row in means.to_dicts()}} if means.height else {}


def after_marker(text: str, marker: str | None) -> str | None:
    """What follows the last place of a marker, whatever its case; all of it without one, None where it is missing."""
    if marker is None:
        return text
    places = [match.end() for match in re.finditer(re.escape(marker), text, re.IGNORECASE)]
    return text[places[-1] :] if places else None


def shortened(text: str, width: int = 60) -> str:
    """The beginning of a text on one line, for messages."""
    line = " ".join(text.split())
    return repr(line if len(line) <= width else line[: width - 1] + "…")


def _listed(parts: Mapping[str, float | None]) -> list[dict[str, Any]]:
    return [{"name": name, "score": score} for name, score in sorted(parts.items())]


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"metadata": json.loads(row["metadata"]) if row.get("metadata") else {}}
