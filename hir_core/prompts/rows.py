"""Rows of a user's table as prompts: what each column means, whichever file or library the row comes from.

Columns: query or messages, references (a list or one value; `reference` and `answer` mean the same), options, task,
group, split, metadata; anything else goes into metadata. Options are offered in an order decided by the seed, lettered
below the query, and references that name one are rewritten to its letter and text. A query that already ends with its
options is left as it is. What a row asks is read by `questions`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from typing import Any

from hir_core.errors import ConfigError
from hir_core.prompts.items import Item, Split
from hir_core.prompts.options import MAX_OPTIONS, accepted, letter, read_options, shuffled_options, with_options
from hir_core.schemas import ROLES

QUESTION_COLUMNS = ("query", "messages", "history")
Turns = tuple[dict[str, str], ...]


def read_question(row: dict[str, Any], place: str) -> tuple[str, Turns]:
    """The query of a row, and the turns before it; a row that asks nothing has a blank query.

    Args:
        row: values by column, none of them None.
        place: where the row stands, for messages.

    Raises:
        ConfigError: the row has no question, or two, or its turns are malformed.
    """
    if "messages" in row:
        return _last_of(row, place)
    query, history = _query(row, place), _turns(row.get("history", []), "history", place)
    _all_speak(history, "history", place)
    return query, history


def _query(row: dict[str, Any], place: str) -> str:
    if "query" not in row:
        raise ConfigError(
            f"prompts: {place}: expected a `query`, found {', '.join(row) or 'nothing'}: {_what_to_rename(row)}"
        )
    if not isinstance(row["query"], str):
        raise ConfigError(f"prompts: {place}: `query` must be text, found {row['query']!r}")
    return row["query"]


def _what_to_rename(row: dict[str, Any]) -> str:
    for name in ("query", "messages"):
        if near := difflib.get_close_matches(name, row, n=1):
            return f"rename `{near[0]}`" if name == "query" else f"rename `{near[0]}` to `{name}`"
    return "name the column that holds the question `query`, or that of a conversation `messages`"


def _last_of(row: dict[str, Any], place: str) -> tuple[str, Turns]:
    """The last user turn, as the query, and what was said before it."""
    if twice := [name for name in ("query", "history") if not _is_blank(row.get(name))]:
        raise ConfigError(
            f"prompts: {place}: `messages` and `{twice[0]}` both say what is asked: keep `messages`, which holds all "
            "turns, or leave it out"
        )
    turns = _turns(row["messages"], "messages", place)
    if not turns:
        return "", ()
    *before, last = turns
    if last["role"] != "user":
        raise ConfigError(
            f"prompts: {place}: `messages` must end with the user turn that is to be answered, found a turn of "
            f"{last['role']}: drop it, or give an answer under `references`"
        )
    _all_speak(tuple(before), "messages", place)
    return last["content"], tuple(before)


def _is_blank(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _turns(value: Any, column: str, place: str) -> Turns:
    if not isinstance(value, list):
        raise ConfigError(
            f'prompts: {place}: `{column}` must be a list of turns, like {{"role": "user", "content": "2 + 2?"}}, '
            f"found {value!r}"
        )
    return tuple(_turn(turn, f"prompts: {place}: turn {number} of `{column}`") for number, turn in enumerate(value, 1))


def _turn(turn: Any, where: str) -> dict[str, str]:
    """The role and content of a turn; of what else it may hold only what is empty is passed over."""
    if not isinstance(turn, dict):
        raise ConfigError(f"{where} must hold a `role` and a `content`, found {turn!r}")
    given = {name: value for name, value in turn.items() if not _is_blank(value)}
    if given.get("role") not in ROLES:
        raise ConfigError(f"{where} must have one of the roles {', '.join(ROLES)}, found {turn.get('role')!r}")
    if not isinstance(turn.get("content"), str):
        raise ConfigError(f"{where} must have text as its `content`, found {turn.get('content')!r}")
    if strange := sorted(given.keys() - {"role", "content"}):
        raise ConfigError(f"{where} holds `{strange[0]}`, which no prompt has a place for: drop it, or write it out")
    return {"role": turn["role"], "content": turn["content"]}


def _all_speak(turns: Turns, column: str, place: str) -> None:
    for number, turn in enumerate(turns, 1):
        if not turn["content"].strip():
            raise ConfigError(f"prompts: {place}: turn {number} of `{column}` ({turn['role']}) says nothing: drop it")


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
