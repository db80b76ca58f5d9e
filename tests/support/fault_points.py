"""The changes that a process makes to the file system, one by one, so that a test can strike at each of them."""

import os
import sys
from collections.abc import Callable
from typing import Any

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "shutil.rmtree"}


def strike_at(step: int, strike: Callable[[], object]) -> Callable[[], int]:
    """Calls `strike` before this process's `step`-th change from now on, a sync counted as one; for good.

    Returns:
        What says how many changes there have been.
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
