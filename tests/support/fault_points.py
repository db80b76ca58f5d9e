"""Faults at the n-th change that a process makes to the file system, so that a test can try each of them."""

import os
import sys
from collections.abc import Callable
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def strike_at(step: int, strike: Callable[[], object]) -> Callable[[], int]:
    """Calls `strike` before the `step`-th change to the file system from now on; a sync counts as a change.

    The hook stays for the rest of the process.

    Returns:
        A function that returns the number of changes so far.
    """
    count = 0

    def change() -> None:
        nonlocal count
        count += 1
        if count == step:
            strike()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in CHANGES or (event == "open" and set(str(arguments[1])) & set("wax+")):
            change()

    def fsync(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
        change()
        sync(descriptor)

    os.fsync = fsync
    sys.addaudithook(hook)
    return lambda: count
