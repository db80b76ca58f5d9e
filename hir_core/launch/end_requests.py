"""Requests to end (SIGTERM, SIGINT) in a rank: what it does before it obeys.

A rank ends at once when it is asked to, unless it has work to save: within `deferred` the request is noted, for a step
that ends at a moment of its own, and within `answered_with` something is saved first. A second request changes nothing.
Whoever asks waits for `launch.grace_s`; then nothing more is saved (SIGKILL). Signals only: reads and writes no files.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

ASKS = (signal.SIGTERM, signal.SIGINT)


class EndRequest:
    """Whether somebody has asked this process to end.

    Attributes:
        number: that of the signal; 0 while there was none.
    """

    def __init__(self) -> None:
        self.number = 0

    def obey(self) -> NoReturn:
        """Ends this process, by the signal that asked for it, or by SIGTERM where another rank was asked."""
        _end_by(self.number or signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[EndRequest]:
    """A context in which a request does not end this process; one that nobody has obeyed by its end, is obeyed then."""
    request = EndRequest()

    def note(number: int, _frame: object) -> None:
        request.number = number

    with _handled_by(note):
        yield request
    if request.number:
        request.obey()


@contextmanager
def answered_with(save: Callable[[], object]) -> Iterator[None]:
    """A context in which a request lets `save` be called before this process ends."""

    def answer(number: int, _frame: object) -> None:
        for ask in ASKS:
            signal.signal(ask, signal.SIG_IGN)
        try:
            save()
        finally:
            _end_by(number)

    with _handled_by(answer):
        yield


@contextmanager
def _handled_by(handler: Callable[[int, object], None]) -> Iterator[None]:
    before = {ask: signal.signal(ask, handler) for ask in ASKS}
    try:
        yield
    finally:
        for ask, earlier in before.items():
            signal.signal(ask, earlier)


def _end_by(number: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the signal is blocked
