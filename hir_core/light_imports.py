"""Imports that take less time: without garbage collection, and without a library that another one can do without.

Serves the programs that start often: commands, ranks, the private Prefect server. Imports nothing heavy.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """A context for imports: what they make stays, and searching it for garbage would take a fifth of their time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def left_out(name: str) -> Iterator[None]:
    """A context in which a library cannot be imported, unless it was before; so another one does without it."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
