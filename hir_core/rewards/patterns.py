"""Regular expressions as work under a time limit: some take longer than the universe on a text of forty characters."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hir_core.progress import OnRows, ignore
from hir_core.rewards.time_limit import Answer, Work, answers


def find(
    pattern: str,
    texts: list[str],
    *,
    group: int | str = 0,
    how: str = "search",
    limit_s: float,
    on_rows: OnRows = ignore,
) -> list[Answer]:
    """What a group of the pattern matches in each text, as a list of one; an empty list where nothing matches.

    Args:
        pattern: a regular expression of Python's `re`.
        group: by number or name; one that took no part in the match is None.
        how: `search` for the first place, `last` for the last one, `fullmatch` for the whole text.
        limit_s: seconds for one text.
        on_rows: told how many texts are done.
    """
    settings = {"pattern": pattern, "group": group, "how": how}
    return answers(Work("hir_core.rewards.patterns:make_finder", settings), texts, limit_s, on_rows)


def make_finder(settings: dict[str, Any]) -> Callable[[str], list[str | None]]:
    """The work of `find`, for the process that does it."""
    compiled, group = re.compile(settings["pattern"]), settings["group"]

    def last(text: str) -> re.Match[str] | None:
        found = None
        for match in compiled.finditer(text):
            found = match
        return found

    ways: dict[str, Callable[[str], re.Match[str] | None]] = {
        "search": compiled.search,
        "fullmatch": compiled.fullmatch,
        "last": last,
    }
    look = ways[settings["how"]]

    def finder(text: str) -> list[str | None]:
        match = look(text)
        return [match[group]] if match else []

    return finder
