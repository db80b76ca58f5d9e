"""The turns of a conversation as a row of a user's table gives them: each with a role and its text.

A turn has a `role` and a `content`. The calls of tools in an assistant's turn become part of its text, a line of JSON
for each. Raises ConfigError; which turns a prompt needs is up to `rows`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from hir_core.errors import ConfigError
from hir_core.json_values import parse_json
from hir_core.schemas import ROLES

Turns = tuple[dict[str, str], ...]
_LINKS = {"tool": {"name", "tool_call_id"}}
"""By role, fields that say to which call a turn belongs. The order of the turns tells it too, so they are left out."""


def read_turns(value: Any, column: str, origin: str) -> Turns:
    """The role and the text of each turn; fields that a prompt cannot hold must be empty.

    Args:
        column: the column of the row that holds the turns, for messages.
        origin: where the row stands, for messages.

    Raises:
        ConfigError: it is no list of turns, or one of them is malformed; names the turn.
    """
    if not isinstance(value, list):
        raise ConfigError(
            f'prompts: {origin}: `{column}` must be a list of turns, like {{"role": "user", "content": "2 + 2?"}}, '
            f"found {value!r}"
        )
    return tuple(
        _read_turn(turn, f"prompts: {origin}: turn {number} of `{column}`")
        for number, turn in enumerate(value, start=1)
    )


def _read_turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise ConfigError(f"{where} must hold a `role` and a `content`, found {turn!r}")
    fields = {name: field for name, field in turn.items() if not is_empty(field)}
    role, content = fields.get("role"), turn.get("content")
    if role not in ROLES:
        raise ConfigError(f"{where} must have one of the roles {', '.join(ROLES)}, found {turn.get('role')!r}")
    calls = fields.get("tool_calls") if role == "assistant" else None
    if calls is not None and content is None:
        content = ""
    if not isinstance(content, str):
        raise ConfigError(f"{where} must have text as its `content`, found {content!r}")
    known = {"role", "content"} | _LINKS.get(role, set()) | ({"tool_calls"} if role == "assistant" else set())
    if unknown := sorted(fields.keys() - known):
        raise ConfigError(
            f"{where} has a field `{unknown[0]}`, which prompts cannot hold: drop it, or add it to the content"
        )
    if calls is not None:
        content = "\n".join([*([content] if content.strip() else []), *_calls_as_lines(calls, where)])
    return {"role": role, "content": content}


def _calls_as_lines(calls: Any, where: str) -> list[str]:
    """Each call as an object with its `name` and `arguments`, which may stand in its `function`."""
    lines = []
    for call in calls if isinstance(calls, list) else [calls]:
        function = call.get("function") or call if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ConfigError(
                f"{where} must have calls as its `tool_calls`, each with a `name` and `arguments`, found {call!r}"
            )
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            with suppress(ValueError):  # otherwise it stays the text that it is
                arguments = parse_json(arguments)
        lines.append(json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False))
    return lines


def refuse_empty_turns(turns: Sequence[dict[str, str]], column: str, origin: str) -> None:
    """Makes sure that every turn says something.

    Raises:
        ConfigError: names the first that does not.
    """
    for number, turn in enumerate(turns, start=1):
        if not turn["content"].strip():
            raise ConfigError(f"prompts: {origin}: turn {number} of `{column}` ({turn['role']}) is empty: drop it")


def is_empty(value: Any) -> bool:
    """Whether a field of a turn, or a cell of a row, holds nothing."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip())
