"""What happened in a run, in words: the first thing that its report says. Reads what `hir_core.reporting` found."""

from __future__ import annotations

from typing import Any

from flows.report.cost_charts import step_seconds
from flows.terminal.formatting import accuracy, clipped, duration, number, size
from hir_core.inspect.report import each, seconds_between

Facts = dict[str, Any]
NAMES_SHOWN = 3


def lead(facts: Facts) -> str:
    """One sentence: what model, on what, from where to where, in how many iterations and how long."""
    tested = [(n, one["overall"]) for n, one in each(facts["rounds"], "evaluation")]
    tested = [(n, one) for n, one in tested if one.get("accuracy") is not None]
    if not tested:
        return _begun(facts)
    (_, first), (last_n, last) = tested[0], tested[-1]
    asked = _tasks(last.get("tasks") or list((facts["prompts"] or {"tasks": {}})["tasks"]))
    items = f" on {number(last['items'])} unseen prompts" if last.get("items") is not None else ""
    if len(tested) == 1:
        return f"Before its first iteration {model_name(facts)} has an accuracy of {accuracy(last)}{items}{asked}."
    took = f"In {_count(last_n, 'iteration')} ({duration(_seconds(facts))})"
    moved = f"{_verb(first, last)} from {accuracy(first)} to {accuracy(last)}{items}{asked}"
    return f"{took}, the accuracy of {model_name(facts)} {moved}."


def remarks(facts: Facts) -> list[str]:
    """What else must be known to read that number."""
    found = []
    tested = [one["overall"] for _, one in each(facts["rounds"], "evaluation")]
    baseline = tested[-1].get("majority_baseline") if tested else None
    if baseline is not None:
        found.append(f"Always giving the most frequent answer would reach {baseline:.3f}.")
    if answers := facts["answers"]:
        right, wrong = answers["became_right"], answers["became_wrong"]
        found.append(
            f"From the first to the last evaluation {number(right)} answers became right and {number(wrong)} wrong."
        )
    not_judged = tested[-1].get("not_judged") if tested else 0
    if not_judged:
        found.append(f"{number(not_judged)} of the last answers could not be judged; they count as not right.")
    blind = [n for n, one in each(facts["rounds"], "model") if one["tells_apart"] is False]
    if blind:
        found.append(
            f"After {_iterations(blind)} the model hardly told the two instructions apart: an output was about as "
            "likely under either."
        )
    if facts["rounds"] and facts["rounds"][-1]["model"] is None:
        found.append(f"Iteration {facts['rounds'][-1]['iteration']} has begun and is not in these numbers.")
    return found


def key_figures(facts: Facts) -> list[tuple[str, str]]:
    """The few numbers that describe a run: name and value with its unit."""
    samples = [one for _, one in each(facts["rounds"], "samples")]
    trained = [one for n, one in each(facts["rounds"], "triples") if n > 0]
    rows, used = sum(one["rows"] for one in samples), sum(one["samples_trained"] or 0 for one in trained)
    given = sum(one["samples"] or 0 for one in trained)
    tokens = sum(one["tokens"] or 0 for _, one in each(facts["rounds"], "model"))
    return [
        ("samples drawn", number(rows)),
        ("of them trained on", f"{used / given:.1%}" if given else number(None)),
        ("tokens read in training", number(tokens or None)),
        ("first to last commit", duration(_seconds(facts)) if facts["began"] else number(None)),
        ("of it in the launches' steps", duration(step_seconds(facts))),
        ("on disk", size(sum(version["bytes"] for version in facts["versions"]))),
    ]


def model_name(facts: Facts) -> str:
    """The first model in words."""
    laws = [one["config"].get("model") for one in facts["versions"] if one["stage"] == "models"]
    fingerprint = next((fingerprint for fingerprint in laws if fingerprint), {})
    sizes = [one["save"].get("parameters") for _, one in each(facts["rounds"], "model")]
    size_of = f" of {number(sizes[0])} parameters" if sizes and sizes[0] else ""
    if fingerprint.get("type") == "scratch":
        return f"a {fingerprint.get('architecture', 'model')}{size_of} made from nothing"
    if fingerprint.get("source"):
        return f"{clipped(str(fingerprint['source']), 80)}{f' ({number(sizes[0])} parameters)' if size_of else ''}"
    return f"a model{size_of}" + (" from a GGUF file" if fingerprint.get("type") == "gguf" else "")


def _begun(facts: Facts) -> str:
    if facts["prompts"] is None:
        return "Nothing is known of this run yet."
    counts = [counted for task in facts["prompts"]["tasks"].values() for counted in task.values()]
    asked = _tasks(list(facts["prompts"]["tasks"]))
    return f"{number(sum(counts))} prompts{asked} are there; no model was evaluated yet."


def _verb(first: Facts, last: Facts) -> str:
    """Says that accuracy rose or fell only where the intervals do not meet."""
    if (last.get("low") or 0) > (first.get("high") or 0):
        return "rose"
    if (last.get("high") or 0) < (first.get("low") or 0):
        return "fell"
    return "went, which the intervals do not tell apart,"


def _tasks(names: list[str]) -> str:
    shown = ", ".join(clipped(name, 60) for name in names[:NAMES_SHOWN])
    more = f" and {len(names) - NAMES_SHOWN} more tasks" if len(names) > NAMES_SHOWN else ""
    return f" of {shown}{more}" if names else ""


def _seconds(facts: Facts) -> float:
    return seconds_between(facts["began"], facts["ended"])


def _iterations(numbers: list[int]) -> str:
    return f"iteration{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def _count(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
