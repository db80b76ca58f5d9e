"""The stage `instruct`: a model writes the instruction that each sample follows, and checks verify it.

The writer's launch completes one request per sample; the policy's launch scores the outputs under what was written.
Where the policy is the writer, both are steps of one launch. Parts lie inside the draft of the version, so that a
killed launch loses only what was not written yet. Writes the version `instructions@i`; leaves the checks to
`relabelers.verification`. Runs only where the relabeler is `learned`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl

from hir_core.config import LearnedRelabel, RunConfig
from hir_core.launch.job_spec import JobSpec, LogprobStep, SampleStep, Step
from hir_core.relabelers.learned import writer_query
from hir_core.relabelers.verification import verification_metrics, verify_all
from hir_core.schemas import Logprobs, Samples, as_text
from hir_core.stages.plan import StoredModel, version_model
from hir_core.stages.run import Run
from hir_core.store.draft import Draft
from hir_core.store.files import list_parts, read_parts, write_json, write_table
from hir_core.store.version import VersionRef

WRITTEN, SCORED = ".written", ".logprobs"
"""Folders inside the draft for what the ranks have finished; hidden, so that they do not become part of the version."""
NOT_ASKED = "without a verdict, or empty"


def write_instructions(run: Run, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> VersionRef | None:
    """What a model wrote as the instruction of each sample, and whether it is verified; None where rules relabel."""
    settings = run.relabeler.instruction_model
    if settings is None:
        return None
    identity = run.identities.instructions(prompts, samples, rewards)
    if version := run.find(identity):
        return version
    sampled = run.table(samples)
    asked = run.relabeler.judged(sampled, run.table(rewards), run.table(prompts))
    asked = asked.with_columns(run.relabeler.answers(asked["completion"]))
    draft = run.store.draft(identity)
    (policy,) = run.store.manifest(samples).parents_of("models")
    model = version_model(run.config, run.store, run.store.resolve(policy))
    written, logprobs = InstructionWriting(run.config, settings, draft, model, asked, run.run_job).run()
    counter = run.row_counter("verify", asked.height)
    rows = verify_all(asked, written, logprobs, run.config.instructions, settings.margin, counter)
    draft.write("0", rows)
    rejected = {NOT_ASKED: sampled.height - rows.height} if rows.height < sampled.height else {}
    return draft.commit(rows_in=sampled.height, rejected=rejected, metrics=verification_metrics([rows]))


class InstructionWriting:
    """The launches that one version of instructions takes.

    Args:
        policy: the model that drew the samples.
        asked: a row per sample to write about: `sample_id`, `query`, `history`, `completion`, `completion_ids`,
            `is_correct`.
        run_job: runs the job in a folder to its end.
    """

    def __init__(
        self,
        config: RunConfig,
        settings: LearnedRelabel,
        draft: Draft,
        policy: StoredModel,
        asked: pl.DataFrame,
        run_job: Callable[[Path], None],
    ) -> None:
        self.config, self.settings = config, settings
        self.draft, self.policy, self.asked, self._run_job = draft, policy, asked, run_job

    def run(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """What was written, as Samples whose `prompt_id` is the sample that it is about, and the Logprobs under it."""
        for name in (WRITTEN, SCORED):
            (self.draft.path / name).mkdir(exist_ok=True)
        writer = self.settings.writer
        if writer is None:
            self._launch("instruct", self.policy, self._write_step, self._logprob_step)
        else:
            self._launch("write", StoredModel(writer), self._write_step)
            self._launch("logprobs", self.policy, self._logprob_step)
        written, scored = (self.draft.path / name for name in (WRITTEN, SCORED))
        return (
            read_parts(written) if list_parts(written) else pl.DataFrame(schema=Samples.create_empty().schema),
            read_parts(scored) if list_parts(scored) else pl.DataFrame(schema=Logprobs.create_empty().schema),
        )

    def _launch(self, name: str, loaded: StoredModel, *steps: Callable[[Path], Step]) -> None:
        """Runs one launch, unless an earlier attempt has seen its end."""
        ended = self.draft.path / f".{name}-ended.json"
        if ended.exists():
            return
        job_dir = self.config.run_dir / "launches" / f"{self.draft.ref.iteration:04d}-{name}"
        job_dir.mkdir(parents=True, exist_ok=True)
        settings = self.config.deepspeed_settings()
        made = tuple(step(job_dir) for step in steps)
        spec = JobSpec(**loaded._asdict(), seed=self.config.seed, deepspeed=settings, steps=made)
        spec.write(job_dir)
        self._run_job(job_dir)
        write_json(ended, {})

    def _write_step(self, job_dir: Path) -> SampleStep:
        rows = self.asked.select("query", "history", "completion", "is_correct").iter_rows()
        queries = [
            writer_query(self.settings, as_text(history, query), output, is_correct)
            for query, history, output, is_correct in rows
        ]
        requests = (job_dir / "requests-write.parquet").resolve()
        keys = self.asked.select(pl.col("sample_id").alias("prompt_id"))
        asked = keys.with_columns(query=pl.Series(queries, dtype=pl.String), history=None)
        write_table(requests, asked.sort("prompt_id"))
        sampling, writer = self.config.sampling, self.settings.writer
        return SampleStep(
            name="write",
            requests=requests,
            output=(self.draft.path / WRITTEN).resolve(),
            version=str(self.draft.ref),
            model=(writer or self.policy.model).source,
            instruction=self.settings.instruction,
            k=1,
            temperature=self.settings.temperature,
            max_new_tokens=self.settings.max_new_tokens,
            batch_tokens=sampling.batch_tokens,
            zero3_weights=sampling.zero3_weights,
            write_every_s=sampling.write_every_s,
            iteration=self.draft.ref.iteration,
            keeps_thinking=False,
        )

    def _logprob_step(self, job_dir: Path) -> LogprobStep:
        requests = (job_dir / "requests-logprobs.parquet").resolve()
        write_table(requests, self.asked.select("sample_id", "query", "history", "completion_ids").sort("sample_id"))
        return LogprobStep(
            requests=requests,
            written=(self.draft.path / WRITTEN).resolve(),
            output=(self.draft.path / SCORED).resolve(),
            batch_tokens=self.config.sampling.scored_tokens,
            logits_chunk=self.config.training.logits_chunk,
            write_every_s=self.config.sampling.write_every_s,
        )
