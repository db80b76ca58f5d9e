"""Regular expressions on many texts under a time limit: some patterns never end on a text of forty characters.

Used by the rewards `regex` and `judge`. Imports little, because the process under the time limit imports it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hir_core.progress import OnRows, ignore
from hir_core.time_limit import RowResult, Work, process_rows


def find(
    pattern: str,
    texts: list[str],
    *,
    group: int | str = 0,
    how: str = "search",
    limit_s: float,
    on_rows: OnRows = ignore,
) -> list[RowResult]:
    """What a group of the pattern matches in each text, as a list of one; an empty list where nothing matches.

    Args:
        pattern: a regular expression of Python's `re`.
        group: by number or name; its value is None where it took no part in the match.
        how: `search` for the first match, `last` for the last one, `fullmatch` for the whole text.
        limit_s: seconds of processor time for one text.
        on_rows: called with how many texts are done, and of how many.
    """
    settings = {"pattern": pattern, "group": group, "how": how}
    return process_rows(
        Work("hir_core.rewards.patterns:make_finder", settings, only_computes=True), texts, limit_s, on_rows
    )


def make_finder(settings: dict[str, Any]) -> Callable[[str], list[str | None]]:
    """The function that the process under a time limit runs on each text, made from the settings of `find`."""
    pattern, group = re.compile(settings["pattern"]), settings["group"]

    def last(text: str) -> re.Match[str] | None:
        last_match = None
        for match in pattern.finditer(text):
            last_match = match
        return last_match

    searches: dict[str, Callable[[str], re.Match[str] | None]] = {
        "search": pattern.search,
        "fullmatch": pattern.fullmatch,
        "last": last,
    }
    search = searches[settings["how"]]

    def find_group(text: str) -> list[str | None]:
        match = search(text)
        return [match[group]] if match else []

    return find_group
