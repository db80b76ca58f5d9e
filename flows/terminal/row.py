"""The lines of `hir row` and `hir trace`: the history of one row, from the values of `hir_core.inspect.lineage`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, zip_longest
from typing import NamedTuple

from flows.terminal.formatting import (
    NO_INSTRUCTION,
    clipped,
    columns,
    folded,
    number,
    printable,
    quantity,
    ruled_out,
    share_removed,
)
from hir_core.inspect.lineage import RowHistory, SampleHistory, Trace, TracedModel, TracedTriple
from hir_core.inspect.row_lookup import Row

LABEL = 12
LEFT_OUT = "left out"
NO_SCORE = "no score"


class TraceLine(NamedTuple):
    """A line of `hir trace`: one version that the row passed through."""

    kind: str
    version: str
    key: str
    text: str


# --- hir row ---------------------------------------------------------------------------------------------------------


def row_text(history: RowHistory, width: int) -> Iterator[str]:
    """A prompt, then by iteration its samples with scores, sampling instruction and relabeled instruction."""
    yield from _prompt(history["prompt"], history["run"], width)
    for triple in history["demonstrations"]:
        yield ""
        yield f"demonstration {printable(triple['triple_id'])} · {triple['version']}"
        yield from _labelled("instruction", triple["instruction"] or NO_INSTRUCTION, width)
        yield from _labelled("output", triple["output"], width)
    for version, group in groupby(history["samples"], key=lambda sample: sample["version"]):
        samples = list(group)
        yield ""
        yield f"iteration {samples[0]['iteration']} · {version} · written by {printable(samples[0]['model'])}"
        for sample in samples:
            yield from _sample(sample, width)
    for answer in history["evaluations"]:
        yield ""
        yield f"evaluation · {answer['version']} · {_score(answer['score'])}"
        yield from _labelled("completion", answer["completion"], width)


def _prompt(prompt: Row | None, run: str, width: int) -> Iterator[str]:
    if prompt is None:
        yield f"the version with the prompt was deleted from {printable(run)}"
        return
    facts = (prompt["prompt_id"], prompt["task"], prompt["split"], prompt["version"], run)
    yield f"prompt {' · '.join(map(printable, facts))}"
    for turn in prompt["history"] or []:
        yield from _labelled(turn["role"], turn["content"], width)
    yield from _labelled("query", prompt["query"], width)
    yield from _labelled("options", " | ".join(prompt["options"] or []), width)
    yield from _labelled("references", " | ".join(prompt["references"]), width)


def _sample(sample: SampleHistory, width: int) -> Iterator[str]:
    facts = (f"k {sample['k']}", sample["finish_reason"], quantity(len(sample["completion_ids"]), "token"))
    yield f"  sample {printable(sample['sample_id'])} · {' · '.join(facts)}"
    yield from _labelled("completion", sample["completion"], width)
    for reward in sample["rewards"]:
        parts = "".join(f" · {part['name']} {_score(part['score'])}" for part in reward.get("parts", []))
        score = f"{_score(reward['score'])}{parts} · {reward['reason']} ({reward['version']})"
        yield from _labelled("score", score, width)
    for written in sample["instructions"]:
        text = f"{written['written'] or ''} · {written['reason'] or 'verified'} ({written['version']})"
        yield from _labelled("written", text, width)
    half = max(20, (width - 7) // 2)
    for triple in sample["triples"]:
        titles = ("instruction", f"relabeled ({triple['version']})")
        became = [line for text in _became(triple) for line in folded(text, half)]
        texts = (folded(sample["instruction"] or NO_INSTRUCTION, half), became)
        for left, right in (titles, *zip_longest(*texts, fillvalue="")):
            yield f"    {left:<{half}} │ {right}".rstrip()
    if not sample["triples"]:
        yield from _labelled("instruction", sample["instruction"] or NO_INSTRUCTION, width)


def _became(triple: Row) -> Iterator[str]:
    """What a sample became in a version of triples: a demonstration of an instruction, ruled out, both, or nothing."""
    if "triple_id" not in triple:
        yield LEFT_OUT
        return
    if triple["weight"] > 0:
        yield triple["instruction"] or NO_INSTRUCTION
    if triple["excluded_from"] is not None:
        yield ruled_out(triple["excluded_from"], triple["probability"], triple["removed"])


def _labelled(label: str, text: str, width: int) -> Iterator[str]:
    for place, line in enumerate(folded(text, max(20, width - LABEL - 4)) if text else []):
        yield f"    {'' if place else printable(label):<{LABEL}}{line}"


def _score(score: float | None) -> str:
    return NO_SCORE if score is None else number(score, "g")


# --- hir trace -------------------------------------------------------------------------------------------------------


def trace_text(trace: Trace, width: int) -> list[str]:
    """One line for each version that a row passed through: its kind, name, the row's key and the start of its text."""
    lines = list(_trace_lines(trace))
    version_width = max((len(line.version) for line in lines), default=0)
    key_width = max((len(line.key) for line in lines), default=0)
    room = max(20, width - 15 - version_width - key_width - 6)
    head, *rest = [(*line[:3], clipped(line.text, room)) for line in lines]
    return [f"run {printable(trace['run'])}", *columns(head, rest)]


def _trace_lines(trace: Trace) -> Iterator[TraceLine]:
    prompt = trace["prompt"]
    if prompt is not None:
        yield TraceLine("prompt", prompt["version"], printable(prompt["prompt_id"]), prompt["query"])
    previous_version = None
    for sample in trace["samples"]:
        if sample["version"] != previous_version:
            yield TraceLine("  model", printable(sample["model"]["version"]), "", _origin(sample["model"]))
        previous_version = sample["version"]
        text = f"k {sample['k']}: {sample['completion']}"
        yield TraceLine("  sample", sample["version"], printable(sample["sample_id"]), text)
        for reward in sample["rewards"]:
            yield TraceLine("    reward", reward["version"], "", f"{_score(reward['score'])} · {reward['reason']}")
        for written in sample["instructions"]:
            yield TraceLine("    written", written["version"], "", written["instruction"] or "not verified")
        for triple in sample["triples"]:
            yield from _triple_lines(triple, "triple")
    for triple in trace["demonstrations"]:
        yield from _triple_lines(triple, "demonstration")


def _triple_lines(triple: TracedTriple, kind: str) -> Iterator[TraceLine]:
    key, text = printable(triple.get("triple_id", "–")), triple.get("instruction", LEFT_OUT)
    excluded_from = triple.get("excluded_from")
    if excluded_from is None or triple["weight"] > 0:
        yield TraceLine(f"    {kind}", triple["version"], key, text)
    if excluded_from is not None:
        yield TraceLine(f"    {kind}", triple["version"], key, f'ruled out under "{excluded_from}"')
        yield TraceLine("", "", "", share_removed(triple["probability"], triple["removed"]))
    for model in triple.get("models", []):
        evaluations = model.get("evaluations", [])
        yield TraceLine("      model", model["version"], "", " · ".join([_origin(model), *evaluations]))


def _origin(model: TracedModel) -> str:
    """A model's loss and what it was trained from."""
    loss = model.get("loss")
    return f"{'' if loss is None else f'loss {loss:.3f} · '}from {', '.join(model.get('parents', [])) or 'nothing'}"
