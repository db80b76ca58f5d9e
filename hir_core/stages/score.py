"""The stage `score`: a verdict on every sample, and on every answer of an evaluation.

Reads samples, a slice at a time, or the answers that an evaluation left in its draft. Writes the versions `rewards@i`
and `evaluations@i`. What a verdict means for training is decided in `relabel`.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from hir_core.progress import in_slice
from hir_core.relabelers.shares import PROBABILITY, share
from hir_core.rewards.reward import attribute_means, unscored_reasons
from hir_core.schemas import Evaluations
from hir_core.stages.evaluation import summarise
from hir_core.stages.output_metrics import is_correct, output_metrics, pass_at
from hir_core.stages.plan import ANSWERED, COMPLETIONS, SAMPLED, Plan, too_long
from hir_core.stages.run import Run
from hir_core.store.draft import Draft
from hir_core.store.files import list_parts, read_json, read_parts
from hir_core.store.slices import SLICE_BYTES, SampleSlices
from hir_core.store.version import VersionRef

_REASON_IF_UNSCORED = pl.when(pl.col("score").is_null()).then("reason").alias("reason")


def score_samples(run: Run, prompts: VersionRef, samples: VersionRef) -> VersionRef:
    """The rewards of all samples of an iteration."""
    identity = run.identities.rewards(prompts, samples)
    if version := run.find(identity):
        return version
    prompt_rows, draft, judged = run.table(prompts), run.store.draft(identity), []
    draft.delete_parts()
    with draft.working_folder() as folder:
        slice_bytes = SLICE_BYTES if run.reward.judges_in_slices else None
        drawn = ("model", "k", PROBABILITY) if run.config.sampling.distinct else ()
        columns = ("sample_id", "prompt_id", "completion", *drawn)
        slices = SampleSlices(run.store.parts(samples), columns, folder, slice_bytes)
        counter, done = run.row_counter("score", slices.rows), 0
        for number, sampled in enumerate(slices):
            on_rows = counter if slices.count == 1 else in_slice(counter, done, slices.rows)
            rewards = run.reward.score(answers_of(run, sampled), prompt_rows, on_rows=on_rows)
            draft.write(slices.part_name(number), rewards)
            of_prompts = rewards.join(sampled.drop("completion"), on="sample_id", maintain_order="left")
            shares = [share().alias("share")] if drawn else []
            judged.append(of_prompts.select("prompt_id", "outcome", "score", _REASON_IF_UNSCORED, "parts", *shares))
            done += sampled.height
    metrics = score_metrics(pl.concat(judged), run.config.relabel.threshold)
    return draft.commit(rows_in=slices.rows, metrics=metrics)


def answers_of(run: Run, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with completions as rewards see them: without the model's thinking."""
    return rows.with_columns(run.relabeler.answers(rows["completion"]))


def score_metrics(rewards: pl.DataFrame, threshold: float) -> dict[str, Any]:
    """The measurements of rewards for their manifest.

    Args:
        rewards: where samples were drawn without replacement with the `share` of the policy that each stands for:
            `correct_share`, `mean_score`, `judged_share` and pass@1 are then the policy's, and all samples together are
            the only other pass@k.
    """
    passes, measured = pass_at(rewards, threshold), {}
    if "share" not in rewards.columns:
        correct = int((rewards["score"].drop_nulls() >= threshold).sum()) / max(1, rewards.height)
        mean = rewards["score"].mean()
    else:
        share, score = pl.col("share"), pl.col("score")
        total, judged, right, of_scores = rewards.select(
            total=share.sum(),
            judged=share.filter(score.is_not_null()).sum(),
            right=share.filter(is_correct(threshold)).sum(),
            of_scores=(share * score).sum(),
        ).row(0)
        correct, mean = right / total if total else 0.0, of_scores / judged if judged else None
        measured = {"judged_share": judged / total if total else 0.0}
        passes = {"1": correct} | dict(list(passes.items())[1:][-1:]) if passes else {}
    return {
        "correct_share": correct,
        "mean_score": mean,
        **measured,
        "pass_at": passes,
        "no_answer": int((rewards["outcome"] == "no_answer").sum()),
        "not_judged": int((rewards["outcome"] == "not_judged").sum()),
        "unscored_reasons": unscored_reasons(rewards),
        **attribute_means(rewards),
    }


def score_evaluation(run: Run, draft: Draft, metrics: dict[str, Any]) -> None:
    """Scores the answers that the evaluate step left in a draft, and commits them with their summary.

    Args:
        draft: of an evaluation; its answers are complete.
        metrics: measured by the evaluate step.
    """
    (model,), (prompts_name,) = draft.identity.parents_of("models"), draft.identity.parents_of("prompts")
    prompts = run.table(run.store.resolve(prompts_name))
    answers = read_parts(draft.path / COMPLETIONS).sort("prompt_id")
    judged = run.reward.judge(answers_of(run, answers), prompts, on_rows=run.row_counter("score", answers.height))
    judged = judged.with_columns(answers["completion"])
    judged = judged.join(prompts.select("prompt_id", "task"), on="prompt_id", how="left")
    rows = judged.with_columns(model=pl.lit(model)).select(Evaluations.column_names()).sort("prompt_id")
    draft.write("0", rows)
    summary = summarise(judged, prompts, run.config.relabel.threshold, uses_references=run.reward.uses_references)
    outputs = output_metrics(list_parts(draft.path / COMPLETIONS))
    summary |= {"unscored_reasons": unscored_reasons(judged), "cut_off": outputs["cut_off"], "empty": outputs["empty"]}
    if list_parts(draft.path / SAMPLED):
        drawn = run.reward.judge(answers_of(run, read_parts(draft.path / SAMPLED)), prompts)
        measured = score_metrics(drawn, run.config.relabel.threshold)
        summary["sampled"] = {name: measured[name] for name in ("correct_share", "mean_score", "pass_at")}
    draft.commit(
        rows_in=prompts.filter(pl.col("split") == "test").height,
        rejected=too_long(metrics, 1),
        metrics={**metrics, **summary},
    )


def score_after_launch(run: Run, plan: Plan) -> None:
    """Scores, by a reward that needs a launch of its own, what the launch of a plan has left.

    The new samples are scored in the same launch as the answers, so that `score_samples` finds their scores.
    """
    draft = run.store.draft(plan.targets.evaluation)
    columns = ["prompt_id", "completion"]
    folders = [draft.path / name for name in (COMPLETIONS, SAMPLED) if list_parts(draft.path / name)]
    texts = pl.concat([read_parts(folder, columns) for folder in folders])
    samples = None if plan.targets.samples is None else run.store.find(plan.targets.samples)
    if samples is not None:
        texts = pl.concat([texts, run.table(samples).select(columns)])
    run.row_counter("score", texts.height)  # shows the step; its launch reports how far it is
    run.reward.judge_ahead(answers_of(run, texts), plan.prompts)
    score_evaluation(run, draft, read_json(draft.path / ANSWERED))
