"""What a row asks: its `query`, or the last turn of its `messages`, with the turns before it.

    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 17 + 25?"}]}

A table that hir wrote holds the turns before its `query` under `history`, and reads back as the same prompts. What the
turns become in front of a model is left to the launch.
"""

from __future__ import annotations

import difflib
from typing import Any

from hir_core.conversations import ROLES
from hir_core.errors import ConfigError

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
