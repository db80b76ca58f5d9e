"""The process that `time_limit` starts to work on rows: for each line of JSON that it reads, it writes one.

The first line names the work; the process ends with its input, and is killed when its parent ends. Only replies are
written to the pipe: what the work prints goes to standard error, and its standard input is empty. The process starts
again after every row that takes too long, so this module imports only what the work needs.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from hir_core.supervisor import die_with_parent

RowFunction = Callable[[Any], Any]


def main() -> None:
    """Replies to every row with the work that the first line names."""
    rows, replies = _take_pipes()
    first = json.loads(rows.readline() or "null")
    if first is None:
        return
    die_with_parent()
    if os.getppid() != first["parent"]:  # it ended before that
        return

    def make() -> RowFunction:
        module, _, function = first["maker"].partition(":")
        work: RowFunction = getattr(importlib.import_module(module), function)(first["settings"])
        return work

    work = _reply(replies, make, sends_value=False)
    for line in rows if work is not None else ():
        row_work = partial(work, json.loads(line))
        _reply(replies, partial(_within, first["cpu_limit_s"], row_work) if first["cpu_limit_s"] else row_work)


def _within(cpu_limit_s: float, work: Callable[[], Any]) -> Any:
    """Does some work; beyond a limit of processor time the system ends the process with SIGPROF."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
    try:
        return work()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """The pipes from and to the parent, moved to other descriptors than 0 and 1, which the user's code may use."""
    rows, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.dup2(2, 1)
    return rows, replies


def _reply(replies: BinaryIO, work: Callable[[], Any], *, sends_value: bool = True) -> Any:
    """Does some work, sends its value or its error, and returns the value; None where it raised."""
    value = None
    try:
        value = work()
        reply = json.dumps({"value": value if sends_value else None})
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's code may raise anything
        reply = json.dumps({"type": type(error).__name__, "message": str(error)})
    sys.stdout.flush()
    replies.write(reply.encode() + b"\n")
    replies.flush()
    return value
