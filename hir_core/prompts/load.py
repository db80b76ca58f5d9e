"""All prompt sources of a run, read into one Prompts table: the content of the stage `prompts`.

`READERS` maps the type of a source to the function that reads it. Each item gets its prompt_id and its split; items
that cannot be used are left out and counted by reason.
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
from hir_core.prompts.ifeval import read_ifeval
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
    "ifeval": read_ifeval,
}
"""Each reader takes its source and the groups of earlier sources, which a generator must not draw again."""
BENCHMARKS = ("bbh", "bigbench")
BLANK_QUERY = "blank query"
NO_ANSWER = "no accepted answer"
REPEATED = "repeated item"
REPEATED_SHOWN = 3
"""Rows that an error names as the same prompt as others."""


def load_prompts(
    sources: Sequence[PromptSource], evaluated_only: Sequence[PromptSource] = ()
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Reads all sources into one table, train and test, sorted by split, task and prompt_id.

    Where a task of a source that is only evaluated has the name of a task of an earlier source, its source's type is
    added to it, for example `object_counting (bbh)`, because accuracy is reported per task.

    Args:
        sources: split by their own `test_share`.
        evaluated_only: all of their prompts are test, whatever their `test_share` says.

    Returns:
        The Prompts table, and how many rows were rejected for which reason.

    Raises:
        ConfigError: a source is wrong or empty, two rows are the same prompt, or no prompt can be used.
    """
    rows: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    rejected: Counter[str] = Counter()
    for number, source in enumerate([*sources, *evaluated_only]):
        is_evaluated_only = number >= len(sources)
        items = READERS[source.type](source, {row["group"] for row in rows.values()})
        if not items:
            raise ConfigError(f"prompts: no prompts in {_name(source)}: add rows, or leave it out")
        items = _usable(items, source.type in BENCHMARKS, rejected)
        if is_evaluated_only:
            items = _with_distinct_tasks(items, {row["task"] for row in rows.values()}, source.type)
        items_by_id = _by_id(items, source, origins, rejected)
        splits: dict[str, Split] = (
            dict.fromkeys(items_by_id, "test") if is_evaluated_only else _splits(items_by_id, source)
        )
        rows |= {prompt_id: _row(prompt_id, item, splits[prompt_id]) for prompt_id, item in items_by_id.items()}
    if not rows:
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items()) if count)
        names = ", ".join(map(_name, [*sources, *evaluated_only]))
        raise ConfigError(f"prompts: no prompts in {names}; rejected: {counts}")
    table = pl.DataFrame(list(rows.values()), schema=Prompts.create_empty().schema)
    return table.sort("split", "task", "prompt_id"), dict(+rejected)


def _name(source: PromptSource) -> str:
    """A source in an error message: its file, or its type."""
    return str(getattr(source, "path", source.type))


def _usable(items: Iterable[Item], is_benchmark: bool, rejected: Counter[str]) -> list[Item]:
    """The items that can be used; counts the others by reason.

    Users cannot correct the files of a benchmark, so items that are malformed there, repeated or without an answer are
    counted. In the user's own files, a malformed prompt is an error, a repeated one is an error or dropped, and one
    without references is allowed.
    """
    usable: list[Item] = []
    seen: set[str] = set()
    for item in items:
        prompt_id = _prompt_id(item)
        if item.rejected:
            rejected[item.rejected] += 1
        elif not item.query.strip():
            rejected[BLANK_QUERY] += 1
        elif is_benchmark and not item.references:
            rejected[NO_ANSWER] += 1
        elif is_benchmark and prompt_id in seen:
            rejected[REPEATED] += 1
        else:
            usable.append(item)
            seen.add(prompt_id)
    return usable


def _by_id(
    items: Iterable[Item], source: PromptSource, origins: dict[str, str], rejected: Counter[str]
) -> dict[str, Item]:
    """The items by prompt_id; adds where each comes from to `origins`, and refuses or counts repeated ones."""
    by_id: dict[str, Item] = {}
    twice: list[str] = []
    for item in items:
        prompt_id = _prompt_id(item)
        if prompt_id in origins and getattr(source, "duplicates", "refuse") == "drop":
            rejected[REPEATED] += 1
        elif prompt_id in origins:
            twice.append(f"{item.origin} is the same prompt as {origins[prompt_id]} (prompt_id {prompt_id})")
        else:
            origins[prompt_id], by_id[prompt_id] = item.origin, item
    if twice:
        rest = len(twice) - REPEATED_SHOWN
        more = f"; and {rest} more rows are repeated" if rest > 0 else ""
        drop = ", or set `duplicates: drop` for the source" if hasattr(source, "duplicates") else ""
        raise ConfigError(f"prompts: {'; '.join(twice[:REPEATED_SHOWN])}{more}: keep one of each{drop}")
    return by_id


def _prompt_id(item: Item) -> str:
    return content_key(item.task, item.query, item.options, item.references, *([item.history] if item.history else []))


def _with_distinct_tasks(items: list[Item], tasks: AbstractSet[str], source_type: str) -> list[Item]:
    """The items, with the source's type added to each task that has the name of an earlier source's task."""
    names = {}
    for task in {item.task for item in items}:
        name, number = task, 1
        while name in tasks:
            name = f"{task} ({source_type})" if number == 1 else f"{task} ({source_type} {number})"
            number += 1
        names[task] = name
    return [replace(item, task=names[item.task]) for item in items]


def _splits(items_by_id: Mapping[str, Item], source: PromptSource) -> dict[str, Split]:
    """The split of each item: the one that it states, else the one that its group states, else by group and seed."""
    groups = {prompt_id: item.group or prompt_id for prompt_id, item in items_by_id.items()}
    stated = {groups[prompt_id]: item.split for prompt_id, item in items_by_id.items() if item.split}
    by_group = stated | assign_splits(set(groups.values()) - set(stated), source.test_share, source.seed)
    return {prompt_id: item.split or by_group[groups[prompt_id]] for prompt_id, item in items_by_id.items()}


def _row(prompt_id: str, item: Item, split: Split) -> dict[str, Any]:
    metadata = json.dumps(item.metadata, ensure_ascii=False, sort_keys=True, default=str) if item.metadata else None
    return {
        "prompt_id": prompt_id,
        "task": item.task,
        "group": item.group or prompt_id,
        "split": split,
        "query": item.query,
        "history": list(item.history) or None,
        "options": None if item.options is None else list(item.options),
        "references": list(item.references),
        "metadata": metadata,
    }
