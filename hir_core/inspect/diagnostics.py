"""Diagnosis of a run: whether a model distinguishes the two instructions, and what is odd about its outputs.

Learning from wrong outputs needs the first: where a model does not distinguish the instruction of correct outputs from
that of wrong ones, an output that it is trained on under one becomes as likely under the other. Reads manifests.
"""

from __future__ import annotations

import math

from hir_core.store.manifest import Manifest

NEARLY = 0.95
FROM_ITERATION = 2
"""In the first iteration a model only begins to learn what the instructions mean."""

MANY_CUT_OFF = 0.1
"""Share of outputs that are cut off, from which on the limit of new tokens is too low."""


FEW_OUTPUTS = 16
"""So few may all be wrong by chance."""
MANY_EMPTY = 0.1
"""Share of empty outputs that is worth a word."""
MANY_REPEATED, FEW_CORRECT = 0.75, 0.5
"""Where so many samples repeat others, and so few are correct, a model has stopped to try."""
MANY_UNSCORED = 0.5
"""Share of outputs without a score, from which on a run learns from the minority."""


def cut_off_advice(version: Manifest) -> str | None:
    """Which share of the outputs of samples or an evaluation was cut off, and what to set; None where few were.

    Args:
        version: the manifest of samples or of an evaluation.
    """
    share = version.metrics.get("cut_off", 0) / (version.rows or 1)
    if share < MANY_CUT_OFF:
        return None
    is_sampled = version.stage == "samples"
    limit = (version.config["sampling"] if is_sampled else version.config)["max_new_tokens"]
    return f"{share:.0%} cut off at {limit} tokens: raise {'sampling.' if is_sampled else ''}max_new_tokens"


def variety_advice(samples: Manifest, rewards: Manifest | None) -> str | None:
    """Which share of an iteration's samples is empty, or only repeats others; None where it is no large one.

    Samples that repeat a correct one are what a model that has learned its task writes.

    Args:
        rewards: of these samples, where they are scored.
    """
    rows, metrics = samples.rows or 0, samples.metrics
    if rows < FEW_OUTPUTS:
        return None
    if (empty := metrics.get("empty", 0) / rows) >= MANY_EMPTY:
        return f"{empty:.0%} of the outputs are empty"
    correct = 1.0 if rewards is None else rewards.metrics.get("correct_share", 1.0)
    repeated = metrics.get("repeated", 0) / rows
    if repeated < MANY_REPEATED or correct >= FEW_CORRECT:
        return None
    return (
        f"{repeated:.0%} only repeat another output of their prompt, and {correct:.0%} are correct: raise "
        "sampling.temperature, or lower training.learning_rate"
    )


def graded_score(version: Manifest) -> float | None:
    """The mean score of an evaluation or of rewards, where scores are more than right and wrong; else None."""
    of_all = version.metrics.get("overall", version.metrics)
    mean, judged = of_all.get("mean_score"), of_all.get("judged")
    share = of_all.get("accuracy", of_all.get("correct_share"))
    if mean is None or share is None:
        return None
    rows = version.rows or 0
    if "judged_share" in of_all:
        judged = of_all["judged_share"] * rows
    elif judged is None:
        judged = rows - of_all.get("no_answer", 0) - of_all.get("not_judged", 0)
    right = share * of_all.get("items", rows)
    return float(mean) if abs(mean * judged - right) > 1e-6 * max(1.0, right) else None


def too_long_advice(version: Manifest) -> str | None:
    """How many prompts or triples were left out because the model's context is too short; None where none was.

    Args:
        version: the manifest of samples, of an evaluation or of a model.
    """
    count = version.metrics.get("too_long", 0)
    rows = "triple" if version.stage == "models" else "prompt"
    return f"{count:,} {rows}{'s' * (count != 1)} left out: too long for the model's context" if count else None


def reward_advice(rewards: Manifest) -> str | None:
    """What is odd about the scores of an iteration's samples, and what to look at; None where nothing is.

    Args:
        rewards: the manifest of rewards.
    """
    metrics, rows = rewards.metrics, rewards.rows or 0
    unscored = metrics.get("no_answer", 0) + metrics.get("not_judged", 0)
    if rows < FEW_OUTPUTS or metrics.get("correct_share") is None:
        return None
    if unscored > MANY_UNSCORED * rows:
        (reason, count), *_ = metrics.get("unscored_reasons", {"no reason": unscored}).items()
        return f"{unscored / rows:.0%} of the outputs have no score, {count:,} of them because of: {reason}"
    if metrics["correct_share"] == 0:
        mean, threshold = metrics.get("mean_score") or 0.0, rewards.config.get("threshold")
        graded = f": their mean score is {mean:.3g}, and relabel.threshold {threshold:g}" if mean > 0 else ""
        return f"none of {rows:,} outputs is correct{graded}"
    return f"all of {rows:,} outputs are correct: nothing is left to learn" if metrics["correct_share"] == 1 else None


def distinguishes_instructions(model: Manifest, triples: Manifest) -> bool | None:
    """Whether the contrastive loss of a model's last pass over its triples is well below log 2.

    None where the loss does not tell: in the first iteration, where there were not exactly two instructions, and where
    not every demonstration had a contrast.

    The contrastive term of an output is log 2 where the output is equally likely under both instructions, whether
    log-probabilities P are summed or averaged per token, and with or without smoothing: logsumexp(P, P) - P, see
    `hir_core.training.losses.contrastive`.

    Args:
        model: the manifest of a model.
        triples: the manifest of the triples that it was trained on.
    """
    training, contrast = model.config.get("training", {}), model.metrics.get("contrastive")
    are_contrasted = training.get("contrastive", 0) > 0 and training.get("contrast") == "instructions"
    if model.iteration < FROM_ITERATION or contrast is None or not are_contrasted:
        return None
    demonstrations = triples.metrics.get("instructions", {})
    if len(demonstrations) != 2 or triples.metrics.get("contrasted") != sum(demonstrations.values()):
        return None
    return bool(contrast < NEARLY * math.log(2))
