"""Rows in the forms that people have their data in, as rows with hir's own columns.

`own_columns` reads these forms; a row with a `query`, or with `messages` that end with a user turn, stays as it is:

| columns | of |
|---|---|
| `messages` that end with an answer | chats to train on |
| `prompt`, with or without a `completion`; texts or lists of turns | TRL |
| `conversations` with `from` and `value` | ShareGPT |
| `question` and `answer` | many benchmarks |
| `instruction`, `input` and `output` | Alpaca |

An answer found so becomes the reference, unless the row has references of its own. `renamed` applies a mapping of
columns that a config gives. What the columns then mean is up to `rows`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hir_core.errors import ConfigError, did_you_mean
from hir_core.prompts.turns import is_empty

Row = dict[str, Any]
ANSWER_COLUMNS = ("references", "reference", "answer")
OTHER_QUESTION_COLUMNS = ("prompt", "question", "conversations", "instruction")
"""Columns that hold the question of a row that has no `query` and no `messages`."""
TEXT_QUESTIONS = ("query", "prompt", "question", "instruction")
SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}
"""The roles of ShareGPT's turns that have other names here."""


def own_columns(row: Row, origin: str) -> Row:
    """The row with its question in `query` or `messages`, and its answer in a column of answers.

    Args:
        row: values by column.
        origin: where the row stands, for messages.

    Raises:
        ConfigError: two columns could hold the question, or a conversation is malformed.
    """
    if row.get("query") is None and row.get("messages") is None:
        row = _with_a_question(row, origin)
    turns = row.get("messages")
    if isinstance(turns, list) and (answer := _final_answer(turns)):
        row = _with_answer(row | {"messages": turns[:-1]}, answer)
    return row


def _with_a_question(row: Row, origin: str) -> Row:
    found = [name for name in OTHER_QUESTION_COLUMNS if not is_empty(row.get(name))]
    found = found or [name for name in TEXT_QUESTIONS if isinstance(row.get(name), str)][:1]  # a blank one
    if len(found) > 1:
        raise ConfigError(
            f"prompts: {origin}: `{found[0]}` and `{found[1]}` could both be the question: name one of them in the "
            "source's `columns`, as in `columns: {query: " + found[0] + "}`"
        )
    if not found:
        return row
    question, rest = row[found[0]], {name: value for name, value in row.items() if name != found[0]}
    match found[0]:
        case "conversations":
            return rest | {"messages": _sharegpt_turns(question, origin)}
        case "instruction":
            context, answer = rest.pop("input", None), rest.pop("output", None)
            query = question if is_empty(context) else f"{question}\n\n{context}"
            return _with_answer(rest | {"query": query}, answer)
        case "prompt":
            completion = rest.pop("completion", None)
            answer = _final_answer(completion) if isinstance(completion, list) else completion
            return _with_answer(rest | {"messages" if isinstance(question, list) else "query": question}, answer)
    return rest | {"query": question}


def _with_answer(row: Row, answer: Any) -> Row:
    """The row with this answer as its reference, unless there is none or the row has references."""
    if is_empty(answer) or any(not is_empty(row.get(name)) for name in ANSWER_COLUMNS):
        return row
    return row | {"references": [answer]}


def _final_answer(turns: list[Any]) -> str | None:
    """The text of the last turn where it is an answer of the assistant; None where it is anything else."""
    match turns:
        case [*_, {"role": "assistant", "content": str(text), **more}] if text.strip() and is_empty(
            more.get("tool_calls")
        ):
            return text
    return None


def _sharegpt_turns(value: Any, origin: str) -> Any:
    """The turns with `role` and `content`; turns that have these already, and what are no turns, stay as they are."""
    if not isinstance(value, list):
        raise ConfigError(
            f'prompts: {origin}: `conversations` must be a list of turns, like {{"from": "human", "value": "2 + 2?"}}, '
            f"found {value!r}"
        )
    turns = []
    for turn in value:
        if isinstance(turn, dict) and "from" in turn and "role" not in turn:
            other = {name: field for name, field in turn.items() if name not in ("from", "value")}
            role = SHAREGPT_ROLES.get(turn["from"], turn["from"]) if isinstance(turn["from"], str) else turn["from"]
            turn = {"role": role, "content": turn.get("value")} | other
        turns.append(turn)
    return turns


def renamed(row: Row, columns: Mapping[Any, str], origin: str) -> Row:
    """The row under hir's names, with the columns that are not mapped as metadata; unchanged without a mapping.

    Args:
        row: values by column.
        columns: by hir's column, the row's; `choices.text` means the field `text` of the column `choices`.
        origin: where the row stands, for messages.

    Raises:
        ConfigError: the row has no such column.
    """
    if not columns:
        return row
    renamed: Row = {}
    mapped = set()
    for name, column in columns.items():
        outer, _, field = column.partition(".")
        fields = row.get(outer)
        if column in row:
            mapped.add(column)
            renamed[name] = row[column]
        elif field and isinstance(fields, dict) and field in fields:
            mapped.add(outer)
            renamed[name] = fields[field]
        else:
            hint = did_you_mean(column, row) or f"; there are {', '.join(row)}"
            raise ConfigError(f"prompts: {origin}: no column `{column}`{hint}")
    return {"metadata": {name: value for name, value in row.items() if name not in mapped}} | renamed
