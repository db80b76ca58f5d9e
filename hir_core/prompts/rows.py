"""Rows of a user's table as prompts: what each column means, whichever file or library the row comes from.

Columns: query or messages, references (a list or one value; `reference` and `answer` mean the same), options, task,
group, split, metadata; anything else goes into metadata. Options are offered in an order decided by the seed, lettered
below the query, and references that name one are rewritten to its letter and text. A query that already ends with its
options is left as it is. What a row asks is read by `questions`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hir_core.errors import ConfigError
from hir_core.prompts.items import Item, Split
from hir_core.prompts.options import MAX_OPTIONS, accepted, letter, read_options, shuffled_options, with_options
from hir_core.prompts.questions import QUESTION_COLUMNS, read_question

Row = dict[str, Any]
ANSWER_COLUMNS = ("references", "reference", "answer")
KNOWN_COLUMNS = {"prompt_id", "options", "task", "group", "split", "metadata", *QUESTION_COLUMNS, *ANSWER_COLUMNS}


def item_from_row(row: Row, place: str, task: str, seed: int) -> Item:
    """The prompt that a row describes.

    Args:
        row: values by column; an empty one is None.
        place: where the row stands, for messages.
        task: task name for a row that carries none.
        seed: decides the order of options.

    Raises:
        ConfigError: the row is malformed; names its place.
    """
    row = {name: value for name, value in row.items() if value is not None}
    asked, history = read_question(row, place)
    query, options, references = _offer(asked, _options(row, place), _references(row, place), place, seed)
    return Item(
        task=_text(row, "task", place) or task,
        query=query,
        references=references,
        place=place,
        history=history,
        options=options,
        group=_text(row, "group", place) or None,
        split=_split(row, place),
        metadata=_metadata(row, place),
    )


def _references(row: Row, place: str) -> tuple[str, ...]:
    given = [name for name in ANSWER_COLUMNS if name in row]
    if len(given) > 1:
        raise ConfigError(f"prompts: {place}: {' and '.join(given)} mean the same: keep one of them")
    values = row[given[0]] if given else []
    answers = [_answer(value, place) for value in (values if isinstance(values, list) else [values])]
    return tuple(dict.fromkeys(answer for answer in answers if answer.strip()))  # a blank answer is no answer


def _answer(value: Any, place: str) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(f"prompts: {place}: a reference must be text or a number, found {value!r}")
    return str(value)


def _options(row: Row, place: str) -> tuple[str, ...]:
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise ConfigError(f"prompts: {place}: `options` must be a list of texts, found {options!r}")
    if len(options) > MAX_OPTIONS or len(set(options)) < len(options):
        raise ConfigError(f"prompts: {place}: expected at most {MAX_OPTIONS} different options, found {options!r}")
    return tuple(options)


def _offer(
    query: str, options: tuple[str, ...], references: tuple[str, ...], place: str, seed: int
) -> tuple[str, tuple[str, ...] | None, tuple[str, ...]]:
    """The query with its options in their final order, and the references in the same letters."""
    _, written, lettered = read_options(query)
    if not query.strip() or not (options or written):  # a blank query stays blank, to be rejected as one
        return query, None, references
    if options and written and options != written:
        raise ConfigError(f"prompts: {place}: `options` {options!r} are not those in the query, {written!r}: drop one")
    right = [_option_named(reference, options or written, place) for reference in references]
    if written:
        return query, written, accepted(list(dict.fromkeys(right)), written, lettered=lettered)
    order = shuffled_options(query, options, seed)
    moved = sorted({order.index(options[index]) for index in right})
    return with_options(query, order), tuple(order), accepted(moved, order)


def _option_named(reference: str, options: Sequence[str], place: str) -> int:
    """The option that a reference means: by its text first, since an option's text may look like a letter."""
    if reference in options:
        return options.index(reference)
    name = f"({reference.strip().strip('().').upper()})"
    names = [letter(index) for index in range(len(options))]
    if name in names:
        return names.index(name)
    raise ConfigError(f"prompts: {place}: the reference {reference!r} is none of the options {list(options)!r}")


def _text(row: Row, name: str, place: str) -> str:
    value = row.get(name, "")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigError(f"prompts: {place}: `{name}` must be text, found {value!r}")
    return str(value)


def _split(row: Row, place: str) -> Split | None:
    match row.get("split"):
        case None:
            return None
        case "train":
            return "train"
        case "test":
            return "test"
        case other:
            raise ConfigError(f"prompts: {place}: `split` must be train or test, found {other!r}: leave others out")


def _metadata(row: Row, place: str) -> Row:
    given = row.get("metadata", {})
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            given = {"metadata": given}
    if not isinstance(given, dict):
        raise ConfigError(f"prompts: {place}: `metadata` must be an object, found {given!r}")
    return given | {name: value for name, value in row.items() if name not in KNOWN_COLUMNS}
