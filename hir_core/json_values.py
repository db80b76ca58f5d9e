"""JSON that others wrote, read as values that can be kept: finite numbers, whole characters, bounded nesting.

Python's own reader takes `NaN` and halves of characters, which no other program reads back, and nesting that ends the
program where the value is walked through later. Reads and writes no files.
"""

from __future__ import annotations

import json
import math
from typing import Any

DEEPEST = 100
"""How many lists and objects may lie in one another: more than any real file has."""


def parse_json(text: str | bytes, *, lone_surrogates: bool = False) -> Any:
    """The value of a JSON text; NaN and infinities, which JSON cannot express, become None.

    Args:
        text: the text; bytes are UTF-8, or UTF-16 or UTF-32 by their first bytes.
        lone_surrogates: whether texts may hold halves of characters, which escapes can make and UTF-8 cannot write.

    Raises:
        json.JSONDecodeError: it is no JSON.
        UnicodeError: it is no text, or one of its texts holds half of a character.
        ValueError: any of these, or it is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    return _kept(value, lone_surrogates)


def finite(value: Any) -> Any:
    """A plain value with None in place of NaN and infinities."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kept(value: Any, lone_surrogates: bool, depth: int = 0) -> Any:
    """What `parse_json` makes of a value at this depth."""
    if isinstance(value, str):
        return value if lone_surrogates else _whole(value)
    if not isinstance(value, (dict, list)):
        return finite(value)
    if depth == DEEPEST:
        raise _too_deep()
    if isinstance(value, list):
        return [_kept(item, lone_surrogates, depth + 1) for item in value]
    return {
        name if lone_surrogates else _whole(name): _kept(item, lone_surrogates, depth + 1)
        for name, item in value.items()
    }


def _whole(text: str) -> str:
    text.encode()
    return text


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects lie more than {DEEPEST} deep in one another")
