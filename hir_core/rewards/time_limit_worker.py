"""The process that works on rows for `answering`: a line of JSON in, a line of JSON out, until there are no more.

The first line names the work. Nothing but answers reaches the pipe: what the work prints goes to standard error, and
its standard input is empty. It ends with the driver. Starts fast, so it imports only what the work needs.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from hir_core.supervisor import PR_SET_PDEATHSIG

RowFunction = Callable[[Any], Any]


def main() -> None:
    """Answers every row of the work that the first line names."""
    rows, replies = _take_pipes()
    first = json.loads(rows.readline() or "null")
    if first is None or not _is_tied_to(first["parent"]):
        return
    work = _reply(replies, lambda: _make(first["maker"], first["settings"]), shows_value=False)
    for line in rows if work is not None else ():
        _reply(replies, partial(work, json.loads(line)))


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes to the driver, moved to where no code of a user's expects them."""
    rows, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return rows, replies


def _is_tied_to(parent: int) -> bool:
    """Arranges to be killed with the driver, and tells whether it is still alive."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    return os.getppid() == parent


def _make(maker: str, settings: dict[str, Any]) -> RowFunction:
    module, _, function = maker.partition(":")
    made: RowFunction = getattr(importlib.import_module(module), function)(settings)
    return made


def _reply(replies: BinaryIO, work: Callable[[], Any], *, shows_value: bool = True) -> Any:
    """Does some work, sends its value or its error, and returns the value."""
    value = None
    try:
        value = work()
        reply = json.dumps({"value": value if shows_value else None})
    except (Exception, SystemExit) as error:  # noqa: BLE001 - code of the user's: anything may come
        reply = json.dumps({"type": type(error).__name__, "message": str(error)})
    sys.stdout.flush()
    replies.write(reply.encode() + b"\n")
    replies.flush()
    return value
