"""From sources to one Prompts table: reads each source, then keys, checks, splits and sorts its items.

`READERS` maps a source's type to the function that reads it. Rows are dropped only for a counted reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

import polars as pl

from hir_core.config import PromptSource
from hir_core.errors import ConfigError
from hir_core.prompts.bigbench import read_bbh, read_bigbench
from hir_core.prompts.file import read_file
from hir_core.prompts.hf_datasets import read_datasets
from hir_core.prompts.items import Item, Split
from hir_core.prompts.reasoning_gym import draw_reasoning_gym
from hir_core.prompts.splits import assign_splits
from hir_core.prompts.synthetic.registry import draw_synthetic
from hir_core.schemas import Prompts, content_key

READERS: dict[str, Callable[[Any, AbstractSet[str]], list[Item]]] = {
    "synthetic": draw_synthetic,
    "file": read_file,
    "bbh": read_bbh,
    "bigbench": read_bigbench,
    "datasets": read_datasets,
    "reasoning_gym": draw_reasoning_gym,
}
BENCHMARKS = ("bbh", "bigbench")
BLANK_QUERY = "blank query"
NO_ANSWER = "no accepted answer"
REPEATED = "repeated item"


def load_prompts(
    sources: Sequence[PromptSource], evaluated_only: Sequence[PromptSource] = ()
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Reads all sources into one table, train and test, sorted by split, task and prompt_id.

    A source that is only evaluated is all test. Where its task has the name of an earlier source's, it is told apart
    by its type, for example `object_counting (bbh)`, because accuracy is reported per task.

    Args:
        sources: read with their own `test_share`.
        evaluated_only: read as test, whatever they say.

    Returns:
        The Prompts table, and how many rows were rejected for which reason.

    Raises:
        ConfigError: a source is wrong, two rows are the same prompt, or there is no prompt at all.
    """
    rows: dict[str, dict[str, Any]] = {}
    places: dict[str, str] = {}
    rejected: Counter[str] = Counter()
    for number, source in enumerate([*sources, *evaluated_only]):
        only_tested = number >= len(sources)
        items = READERS[source.type](source, {row["group"] for row in rows.values()})
        kept = _screened(items, source.type in BENCHMARKS, rejected)
        if only_tested:
            kept = _told_apart(kept, {row["task"] for row in rows.values()}, source.type)
        keyed = _keyed(kept, places)
        sides = _sides(keyed, source, only_tested)
        rows |= {key: _row(key, item, sides[key]) for key, item in keyed.items()}
    if not rows:
        raise ConfigError(f"prompts: no prompts in {len(sources) + len(evaluated_only)} source(s){_reasons(rejected)}")
    table = pl.DataFrame(list(rows.values()), schema=Prompts.create_empty().schema)
    return table.sort("split", "task", "prompt_id"), dict(+rejected)


def _screened(items: Iterable[Item], is_benchmark: bool, rejected: Counter[str]) -> list[Item]:
    """The items that can be asked; counts the others by reason.

    A benchmark's files are nobody's to correct, so what it repeats or leaves unanswered is counted; in files of the
    user's it is an error.
    """
    kept, seen = [], set()
    for item in items:
        key = _key(item)
        if not item.query.strip():
            rejected[BLANK_QUERY] += 1
        elif is_benchmark and not item.references:
            rejected[NO_ANSWER] += 1
        elif is_benchmark and key in seen:
            rejected[REPEATED] += 1
        else:
            kept.append(item)
            seen.add(key)
    return kept


def _key(item: Item) -> str:
    return content_key(item.task, item.query, item.options, item.references, *([item.history] if item.history else []))


def _told_apart(items: list[Item], tasks: AbstractSet[str], kind: str) -> list[Item]:
    names = {task: _free_name(task, tasks, kind) for task in {item.task for item in items}}
    return [replace(item, task=names[item.task]) for item in items]


def _free_name(task: str, tasks: AbstractSet[str], kind: str) -> str:
    name, number = task, 1
    while name in tasks:
        name = f"{task} ({kind})" if number == 1 else f"{task} ({kind} {number})"
        number += 1
    return name


def _keyed(items: Iterable[Item], places: dict[str, str]) -> dict[str, Item]:
    """The items by prompt_id; remembers each one's place among those of all sources."""
    keyed = {}
    for item in items:
        key = _key(item)
        if key in places:
            raise ConfigError(
                f"prompts: {item.place} is the same prompt as {places[key]} (prompt_id {key}): remove one of them"
            )
        places[key], keyed[key] = item.place, item
    return keyed


def _sides(keyed: Mapping[str, Item], source: PromptSource, only_tested: bool) -> dict[str, Split]:
    """Each item's side: as stated, else as its group's stated one, else by group and seed."""
    if only_tested:
        return dict.fromkeys(keyed, "test")
    groups = {key: item.group or key for key, item in keyed.items()}
    stated = {groups[key]: item.split for key, item in keyed.items() if item.split}
    sides = stated | assign_splits(set(groups.values()) - set(stated), source.test_share, source.seed)
    return {key: item.split or sides[groups[key]] for key, item in keyed.items()}


def _row(key: str, item: Item, split: Split) -> dict[str, Any]:
    return {
        "prompt_id": key,
        "task": item.task,
        "group": item.group or key,
        "split": split,
        "query": item.query,
        "history": list(item.history) or None,
        "options": None if item.options is None else list(item.options),
        "references": list(item.references),
        "metadata": json.dumps(item.metadata, ensure_ascii=False, sort_keys=True, default=str)
        if item.metadata
        else None,
    }


def _reasons(rejected: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()) if count)
    return f"; rejected: {counts}" if counts else ": add rows or another source"
