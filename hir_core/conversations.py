"""Conversations: the turns that stand before a query, and how they read as plain text.

A prompt of several turns is its last user turn, the `query`, and its `history`: the turns before that one, each a
`role` and a `content`. Reads and writes nothing. Leaves what a row of a file may hold to `prompts`, and what a chat
template makes of turns to `rendering`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ROLES = ("system", "user", "assistant")
History = Sequence[Mapping[str, str]]
"""Turns, the first one first, each a mapping of `role` and `content`: as tables hold and chat templates take them."""


def as_lines(history: History | None) -> str:
    """The turns as `User: …`, one below the other, each with a line end; empty where there are none.

    The labels are plain text, which a turn may hold as well: only a chat template keeps turns apart for certain.
    """
    return "".join(f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in history or ())


def as_text(history: History | None, query: str) -> str:
    """What was asked, for a reader: the query as it is, or, where turns stand before it, all of them as lines."""
    asked = {"role": "user", "content": query}
    return as_lines([*history, asked]).removesuffix("\n") if history else query
