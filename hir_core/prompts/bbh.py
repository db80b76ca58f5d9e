"""BIG-Bench-Hard task files: `{"examples": [{"input", "target"}], "canary": ...}`, every example one prompt.

The input is kept whole; a closing options block is read from it. A target that names an option by letter is accepted
by its text as well. The canary travels in the metadata, so that the benchmark can be recognised wherever its items go.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from hir_core.errors import ConfigError
from hir_core.prompts.items import Item
from hir_core.prompts.options import accepted, letter, read_options
from hir_core.schemas import content_key
from hir_core.sections import BigBenchHardPrompts

LARGEST_STORY = 10  # questions that one story may be asked in a small file
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def read_bbh(source: BigBenchHardPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Reads every example of a BIG-Bench-Hard file, in order.

    Raises:
        ConfigError: the file is missing or has another shape; names the example.
    """
    data = _read(source.path)
    canary = {"canary": data["canary"]} if "canary" in data else {}
    items = [
        _item(example, f"{source.path} example {number}", source.path.stem, canary)
        for number, example in enumerate(data["examples"], start=1)
    ]
    return _grouped_by_story(items)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})") from None
    except ValueError as error:
        raise ConfigError(f"prompts: {path} is not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("examples"), list):
        raise ConfigError(f'prompts: {path}: expected {{"examples": [{{"input", "target"}}]}} of BIG-Bench-Hard')
    return data


def _item(example: Any, place: str, task: str, metadata: dict[str, Any]) -> Item:
    if not isinstance(example, dict) or not all(isinstance(example.get(key), str) for key in ("input", "target")):
        raise ConfigError(f"prompts: {place}: expected texts `input` and `target`, found {example!r}")
    query, options = example["input"], read_options(example["input"]).options
    return Item(
        task=task,
        query=query,
        references=_references(query, example["target"].strip()),
        place=place,
        options=options or None,
        metadata=metadata,
    )


def _references(query: str, target: str) -> tuple[str, ...]:
    written = read_options(query)
    names = [letter(index) for index in range(len(written.options))]
    if written.lettered and target in names:
        return accepted([names.index(target)], written.options)
    return (target,)


def _grouped_by_story(items: list[Item]) -> list[Item]:
    """Groups items whose text is the same but for its last sentence: one story, asked about more than once.

    A beginning that most of the file shares is a preamble, not a story, and groups nothing.
    """
    stories = [_story(item.query) for item in items]
    shared, preamble = Counter(stories), max(len(items) / 2, LARGEST_STORY)
    return [
        item if shared[story] > preamble else replace(item, group=content_key(item.task, story))
        for item, story in zip(items, stories, strict=True)
    ]


def _story(query: str) -> str:
    sentences = _SENTENCE_END.split(read_options(query).before.strip())
    return " ".join(sentences[:-1]) if len(sentences) > 1 else query
