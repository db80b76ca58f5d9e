"""Each stage of the loop as a function of versions: known already? return it; else draft, do, check, commit.

`Run` holds what all stages of one run share. prompts, demonstrations, score and relabel are Polars on the driver;
train, evaluate and sample are steps of one launch per iteration (`train_iteration`). Iteration 0 makes the seed model,
iteration i >= 1 trains it on triples@i, made from samples@i, which model@(i-1) drew.

    samples@i -> rewards@i [-> instructions@i] -> triples@i -> models@i -> evaluations@i, samples@(i+1)

Reads and writes through the store. Leaves what decides a version to `identities`, the content of a launch to `plan`,
orchestration and display to `flows`.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.config import LearnedRelabel, RunConfig
from hir_core.config.model_files import check_files
from hir_core.errors import ConfigError
from hir_core.launch.launcher import check_launch, launch
from hir_core.launch.rank import done_file
from hir_core.progress import OnRows, Progress
from hir_core.prompts.load import load_prompts
from hir_core.prompts.mixture import check_mix
from hir_core.prompts.splits import check_leaks
from hir_core.relabelers.demonstrations import demonstrations
from hir_core.relabelers.learned import writing_demonstrations
from hir_core.relabelers.registry import build_relabeler
from hir_core.relabelers.verification import shares, verified
from hir_core.rewards.registry import build_reward
from hir_core.rewards.reward import attribute_means, not_judged_reasons
from hir_core.schemas import SCHEMAS, Evaluations, Triples, as_declared, as_written
from hir_core.stages.evaluation import summarise
from hir_core.stages.identity import Identities, Scored
from hir_core.stages.instruct import InstructionWriting
from hir_core.stages.plan import ANSWERED, COMPLETIONS, Facts, Inputs, Plan, Targets, set_answers_aside, version_model
from hir_core.stages.reward_launch import ScoreLaunch
from hir_core.store.branches import BranchLog
from hir_core.store.draft import Draft
from hir_core.store.files import read_json, read_parts
from hir_core.store.manifest import Identity, Manifest, value_counts
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

NOT_ASKED = "without a verdict, or empty"


@dataclass(frozen=True)
class Outputs:
    """What one launch leaves: the model, its evaluation, and the samples for the next iteration, if there is one."""

    model: VersionRef
    evaluation: VersionRef
    samples: VersionRef | None


class Run:
    """One run: its config, store, reward and relabeler.

    Attributes:
        on_progress: called with what a launch of the run or work between launches reports, a few times per second at
            most.
        line: notes which versions the run uses; whoever calls the stages to the end completes it.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.store = Store(config.run_dir)
        self.branch = BranchLog(config.run_dir, config.branch, config.retention)
        self.on_progress: Callable[[Progress], None] = _ignore
        self.reward = build_reward(config.reward, ScoreLaunch(config, self._run_job))
        self.relabeler = build_relabeler(config.relabel, config.instructions)
        self.identities = Identities(config, self.reward, self.relabeler)

    def table(self, ref: VersionRef) -> pl.DataFrame:
        """A version's rows, its files checked against their digests."""
        return as_declared(SCHEMAS[ref.stage], self.store.table(ref).collect())

    def facts(self, ref: VersionRef) -> dict[str, Any]:
        """The metrics that a version's manifest holds."""
        return dict(self.store.manifest(ref).metrics)

    def made_from(self, ref: VersionRef, stage: str) -> list[Manifest]:
        """The manifests of those versions of a stage that a version is made from."""
        parents = self.store.manifest(ref).parents_of(stage)
        return [self.store.manifest(self.store.resolve(name)) for name in parents]

    # --- on the driver -----------------------------------------------------------------------------------------------

    def check(self) -> pl.DataFrame:
        """Finds what cannot work before anything is written, and returns the prompts.

        Raises:
            ConfigError: launch settings, prompts, references or the model's files are wrong, or test items leak.
        """
        check_launch(self.config.launch)
        check_files(self.config.model)
        if isinstance(self.config.relabel, LearnedRelabel) and self.config.relabel.writer is not None:
            check_files(self.config.relabel.writer, "relabel.writer")
        prompts, _ = self._loaded_prompts
        if self.config.warm_start is not None:
            self._demonstrations(prompts, self.config.warm_start.demonstrations)
        self._writing(prompts)
        return prompts

    def prompts(self) -> VersionRef:
        """Reads the prompts of every source, split into train and test."""
        prompts, rejected = self._loaded_prompts
        sources = {
            "sources": self.config.fingerprint()["prompts"],
            "also": self.config.evaluation.fingerprint()["also"],
        }
        rows_in = prompts.height + sum(rejected.values())
        conversations = prompts.height - prompts["history"].null_count()
        facts = {**sources, **({"conversations": conversations} if conversations else {})}
        return self._commit(self.identities.prompts(prompts), prompts, rows_in, rejected, facts)

    def demonstrations(self, prompts: VersionRef) -> VersionRef | None:
        """Reference answers as triples for the warm start, or None where the run has none."""
        warm = self.config.warm_start
        if warm is None:
            return None
        named = self.identities.demonstrations(prompts, warm.demonstrations)
        if found := self._known(named):
            return found
        return self._commit(named, self._demonstrations(self.table(prompts), warm.demonstrations))

    def score(self, prompts: VersionRef, samples: VersionRef) -> VersionRef:
        """Judges every sample."""
        named = self.identities.rewards(prompts, samples)
        if found := self._known(named):
            return found
        drawn = self.table(samples)
        rewards = self.reward.score(drawn, self.table(prompts), on_rows=self._begin("score", drawn.height))
        right = int((rewards["score"].drop_nulls() >= self.config.relabel.threshold).sum())
        facts = {
            "correct_share": right / max(1, rewards.height),
            "mean_score": rewards["score"].mean(),
            "not_judged": rewards["score"].null_count(),
            "not_judged_reasons": not_judged_reasons(rewards),
            **attribute_means(rewards),
        }
        return self._commit(named, rewards, drawn.height, metrics=facts)

    def relabel(self, prompts: VersionRef, scored: Sequence[Scored]) -> VersionRef:
        """Gives every sample the instruction that it is right under, or counts why it has none.

        Args:
            scored: this iteration's samples and scores last; as many earlier ones before them as `select.replay` says.

        Raises:
            ConfigError: nothing is left to train on.
        """
        scored = scored[-1 - self.config.select.replay :]
        named = self.identities.triples(prompts, scored)
        if found := self._known(named):
            return found
        drawn = pl.concat([self.table(one.samples) for one in scored])
        rewards = pl.concat([self.table(one.rewards) for one in scored])
        told = [self.table(one.instructions) for one in scored if one.instructions is not None]
        written = pl.concat(told) if told else None
        tables, on_rows = (drawn, rewards, self.table(prompts)), self._begin("relabel", drawn.height)
        triples, rejected = self.relabeler.relabel(*tables, self.config.select, written, on_rows=on_rows)
        if triples.is_empty():
            raise ConfigError(
                f"relabel.type={self.relabeler.name} kept none of {drawn.height} samples of {scored[-1].samples} "
                f"({rejected}): warm the model up, make the task easier, select less, or use relabel.type=hindsight, "
                "which learns from wrong ones"
            )
        facts: Facts = {"instructions": value_counts(triples["instruction"])}
        if told:
            facts["written"] = shares(told)
        writing = self._writing(self.table(prompts))
        return self._commit(named, pl.concat([triples, writing]), drawn.height + writing.height, rejected, facts)

    # --- in a launch -------------------------------------------------------------------------------------------------

    def instruct(self, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> VersionRef | None:
        """Has a model write what each sample is a demonstration of, and checks it; None where rules say it."""
        if not isinstance(self.config.relabel, LearnedRelabel):
            return None
        named = self.identities.instructions(prompts, samples, rewards)
        if found := self._known(named):
            return found
        drawn = self.table(samples)
        asked = self.relabeler.judged(drawn, self.table(rewards), self.table(prompts))
        draft, own = self.store.draft(named), self.config.instructions
        drew = self.store.resolve(self.store.manifest(samples).parents_of("models")[0])
        policy = version_model(self.config, self.store, drew)
        made = InstructionWriting(self.config, draft, policy, asked, self._run_job)
        written, weights = made.run()
        rows = verified(asked, written, weights, own, self.config.relabel.margin, self._begin("believe", asked.height))
        draft.write("0", rows)
        left_out = {NOT_ASKED: drawn.height - rows.height} if rows.height < drawn.height else {}
        return draft.commit(rows_in=drawn.height, rejected=left_out, metrics=shares([rows]))

    def train_iteration(
        self,
        prompts: VersionRef,
        triples: VersionRef | None,
        samples: VersionRef | None,
        previous_model: VersionRef | None,
    ) -> Outputs:
        """Trains, evaluates and samples in one launch; does only what no version holds yet.

        A reward that is a model follows in a launch of its own, which scores what this one has left.

        Args:
            triples: what to train on; None where iteration 0 takes the model as it is.
            samples: what the triples were made from; None for demonstrations.
            before: the model to train; None in iteration 0.
        """
        inputs = Inputs(prompts, triples, samples, previous_model)
        # A second model would have no room beside the one that still samples.
        score = set_answers_aside if self.reward.launches else self._finish_evaluation
        plan = Plan(self.config, self.store, inputs, self._wanted(inputs), self.table(prompts), score)
        if not plan.is_done:
            self._launch(plan)
        if self.store.find(plan.targets.evaluation) is None:
            self._score_together(plan)
        return self._outputs(plan.targets)

    def _wanted(self, inputs: Inputs) -> Targets:
        prompts = inputs.prompts
        named = self.identities.model(prompts, inputs.triples, inputs.previous_model)
        model, iteration = f"{named.stage}/{named.id}", named.iteration
        is_last = iteration >= self.config.iterations
        return Targets(
            model=named,
            evaluation=self.identities.evaluation(prompts, model, iteration),
            samples=None if is_last else self.identities.samples(prompts, model, iteration + 1),
        )

    def _launch(self, plan: Plan) -> None:
        check_launch(self.config.launch)  # refused: nothing is written
        for named in plan.targets:
            self.branch.note(named)  # before the first of them is committed
        job_dir = self.config.run_dir / "launches" / f"{plan.targets.model.iteration:04d}"
        try:
            plan.write(job_dir)
            self._run_job(job_dir, lambda number: plan.commit(number, read_json(done_file(job_dir, number))))
        finally:
            plan.discard_empty_drafts()
            shutil.rmtree(job_dir / "model", ignore_errors=True)  # it is a version now, or is made again

    def _run_job(self, job_dir: Path, on_step: Callable[[int], None] | None = None) -> None:
        self.on_progress(Progress("launch"))
        launch(job_dir, self.config.launch, on_progress=self.on_progress, on_step=on_step)

    def _begin(self, step: str, rows: int) -> OnRows:
        """Says that work on the driver begins, and returns what is to be told how far it is."""
        started = time.monotonic()

        def tell(done: int, total: int) -> None:
            self.on_progress(Progress(step, done, total, "samples", seconds=time.monotonic() - started))

        tell(0, rows)
        return tell

    def _score_together(self, plan: Plan) -> None:
        """Scores the answers that were set aside; in the same launch the new samples, for `score` to find."""
        draft = self.store.draft(plan.targets.evaluation)
        texts = read_parts(draft.path / COMPLETIONS).select("prompt_id", "completion")
        drawn = None if plan.targets.samples is None else self.store.find(plan.targets.samples)
        if drawn is not None:
            texts = pl.concat([texts, self.table(drawn).select("prompt_id", "completion")])
        self._begin("score", texts.height)  # the launch reports its own progress
        self.reward.judge_ahead(texts, plan.prompts)
        self._finish_evaluation(draft, read_json(draft.path / ANSWERED))

    def _finish_evaluation(self, draft: Draft, facts: Facts) -> None:
        """Scores the answers that the evaluate step left in the draft, and commits them with their summary."""
        (model,), (prompts_name,) = draft.identity.parents_of("models"), draft.identity.parents_of("prompts")
        prompts = self.store.resolve(prompts_name)
        asked = self.table(prompts)
        answers = read_parts(draft.path / COMPLETIONS).sort("prompt_id")
        judged = self.reward.judge(answers, asked, on_rows=self._begin("score", answers.height))
        judged = judged.join(asked.select("prompt_id", "task"), on="prompt_id", how="left")
        rows = judged.with_columns(model=pl.lit(model)).select(Evaluations.column_names()).sort("prompt_id")
        draft.write("0", rows)
        summary = summarise(judged, asked, self.config.relabel.threshold, compares=self.reward.compares)
        summary["not_judged_reasons"] = not_judged_reasons(judged)
        draft.commit(rows_in=asked.filter(pl.col("split") == "test").height, metrics={**facts, **summary})

    def _outputs(self, targets: Targets) -> Outputs:
        model, evaluation = self._known(targets.model), self._known(targets.evaluation)
        samples = None if targets.samples is None else self._known(targets.samples)
        assert model is not None
        assert evaluation is not None
        return Outputs(model, evaluation, samples)

    def _known(self, named: Identity) -> VersionRef | None:
        """The version of this identity, if it is there; noted as one that the run uses either way."""
        self.branch.note(named)
        return self.store.find(named)

    # --- prompts and versions ----------------------------------------------------------------------------------------

    @cached_property
    def _loaded_prompts(self) -> tuple[pl.DataFrame, dict[str, int]]:
        prompts, rejected = load_prompts(self.config.prompts, self.config.evaluation.also)
        check_leaks(prompts)
        self.reward.check_prompts(prompts)
        for split in ("train", "test"):
            if prompts.filter(pl.col("split") == split).is_empty() and (split == "test" or self.config.iterations):
                raise ConfigError(
                    f"prompts: no {split} prompts among {prompts.height}: change test_share or add a source"
                )
        sampling = self.config.sampling
        if sampling.mix is not None and sampling.prompts is not None and self.config.iterations:
            check_mix(prompts.filter(pl.col("split") == "train"), sampling.prompts, sampling.mix)
        return prompts, rejected

    def _demonstrations(self, prompts: pl.DataFrame, count: int) -> pl.DataFrame:
        shown = demonstrations(prompts, self.config.instructions, count, self.config.seed)
        return pl.concat([shown, self._writing(prompts)])

    def _writing(self, prompts: pl.DataFrame) -> pl.DataFrame:
        """Triples that show the model how to write instructions; none unless the config asks for them."""
        learned = self.config.relabel
        if not isinstance(learned, LearnedRelabel):
            return pl.DataFrame(schema=Triples.create_empty().schema)
        return writing_demonstrations(prompts, learned, self.config.instructions, self.config.seed)

    def _commit(
        self,
        named: Identity,
        rows: pl.DataFrame,
        rows_in: int | None = None,
        rejected: dict[str, int] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> VersionRef:
        if found := self._known(named):
            return found
        draft = self.store.draft(named)
        draft.write("0", as_written(SCHEMAS[named.stage], rows))
        return draft.commit(rows_in=rows_in, rejected=rejected, metrics=metrics)


def _ignore(_: Progress) -> None:
    """Stands in where nobody follows the run."""
