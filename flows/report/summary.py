"""The beginning of a report: what happened in the run, in a few sentences and key figures. Reads a report's values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flows.report.cost_charts import job_seconds
from flows.terminal.formatting import NOTHING, accuracy, clipped, duration, number, size
from hir_core.inspect.report import Report

TASKS_SHOWN = 3


def lead(report: Report) -> str:
    """The first sentence: which model, trained for how long, went from which accuracy to which, on what prompts."""
    summaries = [(n, evaluation.overall) for n, evaluation in report.evaluations.items()]
    summaries = [(n, summary) for n, summary in summaries if summary.get("accuracy") is not None]
    prompts = report.prompts
    if not summaries and prompts is None:
        return "This run has no prompts yet."
    tasks = list(prompts.tasks) if prompts else []
    if not summaries:
        return (
            f"{number(prompts.rows if prompts else 0)} prompts{_of_tasks(tasks)} are there; no model was evaluated yet."
        )
    (_, first), (iterations, last) = summaries[0], summaries[-1]
    items = f"{number(last['items'])} " if last.get("items") is not None else ""
    asked = f" on {items}unseen prompts{_of_tasks(last.get('tasks') or tasks)}"
    if len(summaries) == 1:
        return f"Before its first iteration {model_name(report)} has an accuracy of {accuracy(last)}{asked}."
    verb, doubt = "went", "; the two intervals overlap, so this may be chance"
    if (last.get("low") or 0) > (first.get("high") or 0):
        verb, doubt = "rose", ""
    elif (last.get("high") or 0) < (first.get("low") or 0):
        verb, doubt = "fell", ""
    when = f"In {iterations} iteration{'' if iterations == 1 else 's'} ({duration(report.seconds or 0)})"
    moved = f"{verb} from {accuracy(first)} to {accuracy(last)}{asked}{doubt}"
    return f"{when}, the accuracy of {model_name(report)} {moved}."


def remarks(report: Report) -> list[str]:
    """What a reader must know to judge the accuracies."""
    sentences = []
    last = list(report.evaluations.values())[-1].overall if report.evaluations else {}
    baseline = last.get("majority_baseline")
    if baseline is not None:
        sentences.append(f"Always giving the most frequent answer would reach {baseline:.3f}.")
    if report.answers:
        right, wrong = number(report.answers.became_right), number(report.answers.became_wrong)
        sentences.append(f"From the first to the last evaluation {right} answers became right and {wrong} wrong.")
    if no_answer := last.get("no_answer"):
        sentences.append(f"{number(no_answer)} of the last completions name no answer at all; they count as not right.")
    if not_judged := last.get("not_judged"):
        sentences.append(f"{number(not_judged)} of the last answers could not be judged; they count as not right.")
    blind = [str(n) for n, model in report.models.items() if model.tells_apart is False]
    if blind:
        sentences.append(
            f"After iteration{'' if len(blind) == 1 else 's'} {', '.join(blind)} the model hardly told the two "
            "instructions apart: an output was about as likely under either."
        )
    sentences += _of_samples(report)
    samples, evaluations = list(report.samples.values())[-1:], list(report.evaluations.values())[-1:]
    sentences += [f"The last samples: {one.cut_off_advice}." for one in samples if one.cut_off_advice]
    sentences += [f"The last test answers: {one.cut_off_advice}." for one in evaluations if one.cut_off_advice]
    sentences += [f"The last samples: {one.advice}." for one in list(report.rewards.values())[-1:] if one.advice]
    if report.iterations and report.iterations[-1].model is None:
        begun = report.iterations[-1].iteration
        sentences.append(f"Iteration {begun} has begun but has no model yet, so the accuracies do not include it.")
    return sentences


def _of_samples(report: Report) -> Iterator[str]:
    """How many of the last sampled prompts have a correct sample, the mean score, and how varied the samples are."""
    rewards = list(report.rewards.values())[-1:]
    for last in rewards:
        if len(last.pass_at) > 1:
            (_, single), *_, (k, best) = last.pass_at.items()
            yield (
                f"Of the prompts that were sampled last, {best:.1%} have a correct one among {k} samples (pass@{k}), "
                f"and a single sample is correct in {single:.1%} (pass@1)."
            )
        if last.graded_mean is not None:
            yield f"The mean score of the last samples is {last.graded_mean:.3f}."
    for evaluation in list(report.evaluations.values())[-1:]:
        if evaluation.graded_mean is not None:
            yield f"The mean score of the last test answers is {evaluation.graded_mean:.3f}."
        if evaluation.sampled is not None:
            *_, (k, best) = evaluation.sampled["pass_at"].items()
            yield (
                f"Of the sampled answers to test prompts {evaluation.sampled['correct_share']:.1%} are correct, and "
                f"{best:.1%} of these prompts have a correct one among {k} (pass@{k})."
            )
    entropies = [-one.mean_logprob for one in report.samples.values() if one.mean_logprob is not None]
    if len(entropies) > 1:
        yield (
            f"The entropy of a token, estimated from the samples, went from {entropies[0]:.3f} to {entropies[-1]:.3f} "
            "nats: the lower it is, the more alike the samples of a prompt are."
        )


def key_figures(report: Report) -> list[tuple[str, str]]:
    """The few numbers that describe a run: each a name and a value with its unit."""
    relabeled = [triples for n, triples in report.triples.items() if n > 0]
    judged = sum(triples.judged_outputs or 0 for triples in relabeled)
    used = sum((triples.judged_outputs or 0) * (triples.outputs_with_gradient or 0.0) for triples in relabeled)
    tokens = sum(model.tokens or 0 for model in report.models.values())
    return [
        ("samples generated", number(sum(samples.rows for samples in report.samples.values()))),
        ("of the distinct judged outputs, learned from", f"{used / judged:.1%}" if judged else NOTHING),
        ("tokens read in training", number(tokens or None)),
        ("from first to last commit", NOTHING if report.seconds is None else duration(report.seconds)),
        ("of this, training, evaluating and sampling", duration(job_seconds(report))),
        ("on disk", size(sum(version.bytes for version in report.versions))),
    ]


def model_name(report: Report) -> str:
    """The first model in words: its source, or how it was made, and its number of parameters."""
    models = (version.config for version in report.versions if version.stage == "models")
    config: dict[str, Any] = next((fingerprint["model"] for fingerprint in models if fingerprint.get("model")), {})
    parameters = next((model.save.get("parameters") for model in report.models.values()), None)
    of_parameters = f" of {number(parameters)} parameters" if parameters else ""
    if config.get("type") == "scratch":
        return f"a {config.get('architecture', 'model')}{of_parameters} trained from scratch"
    if config.get("source"):
        return clipped(str(config["source"]), 80) + (f" ({number(parameters)} parameters)" if parameters else "")
    return f"a model{of_parameters}" + (" from a GGUF file" if config.get("type") == "gguf" else "")


def _of_tasks(names: list[str]) -> str:
    shown = ", ".join(clipped(name, 60) for name in names[:TASKS_SHOWN])
    more = f" and {len(names) - TASKS_SHOWN} more tasks" if len(names) > TASKS_SHOWN else ""
    return f" of {shown}{more}" if names else ""
