"""Prompts from the task files of two benchmarks: BIG-bench (type `bigbench`) and BIG-Bench-Hard (type `bbh`).

Both are JSON files with a list `examples`. Reads one file; every example becomes one item, and the items that share a
story share a group. Raises a ConfigError that names the file, and the example, where the shape is another one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from hir_core.config import BigBenchHardPrompts, BigBenchPrompts
from hir_core.errors import ConfigError
from hir_core.json_values import parse_json
from hir_core.prompts.items import Item
from hir_core.prompts.options import (
    MAX_OPTIONS,
    letter,
    option_references,
    read_options,
    shuffled_options,
    with_options,
)
from hir_core.schemas import content_key

# --- BIG-bench -------------------------------------------------------------------------------------------------------

BIGBENCH_SHAPE = '{"examples": [{"input", "target_scores" or "target"}]} of BIG-bench'
FAMILIES = ("logical_deduction", "tracking_shuffled_objects")  # their tasks are in subfolders, such as `three_objects`
_KEYS_READ = {"input", "target", "target_scores"}


def read_bigbench(source: BigBenchPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every example of a `task.json` of BIG-bench, in order.

    An example has an `input` and `target_scores`, a `target`, or both. Options are written below the question,
    lettered, in an order that depends on the seed, because some files list the right option first. Every option with
    the best score is accepted, and so is every `target`. The prefixes of the task and of its examples are written
    before the question. The keys that turn an example into a text to be completed (`example_output_prefix`,
    `choice_prefix`, `append_choices_to_input`) are ignored: the instruction and the list of options replace them.

    Raises:
        ConfigError: the file is missing or has another shape; names the example.
    """
    file = _read_task_file(source.path, BIGBENCH_SHAPE)
    prefix, task = "", source.task or task_name(source.path)
    for name in ("task_prefix", "example_input_prefix"):
        text = file.content.get(name) or ""
        if not isinstance(text, str):
            raise ConfigError(f"prompts: {source.path}: expected `{name}` to be text, found {text!r}")
        prefix = _joined(prefix, text)
    return grouped_by_story(
        _bigbench_item(example, origin, task, prefix, source.seed, file.canary) for origin, example in file.examples
    )


def task_name(path: Path) -> str:
    """A task's name: that of the `task.json`'s folder, after its family's name where it has one; else the file's."""
    if path.stem != "task":
        return path.stem
    folder = path.resolve().parent
    return f"{folder.parent.name}_{folder.name}" if folder.parent.name in FAMILIES else folder.name


def _bigbench_item(example: Any, origin: str, task: str, prefix: str, seed: int, canary: dict[str, Any]) -> Item:
    if not isinstance(example, dict) or not isinstance(example.get("input"), str):
        raise _malformed(origin, "a text `input`", example)
    question, scores = _joined(prefix, example["input"]).strip(), _option_scores(example, origin)
    best = max(scores.values(), default=0)
    target = example.get("target")
    targets = target if isinstance(target, list) else [] if target is None else [target]
    if not all(isinstance(value, (str, int, float)) and not isinstance(value, bool) for value in targets):
        raise _malformed(origin, "`target` as a text, a number or a list of them", target)
    right_texts = [text for text, score in scores.items() if score == best and score > 0]
    answers = tuple(dict.fromkeys([*right_texts, *(str(value).strip() for value in targets if str(value).strip())]))
    metadata = {name: value for name, value in example.items() if name not in _KEYS_READ} | canary
    item = Item(task=task, query=question, references=answers, origin=origin, metadata=metadata)
    if not question or not 0 < len(scores) <= MAX_OPTIONS:  # with more options than letters, the answer is free
        return item
    options = shuffled_options(question, list(scores), seed)
    right = [index for index, option in enumerate(options) if option in answers]
    not_offered = [answer for answer in answers if answer not in options]
    return replace(
        item,
        query=with_options(question, options),
        options=tuple(options),
        references=(*option_references(right, options), *not_offered),
    )


def _option_scores(example: dict[str, Any], origin: str) -> dict[str, float]:
    """The score of each option, runs of blanks replaced by one; options with the same text get the better score."""
    target_scores = example.get("target_scores") or {}
    if not isinstance(target_scores, dict) or not all(isinstance(n, (int, float)) for n in target_scores.values()):
        raise _malformed(origin, "`target_scores` with a number for each option", target_scores)
    scores: dict[str, float] = {}
    for option, score in target_scores.items():
        text = " ".join(option.split())
        scores[text] = max(score, scores.get(text, score))
    return scores


def _joined(first: str, second: str) -> str:
    """Both texts, with a line break between them unless there is a blank already."""
    touching = first and second and not first[-1].isspace() and not second[0].isspace()
    return f"{first}\n{second}" if touching else first + second


# --- BIG-Bench-Hard --------------------------------------------------------------------------------------------------

BBH_SHAPE = '{"examples": [{"input", "target"}]} of BIG-Bench-Hard'


def read_bbh(source: BigBenchHardPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every example of a BIG-Bench-Hard file, in order; its input, which includes any options, is the query as it is.

    Raises:
        ConfigError: the file is missing or has another shape; names the example.
    """
    file = _read_task_file(source.path, BBH_SHAPE)
    return grouped_by_story(
        _bbh_item(example, origin, source.path.stem, file.canary) for origin, example in file.examples
    )


def _bbh_item(example: Any, origin: str, task: str, canary: dict[str, Any]) -> Item:
    if not isinstance(example, dict) or not all(isinstance(example.get(key), str) for key in ("input", "target")):
        raise _malformed(origin, "texts `input` and `target`", example)
    target = example["target"].strip()
    _, options, lettered = read_options(example["input"])
    # The target names an option by its letter or, else, by its text.
    right = [index for index in range(len(options)) if lettered and letter(index) == target]
    right = right or [index for index, option in enumerate(options) if option == target]
    references = option_references(right, options, lettered=lettered) or ((target,) if target else ())
    return Item(
        task=task,
        query=example["input"],
        references=references,
        origin=origin,
        options=options or None,
        metadata=canary,
    )


# --- both benchmarks -------------------------------------------------------------------------------------------------


class _TaskFile(NamedTuple):
    """A benchmark's file."""

    content: dict[str, Any]
    examples: list[tuple[str, Any]]
    """Where each example stands, for messages, and the example, not yet checked."""
    canary: dict[str, Any]
    """The string by which the benchmark's items are recognised in other data, as metadata; empty where it has none."""


def _read_task_file(path: Path, shape: str) -> _TaskFile:
    """A benchmark's file, with a list of examples.

    Args:
        path: the file.
        shape: what the file should hold, for messages.

    Raises:
        ConfigError: the file is missing or has another shape.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})") from None
    except OSError as error:
        raise ConfigError(f"prompts: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"prompts: {path} is not JSON that can be read: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("examples"), list):
        raise ConfigError(f"prompts: {path}: expected {shape}")
    examples = [(f"{path} example {number}", example) for number, example in enumerate(content["examples"], start=1)]
    return _TaskFile(content, examples, {"canary": content["canary"]} if "canary" in content else {})


def _malformed(origin: str, expected: str, found: Any) -> ConfigError:
    return ConfigError(f"prompts: {origin}: expected {expected}, found {found!r}")


# --- grouping by story -----------------------------------------------------------------------------------------------

LARGEST_STORY = 10
"""In a file of few examples, a beginning that at most this many of them share still counts as a story."""
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def grouped_by_story(items: Iterable[Item]) -> list[Item]:
    """The items, with a group for each story: all sentences of the question but the last one.

    A beginning that most items share is an introduction and not a story; the group is then the whole question.
    """
    items = list(items)
    questions = [" ".join(read_options(item.query).question.split()) for item in items]
    stories = []
    for question in questions:
        sentences = _SENTENCE_END.split(question)
        stories.append(" ".join(sentences[:-1]) if len(sentences) > 1 else question)
    counts, most = Counter(stories), max(len(items) / 2, LARGEST_STORY)
    return [
        replace(item, group=content_key("story", question if counts[story] > most else story))
        for item, question, story in zip(items, questions, stories, strict=True)
    ]
