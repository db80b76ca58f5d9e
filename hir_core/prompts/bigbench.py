"""Prompts from the task files of two benchmarks: BIG-bench (type `bigbench`) and BIG-Bench-Hard (type `bbh`).

Both are JSON files with a list `examples`. Reads one file; every example becomes one item, and the items that share a
story share a group. A malformed example becomes an item that is rejected with its reason, since users cannot correct
these files. Raises a ConfigError that names the file, and an example, where most are malformed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
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
    offer,
    option_index,
    option_references,
    read_inline_options,
    read_options,
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
    lettered, in an order that depends on the seed, because some files list the right option first; options that the
    question shows itself keep the letters that it gives them. Every option with the best score is accepted, and so is
    every `target`. The prefixes of the task and of its examples are written before the question. The keys that turn an
    example into a text to be completed (`example_output_prefix`, `choice_prefix`, `append_choices_to_input`) are
    ignored: the instruction and the list of options replace them.

    Raises:
        ConfigError: the file is missing or has another shape; names the first example that has.
    """
    file = _read_task_file(source.path, BIGBENCH_SHAPE)
    prefix, task = "", source.task or task_name(source.path)
    for name in ("task_prefix", "example_input_prefix"):
        text = file.content.get(name) or ""
        if not isinstance(text, str):
            raise ConfigError(f"prompts: {source.path}: expected `{name}` to be text, found {text!r}")
        prefix = _joined(prefix, text)
    return _items(file, task, lambda example, blank: _bigbench_item(example, blank, prefix, source.seed))


def task_name(path: Path) -> str:
    """A task's name: that of the `task.json`'s folder, after its family's name where it has one; else the file's."""
    if path.stem != "task":
        return path.stem
    folder = path.resolve().parent
    return f"{folder.parent.name}_{folder.name}" if folder.parent.name in FAMILIES else folder.name


def _bigbench_item(example: Any, blank: Item, prefix: str, seed: int) -> Item:
    if not isinstance(example, dict) or not isinstance(example.get("input"), str):
        raise _MalformedError("no text as its input", "a text `input`", example)
    question, scores = _joined(prefix, example["input"]).strip(), _option_scores(example)
    best = max(scores.values(), default=0)
    target = example.get("target")
    targets = target if isinstance(target, list) else [] if target is None else [target]
    if not all(isinstance(value, (str, int, float)) and not isinstance(value, bool) for value in targets):
        raise _MalformedError("no text as its target", "`target` as a text, a number or a list of them", target)
    right_texts = [text for text, score in scores.items() if score == best and score > 0]
    answers = tuple(dict.fromkeys([*right_texts, *(str(value).strip() for value in targets if str(value).strip())]))
    metadata = {name: value for name, value in example.items() if name not in _KEYS_READ} | dict(blank.metadata)
    item = replace(blank, query=question, references=answers, metadata=metadata)
    if not question or not 0 < len(scores) <= MAX_OPTIONS:  # with more options than letters, the answer is free
        return item
    options = list(scores)
    offered = offer(question, options, [options.index(answer) for answer in answers if answer in scores], seed)
    _check_right(offered.right, offered.options)
    not_offered = [answer for answer in answers if answer not in scores]
    return replace(item, query=offered.query, options=offered.options, references=(*offered.references, *not_offered))


def _option_scores(example: dict[str, Any]) -> dict[str, float]:
    """The score of each option, runs of blanks replaced by one; options with the same text get the better score."""
    target_scores = example.get("target_scores") or {}
    if not isinstance(target_scores, dict) or not all(isinstance(n, (int, float)) for n in target_scores.values()):
        raise _MalformedError(
            "no number as an option's score", "`target_scores` with a number for each option", target_scores
        )
    scores: dict[str, float] = {}
    for option, score in target_scores.items():
        text = " ".join(option.split())
        scores[text] = max(score, scores.get(text, score))
    _check_options(list(scores))
    return scores


def _joined(first: str, second: str) -> str:
    """Both texts, with a line break between them unless there is a blank already."""
    touching = first and second and not first[-1].isspace() and not second[0].isspace()
    return f"{first}\n{second}" if touching else first + second


# --- BIG-Bench-Hard --------------------------------------------------------------------------------------------------

BBH_SHAPE = '{"examples": [{"input", "target"}]} of BIG-Bench-Hard'
_LETTER = re.compile(r"\([A-Z]\)")


def read_bbh(source: BigBenchHardPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Every example of a BIG-Bench-Hard file, in order.

    Its input is the query as it is, with the block of options that it ends with; options that stand within its text are
    moved into such a block.

    Raises:
        ConfigError: the file is missing or has another shape; names the first example that has.
    """
    return _items(_read_task_file(source.path, BBH_SHAPE), source.path.stem, _bbh_item)


def _bbh_item(example: Any, blank: Item) -> Item:
    if not isinstance(example, dict) or not all(isinstance(example.get(key), str) for key in ("input", "target")):
        raise _MalformedError("no text as its input or target", "texts `input` and `target`", example)
    query, target = example["input"], example["target"].strip()
    question, options, lettered = read_options(query)
    if not options:
        question, options, lettered = read_inline_options(query)
        if option_index(target, options) is None:  # a text with letters in it, but not for options
            options = ()
        else:
            query = with_options(question, options)
    _check_options(options)
    right = option_index(target, options) if lettered or target in options else None
    if right is None and target and (options or _LETTER.fullmatch(target)):
        raise _MalformedError("its target is none of its options", "`target` as one of the options", target)
    if right is None:
        return replace(blank, query=query, references=(target,) if target else (), options=options or None)
    _check_right([right], options)
    references = option_references([right], options, lettered=lettered)
    return replace(blank, query=query, references=references, options=options)


# --- both benchmarks -------------------------------------------------------------------------------------------------

MOST_MALFORMED = 0.5
"""A file in which a larger share of the examples is malformed is not in the benchmark's format at all."""


class _TaskFile(NamedTuple):
    """A benchmark's file."""

    path: Path
    shape: str
    """What the file should hold, for messages."""
    content: dict[str, Any]
    examples: list[Any]
    """Not yet checked."""


class _MalformedError(Exception):
    """An example that cannot be made an item."""

    def __init__(self, reason: str, expected: str, found: Any) -> None:
        super().__init__(f"expected {expected}, found {found!r}")
        self.reason = f"malformed: {reason}"


def _items(file: _TaskFile, task: str, item_of: Callable[[Any, Item], Item]) -> list[Item]:
    """An item for each example: grouped by story, or rejected where it is malformed.

    Args:
        file: the benchmark's file.
        task: the items' task.
        item_of: makes an item of an example and of an item that holds what all have in common.

    Raises:
        ConfigError: most examples are malformed; names the first.
    """
    # The string by which the benchmark's items are recognised in other data.
    metadata = {"canary": file.content["canary"]} if "canary" in file.content else {}
    items, malformed = [], []
    for number, example in enumerate(file.examples, start=1):
        blank = Item(task, query="", references=(), origin=f"{file.path} example {number}", metadata=metadata)
        try:
            items.append(item_of(example, blank))
        except _MalformedError as error:
            items.append(replace(blank, rejected=error.reason))
            malformed.append(f"{blank.origin}: {error}")
    if len(malformed) > MOST_MALFORMED * len(items):
        raise ConfigError(
            f"prompts: {malformed[0]}; {len(malformed)} of {len(items)} examples are malformed, so that the file is "
            f"not {file.shape}"
        )
    return grouped_by_story(items)


def _check_options(options: Sequence[str]) -> None:
    """Raises an error where an example's options leave nothing to choose."""
    if len(options) == 1:
        raise _MalformedError("only one option", "at least two options", list(options))
    if not all(options):
        raise _MalformedError("a blank option", "options with a text", list(options))


def _check_right(right: Sequence[int], options: Sequence[str]) -> None:
    """Raises an error where a right option reads like a wrong one."""
    wrong = {option for index, option in enumerate(options) if index not in right}
    if not wrong.isdisjoint(options[index] for index in right):
        raise _MalformedError(
            "a right option is also a wrong one", "right options unlike the wrong ones", list(options)
        )


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
    return _TaskFile(path, shape, content, content["examples"])


# --- grouping by story -----------------------------------------------------------------------------------------------

LARGEST_STORY = 10
"""In a file of few examples, a beginning that at most this many of them share still counts as a story."""
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def grouped_by_story(items: Sequence[Item]) -> list[Item]:
    """The items, with a group for each story: all sentences of the question but the last one.

    A beginning that most items share is an introduction and not a story; the group is then the whole question. Where
    many items share that too, as in `Which is right?`, it says nothing without its options, and they belong to it.
    """
    questions = [" ".join(read_options(item.query).question.split()) for item in items]
    sentences = [_SENTENCE_END.split(question) for question in questions]
    introduction = _introduction(sentences, max(len(items) / 2, LARGEST_STORY))
    counts = Counter(questions)
    grouped = []
    for item, question, (*story, _) in zip(items, questions, sentences, strict=True):
        if story != introduction[: len(story)]:
            beginning = " ".join(story)
        elif counts[question] <= LARGEST_STORY:
            beginning = question
        else:
            beginning = item.query
        grouped.append(replace(item, group=content_key("story", beginning)))
    return grouped


def _introduction(texts: list[list[str]], most: float) -> list[str]:
    """The sentences with which more than `most` of the texts begin."""
    introduction: list[str] = []
    while texts := [text for text in texts if len(text) > len(introduction)]:
        place = len(introduction)
        sentence, count = Counter(text[place] for text in texts).most_common(1)[0]
        if count <= most:
            break
        introduction.append(sentence)
        texts = [text for text in texts if text[place] == sentence]
    return introduction
