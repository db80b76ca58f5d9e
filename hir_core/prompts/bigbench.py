"""BIG-bench task files: a `task.json` whose examples have an `input` and `target_scores`, a `target`, or both.

Options, where there are any, are offered below the question: lettered, in an order decided by the seed, because some
files name the right one first. Every option with the best score is accepted, and so is every `target`. The task's own
prefix and the example's stand before the question. Cues for completing a list of examples (`example_output_prefix`,
`choice_prefix`, `append_choices_to_input`) are left out: hir's instruction and options block do their work.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import Any

from hir_core.config import BigBenchHardPrompts, BigBenchPrompts
from hir_core.errors import ConfigError
from hir_core.prompts.items import Item
from hir_core.prompts.options import (
    MAX_OPTIONS,
    Written,
    accepted,
    letter,
    read_options,
    shuffled_options,
    with_options,
)
from hir_core.schemas import content_key

SHAPE = '{"examples": [{"input", "target_scores" or "target"}]} of BIG-bench'
FAMILIES = ("logical_deduction", "tracking_shuffled_objects")  # their tasks lie one folder below, as `three_objects`
_READ = {"input", "target", "target_scores"}


def read_bigbench(source: BigBenchPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Reads every example of a BIG-bench file, in order.

    Raises:
        ConfigError: the file is missing or has another shape; names the example.
    """
    data = read_examples(source.path, SHAPE)
    task = source.task or task_name(source.path)
    prefix = _joined(*(_prefix(data, name, source.path) for name in ("task_prefix", "example_input_prefix")))
    return grouped_by_story(
        _item(_Example(example, f"{source.path} example {number}"), task, prefix, source.seed, canary(data))
        for number, example in enumerate(data["examples"], start=1)
    )


def task_name(path: Path) -> str:
    """A task's name from where its file lies: its folder's, led by that of its family; else the file's own."""
    if path.stem != "task":
        return path.stem
    folder = path.resolve().parent
    return f"{folder.parent.name}_{folder.name}" if folder.parent.name in FAMILIES else folder.name


class _Example:
    """One example of the file, checked.

    Raises:
        ConfigError: it has another shape; names it.
    """

    def __init__(self, example: Any, place: str) -> None:
        self.place = place
        if not isinstance(example, dict) or not isinstance(example.get("input"), str):
            raise self._wrong("a text `input`", example)
        self.input: str = example["input"]
        self.scores = self._scores(example)
        self.targets = self._targets(example)
        self.more = {name: value for name, value in example.items() if name not in _READ}

    def _scores(self, example: dict[str, Any]) -> dict[str, float]:
        """Options, blanks within them evened out, with their scores; of two that read the same the better counts."""
        given = example.get("target_scores") or {}
        if not isinstance(given, dict) or not all(isinstance(score, (int, float)) for score in given.values()):
            raise self._wrong("`target_scores` with a number for each option", given)
        scores: dict[str, float] = {}
        for option, score in given.items():
            text = " ".join(option.split())
            scores[text] = max(score, scores.get(text, score))
        return scores

    def _targets(self, example: dict[str, Any]) -> tuple[str, ...]:
        given = example.get("target")
        targets = given if isinstance(given, list) else [] if given is None else [given]
        if not all(isinstance(target, (str, int, float)) and not isinstance(target, bool) for target in targets):
            raise self._wrong("`target` as a text, a number or a list of them", given)
        texts = (str(target).strip() for target in targets)
        return tuple(dict.fromkeys(text for text in texts if text))

    def _wrong(self, expected: str, found: Any) -> ConfigError:
        return ConfigError(f"prompts: {self.place}: expected {expected}, found {found!r}")

    def accepted_texts(self) -> tuple[str, ...]:
        """Every option with the best score above 0, then every target."""
        best = max(self.scores.values(), default=0)
        golds = [option for option, score in self.scores.items() if score == best and score > 0]
        return tuple(dict.fromkeys([*golds, *self.targets]))


def _item(example: _Example, task: str, prefix: str, seed: int, metadata: dict[str, Any]) -> Item:
    question, answers = _joined(prefix, example.input).strip(), example.accepted_texts()
    item = Item(task=task, query=question, references=answers, place=example.place, metadata=example.more | metadata)
    if not question or not 0 < len(example.scores) <= MAX_OPTIONS:  # more options than letters: a free answer
        return item
    options = shuffled_options(question, list(example.scores), seed)
    right = [place for place, option in enumerate(options) if option in answers]
    others = [answer for answer in answers if answer not in options]
    return replace(
        item,
        query=with_options(question, options),
        options=tuple(options),
        references=(*accepted(right, options), *others),
    )


def _prefix(data: dict[str, Any], name: str, path: Path) -> str:
    value = data.get(name) or ""
    if not isinstance(value, str):
        raise ConfigError(f"prompts: {path}: expected `{name}` to be text, found {value!r}")
    return value


def _joined(first: str, second: str) -> str:
    """Both texts, on lines of their own where no blank stands between them."""
    touching = first and second and not first[-1].isspace() and not second[0].isspace()
    return f"{first}\n{second}" if touching else first + second


BBH_SHAPE = '{"examples": [{"input", "target"}]} of BIG-Bench-Hard'


def read_bbh(source: BigBenchHardPrompts, taken: AbstractSet[str]) -> list[Item]:  # noqa: ARG001 - the readers' signature
    """Reads every example of a BIG-Bench-Hard file, in order.

    Raises:
        ConfigError: the file is missing or has another shape; names the example.
    """
    data = read_examples(source.path, BBH_SHAPE)
    return grouped_by_story(
        _bbh_item(example, f"{source.path} example {number}", source.path.stem, canary(data))
        for number, example in enumerate(data["examples"], start=1)
    )


def _bbh_item(example: Any, place: str, task: str, metadata: dict[str, Any]) -> Item:
    if not isinstance(example, dict) or not all(isinstance(example.get(key), str) for key in ("input", "target")):
        raise ConfigError(f"prompts: {place}: expected texts `input` and `target`, found {example!r}")
    query = example["input"]
    written = read_options(query)
    return Item(
        task=task,
        query=query,
        references=_bbh_references(written, example["target"].strip()),
        place=place,
        options=written.options or None,
        metadata=metadata,
    )


def _bbh_references(written: Written, target: str) -> tuple[str, ...]:
    """The target; where it names an option, by that option's letter and text."""
    names = [letter(index) for index in range(len(written.options))]
    right = _places(target, names) if written.lettered else []
    right = right or _places(target, written.options)
    named = accepted(right, written.options, lettered=written.lettered)
    return named or ((target,) if target else ())


def _places(target: str, names: Sequence[str]) -> list[int]:
    return [index for index, name in enumerate(names) if name == target]


def read_examples(path: Path, shape: str) -> dict[str, Any]:
    """The object in a benchmark's file, its `examples` a list.

    Args:
        path: the file.
        shape: what it should hold, for messages.

    Raises:
        ConfigError: the file is missing or has another shape.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"prompts: {path} is not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("examples"), list):
        raise ConfigError(f"prompts: {path}: expected {shape}")
    return data


def canary(data: dict[str, Any]) -> dict[str, Any]:
    """The mark by which a benchmark can be recognised wherever its items go; nothing where the file has none."""
    return {"canary": data["canary"]} if "canary" in data else {}


LARGEST_STORY = 10  # questions that one story may be asked in a small file
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


def grouped_by_story(items: Iterable[Item]) -> list[Item]:
    """The items, grouped by their stories.

    A beginning that most of them share is a preamble and not a story: there the whole text counts as the story.
    """
    items = list(items)
    texts = [" ".join(read_options(item.query).before.split()) for item in items]
    stories = [_story(text) for text in texts]
    shared, preamble = Counter(stories), max(len(items) / 2, LARGEST_STORY)
    return [
        replace(item, group=content_key("story", text if shared[story] > preamble else story))
        for item, text, story in zip(items, texts, stories, strict=True)
    ]


def _story(text: str) -> str:
    sentences = _SENTENCE_END.split(text)
    return " ".join(sentences[:-1]) if len(sentences) > 1 else text
