"""Launches that score texts by a reward model, and the scores that they leave: a run scores equal texts once.

    launches/score-<hash>/           job.json, requests, logs; the hash is that of what decides the scores
    launches/score-<hash>/scores/    Scores parts: what is known; the ranks add theirs as they finish them

A launch that was killed loses only what its ranks had not written yet. What the scores mean is left to the rewards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from hir_core.config import RunConfig
from hir_core.launch.job_spec import JobSpec, ScoreStep
from hir_core.rewards.reward import Verdict
from hir_core.rewards.reward_model import RewardModel
from hir_core.schemas import Scores, content_key
from hir_core.store.files import finished_parts, list_parts, read_parts, write_part, write_table
from hir_core.store.manifest import canonical_json

MERGED = "all"
"""Name of the part into which the parts of earlier launches are merged."""


class ScoreLaunch:
    """Scores the texts that no earlier launch of this run has scored.

    Args:
        run_job: runs the job in a folder to its end.
    """

    def __init__(self, config: RunConfig, run_job: Callable[[Path], None]) -> None:
        self.config, self._run_job = config, run_job

    def __call__(self, reward: RewardModel, completions: Sequence[str], queries: Sequence[str]) -> list[Verdict]:
        """One verdict per completion of its query."""
        folder = self._folder(reward)
        texts = {content_key(*text): text for text in zip(queries, completions, strict=True)}
        known = _read(folder / "scores")
        missing = {key: text for key, text in texts.items() if key not in known}
        if missing:
            self._write_job(folder, reward, missing)
            self._run_job(folder)
            _merge(folder / "scores")
            known = _read(folder / "scores")
        return [known[content_key(*text)] for text in zip(queries, completions, strict=True)]

    def _folder(self, reward: RewardModel) -> Path:
        fingerprint = canonical_json([reward.fingerprint(), self.config.is_bf16])
        return self.config.run_dir / "launches" / f"score-{hashlib.sha256(fingerprint.encode()).hexdigest()[:8]}"

    def _write_job(self, folder: Path, reward: RewardModel, texts: dict[str, tuple[str, str]]) -> None:
        scores, requests = (folder / "scores").resolve(), (folder / "requests.parquet").resolve()
        scores.mkdir(parents=True, exist_ok=True)
        rows = [(key, query, completion) for key, (query, completion) in sorted(texts.items())]
        write_table(requests, pl.DataFrame(rows, schema=["key", "query", "completion"], orient="row"))
        settings = reward.config
        step = ScoreStep(
            requests=requests,
            output=scores,
            template=settings.template,
            label=reward.label,
            activation=settings.activation,
            batch_tokens=settings.batch_tokens,
            write_every_s=settings.write_every_s,
        )
        JobSpec(
            model=reward.model, seed=self.config.seed, deepspeed=self.config.deepspeed_settings(), steps=(step,)
        ).write(folder)


def _read(scores: Path) -> dict[str, Verdict]:
    if not finished_parts(scores):
        return {}
    return {key: Verdict(score, reason) for key, score, reason in read_parts(scores, Scores.column_names()).iter_rows()}


def _merge(scores: Path) -> None:
    """Merges all parts into one. Killed in between, it leaves rows twice, with equal content."""
    parts = list_parts(scores)
    kept = write_part(scores, MERGED, read_parts(scores).unique("key", keep="first", maintain_order=True))
    for path in parts:
        if path != kept:
            path.unlink()
