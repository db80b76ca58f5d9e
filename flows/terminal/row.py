"""The lines of `hir row` and `hir trace`: one row's life, told to a person from what `hir_core.lineage` found."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, zip_longest
from typing import Any

from flows.terminal.formatting import clipped, columns, folded, number, printable

Facts = dict[str, Any]
LABEL = 12
LEFT_OUT = "left out"
NOT_JUDGED = "cannot be judged"
Line = tuple[str, str, str, str]


def row_text(row_history: Facts, width: int) -> Iterator[str]:
    """A prompt, and iteration by iteration its samples with their scores and instructions, asked for and relabeled."""
    yield from _prompt(row_history["prompt"], row_history["run"], width)
    for triple in row_history["demonstrations"]:
        yield ""
        yield f"demonstration {printable(triple['triple_id'])} · {triple['version']}"
        yield from _labelled("instruction", triple["instruction"], width)
        yield from _labelled("output", triple["output"], width)
    for version, samples in groupby(row_history["samples"], key=lambda sample: sample["version"]):
        drawn = list(samples)
        yield ""
        yield f"iteration {drawn[0]['iteration']} · {version} · written by {printable(drawn[0]['model'])}"
        for sample in drawn:
            yield from _sample(sample, width)
    for answer in row_history["evaluations"]:
        yield ""
        yield f"evaluation · {answer['version']} · {_score(answer['score'])}"
        yield from _labelled("completion", answer["completion"], width)


def trace_text(trace: Facts, width: int) -> list[str]:
    """One line for each version that a row has passed through: what it is, which version, its key, what it says."""
    lines = list(_trace_lines(trace))
    wide = max((len(version) for _, version, _, _ in lines), default=0)
    room = max(20, width - 15 - wide - max((len(key) for _, _, key, _ in lines), default=0) - 6)
    rows = [(what, version, key, clipped(text, room)) for what, version, key, text in lines]
    head, *rest = rows
    return [f"of run {printable(trace['run'])}", *columns(head, rest)]


def _prompt(prompt: Facts | None, run: str, width: int) -> Iterator[str]:
    if prompt is None:
        yield f"the prompt is gone from {printable(run)}"
        return
    facts = (prompt["prompt_id"], prompt["task"], prompt["split"], prompt["version"], run)
    yield f"prompt {' · '.join(map(printable, facts))}"
    for turn in prompt.get("history") or []:
        yield from _labelled(turn["role"], turn["content"], width)
    yield from _labelled("query", prompt["query"], width)
    yield from _labelled("options", " | ".join(prompt["options"] or []), width)
    yield from _labelled("references", " | ".join(prompt["references"]), width)


def _sample(sample: Facts, width: int) -> Iterator[str]:
    tokens = len(sample["completion_ids"])
    facts = (f"k {sample['k']}", sample["finish_reason"], f"{tokens} token{'' if tokens == 1 else 's'}")
    yield f"  sample {printable(sample['sample_id'])} · {' · '.join(facts)}"
    yield from _labelled("completion", sample["completion"], width)
    for reward in sample["rewards"]:
        parts = "".join(f" · {part['name']} {_score(part['score'])}" for part in reward.get("parts", []))
        yield from _labelled(
            "score", f"{_score(reward['score'])}{parts} · {reward['reason']} ({reward['version']})", width
        )
    for one in sample["instructions"]:
        yield from _labelled(
            "written", f"{one['written'] or ''} · {one['reason'] or 'verified'} ({one['version']})", width
        )
    for triple in sample["triples"]:
        became = triple.get("instruction", LEFT_OUT)
        yield from _beside(("asked", f"became ({triple['version']})"), (sample["instruction"], became), width)
    if not sample["triples"]:
        yield from _labelled("asked", sample["instruction"], width)


def _beside(titles: tuple[str, str], texts: tuple[str, str], width: int) -> Iterator[str]:
    """Two texts side by side, each folded in its half."""
    half = max(20, (width - 7) // 2)
    for pair in (titles, *zip_longest(*(folded(text, half) for text in texts), fillvalue="")):
        yield f"    {pair[0]:<{half}} │ {pair[1]}".rstrip()


def _labelled(label: str, text: str, width: int) -> Iterator[str]:
    for place, line in enumerate(folded(text, max(20, width - LABEL - 4)) if text else []):
        yield f"    {'' if place else printable(label):<{LABEL}}{line}"


def _score(score: float | None) -> str:
    return NOT_JUDGED if score is None else number(score, "g")


def _trace_lines(trace: Facts) -> Iterator[Line]:
    prompt = trace["prompt"]
    if prompt is not None:
        yield "prompt", prompt["version"], printable(prompt["prompt_id"]), prompt["query"]
    told = None
    for sample in trace["samples"]:
        if sample["version"] != told:
            yield "  model", printable(sample["model"]["version"]), "", _made(sample["model"])
        told = sample["version"]
        yield "  sample", sample["version"], printable(sample["sample_id"]), f"k {sample['k']}: {sample['completion']}"
        for reward in sample["rewards"]:
            yield "    reward", reward["version"], "", f"{_score(reward['score'])} · {reward['reason']}"
        for one in sample["instructions"]:
            yield "    written", one["version"], "", one["instruction"] or "not verified"
        for triple in sample["triples"]:
            yield from _triple_lines(triple, "triple")
    for triple in trace["demonstrations"]:
        yield from _triple_lines(triple, "demonstration")


def _triple_lines(triple: Facts, name: str) -> Iterator[Line]:
    yield f"    {name}", triple["version"], printable(triple.get("triple_id", "–")), triple.get("instruction", LEFT_OUT)
    for model in triple.get("models", []):
        yield "      model", model["version"], "", " · ".join([_made(model), *model["evaluations"]])


def _made(model: Facts) -> str:
    loss = "" if model.get("loss") is None else f"loss {model['loss']:.3f} · "
    return f"{loss}from {', '.join(model.get('parents', [])) or 'nothing'}"
