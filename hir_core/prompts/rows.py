"""Prompts from the rows of a user's table, whichever file or library a row comes from: what each column means.

A row asks its question in `query`, optionally after the turns in `history`, or in `messages`, a whole conversation that
ends with the user turn to be answered. Other columns: references (a list or one value; `reference` and `answer` mean
the same), options, task, group, split and metadata; all remaining columns are added to the metadata.

Options are written below the query, lettered unless they are letters themselves, in an order that depends on the seed;
references that name an option are replaced by its letter and its text. A query that already ends with its options stays
as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from hir_core.errors import ConfigError
from hir_core.json_values import finite, parse_json
from hir_core.prompts.forms import ANSWER_COLUMNS, OTHER_QUESTION_COLUMNS, Row, own_columns
from hir_core.prompts.items import Item
from hir_core.prompts.options import (
    MAX_OPTIONS,
    offer,
    option_index,
    option_references,
    read_options,
)
from hir_core.prompts.turns import Turns, is_empty, read_turns, refuse_empty_turns

QUESTION_COLUMNS = ("query", "messages", "history")
KNOWN_COLUMNS = {"prompt_id", "options", "task", "group", "split", "metadata", *QUESTION_COLUMNS, *ANSWER_COLUMNS}


def item_from_row(row: Row, origin: str, task: str, seed: int) -> Item:
    """The prompt that a row describes.

    Args:
        row: values by column; an empty cell is None, and so is a number that is not finite.
        origin: where the row stands, for messages.
        task: the task of a row that names none.
        seed: decides the order of the options.

    Raises:
        ConfigError: the row is malformed; names where it stands.
    """
    row = own_columns(finite(row), origin)
    empty = [name for name in ("query", "messages", *OTHER_QUESTION_COLUMNS) if name in row and row[name] is None]
    if empty and row.get("query") is None and row.get("messages") is None:
        raise ConfigError(f"prompts: {origin}: `{empty[0]}` is null: write the question, or delete the row")
    row = {name: value for name, value in row.items() if value is not None}
    question, history = read_question(row, origin)
    query, options, references = _offered(question, _options(row, origin), _references(row, origin), origin, seed)
    split = row.get("split")
    if split not in (None, "train", "test"):
        raise ConfigError(f"prompts: {origin}: `split` must be train or test, found {split!r}: leave others out")
    return Item(
        task=_text(row, "task", origin) or task,
        query=query,
        references=references,
        origin=origin,
        history=history,
        options=options,
        group=_text(row, "group", origin) or None,
        split=split,
        metadata=_metadata(row, origin),
    )


def _text(row: Row, column: str, origin: str) -> str:
    value = row.get(column, "")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigError(f"prompts: {origin}: `{column}` must be text, found {value!r}")
    return str(value)


def _metadata(row: Row, origin: str) -> Row:
    metadata = row.get("metadata", {})
    if isinstance(metadata, str):
        try:
            metadata = parse_json(metadata)
        except ValueError:
            metadata = {"metadata": metadata}
    if not isinstance(metadata, dict):
        raise ConfigError(f"prompts: {origin}: `metadata` must be an object, found {metadata!r}")
    return metadata | {name: value for name, value in row.items() if name not in KNOWN_COLUMNS}


# --- the question ----------------------------------------------------------------------------------------------------


def read_question(row: Row, origin: str) -> tuple[str, Turns]:
    """The query of a row and the turns before it; a row without a question has a blank query.

    Args:
        row: values by column, none of them None.
        origin: where the row stands, for messages.

    Raises:
        ConfigError: the row has no column for its question, or two, or its turns are malformed.
    """
    if "messages" in row:
        return _last_user_turn(row, origin)
    if "query" not in row:
        if near := difflib.get_close_matches("query", row, n=1):
            hint = f"rename `{near[0]}`"
        elif near := difflib.get_close_matches("messages", row, n=1):
            hint = f"rename `{near[0]}` to `messages`"
        else:
            hint = (
                "name the column that holds the question `query`, or that of a conversation `messages`, or say in the "
                "source's `columns` which one it is"
            )
        raise ConfigError(f"prompts: {origin}: expected a `query`, found {', '.join(row) or 'nothing'}: {hint}")
    if not isinstance(row["query"], str):
        raise ConfigError(f"prompts: {origin}: `query` must be text, found {row['query']!r}")
    history = read_turns(row.get("history", []), "history", origin)
    refuse_empty_turns(history, "history", origin)
    return row["query"], history


def _last_user_turn(row: Row, origin: str) -> tuple[str, Turns]:
    """The last turn of `messages`, as the query, and the turns before it."""
    if doubled := [name for name in ("query", "history") if not is_empty(row.get(name))]:
        raise ConfigError(
            f"prompts: {origin}: `messages` and `{doubled[0]}` both hold the question: keep `messages`, which holds "
            "all turns, or leave it out"
        )
    turns = read_turns(row["messages"], "messages", origin)
    if not turns:
        return "", ()
    *earlier, last = turns
    if last["role"] != "user":
        raise ConfigError(
            f"prompts: {origin}: `messages` must end with the user turn that is to be answered, found a turn of "
            f"{last['role']}: drop it, or give an answer under `references`"
        )
    refuse_empty_turns(earlier, "messages", origin)
    return last["content"], tuple(earlier)


# --- references and options ------------------------------------------------------------------------------------------


def _references(row: Row, origin: str) -> tuple[str, ...]:
    columns = [name for name in ANSWER_COLUMNS if name in row]
    if len(columns) > 1:
        raise ConfigError(f"prompts: {origin}: {' and '.join(columns)} mean the same: keep one of them")
    values = row[columns[0]] if columns else []
    values = values if isinstance(values, list) else [values]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ConfigError(f"prompts: {origin}: a reference must be text or a number, found {value!r}")
    return tuple(dict.fromkeys(str(value) for value in values if str(value).strip()))  # a blank answer is no answer


def _options(row: Row, origin: str) -> tuple[str, ...]:
    options = row.get("options", [])
    if not isinstance(options, list) or not all(isinstance(option, str) and option.strip() for option in options):
        raise ConfigError(f"prompts: {origin}: `options` must be a list of texts, found {options!r}")
    if len(options) > MAX_OPTIONS or len(set(options)) < len(options):
        raise ConfigError(f"prompts: {origin}: expected at most {MAX_OPTIONS} different options, found {options!r}")
    return tuple(options)


def _offered(
    query: str, options: tuple[str, ...], references: tuple[str, ...], origin: str, seed: int
) -> tuple[str, tuple[str, ...] | None, tuple[str, ...]]:
    """The query, which ends with its options, the options, and references that name them; None for a free answer."""
    _, in_query, lettered = read_options(query)
    if not query.strip() or not (options or in_query):  # a blank query stays blank, so that it is rejected as one
        return query, None, references
    if options and in_query and options != in_query:
        raise ConfigError(
            f"prompts: {origin}: `options` {options!r} are not those in the query, {in_query!r}: drop one"
        )
    right = list(dict.fromkeys(_option_index(reference, options or in_query, origin) for reference in references))
    if in_query:
        return query, in_query, option_references(right, in_query, lettered=lettered)
    offered = offer(query, options, right, seed)
    return offered.query, offered.options, offered.references


def _option_index(reference: str, options: Sequence[str], origin: str) -> int:
    index = option_index(reference, options)
    if index is None:
        raise ConfigError(f"prompts: {origin}: the reference {reference!r} is none of the options {list(options)!r}")
    return index
