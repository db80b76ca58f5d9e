"""A flow run that somebody cancels from Prefect ends here as well: launch, ranks and reward workers included.

Where a worker or `serve` started the flow, that process hears of it and sends SIGTERM. A flow that was called, as
`hir run` does, has nobody who listens: it looks after itself, every few seconds.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

from hir_core.errors import RunCancelled

LOOK_S = 2.0


@contextmanager
def cancellable() -> Iterator[None]:
    """Ends what it surrounds once the flow run that calls it is cancelled.

    Raises:
        RunCancelled: it was.
    """
    context = FlowRunContext.get()
    found = None if context is None else context.flow_run
    if found is None or found.deployment_id is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(found.id)
    try:
        with watch:
            yield
    except TerminationSignal:
        if not watch.has_told:
            raise
        raise RunCancelled(
            "cancelled from Prefect; nothing that was committed is lost, and the same command continues"
        ) from None


class _Watch:
    """Asks the API for the flow run's state; sends the main thread SIGTERM, which Prefect turns into an exception."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.has_told = False
        self._flow_run_id = flow_run_id
        self._ended = threading.Event()
        self._turn = threading.Lock()
        # In a copy of this context, which holds the settings: without, Prefect would ask another API.
        self._thread = threading.Thread(target=copy_context().run, args=(self._look,), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with self._turn:  # from here on no signal comes
            self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(LOOK_S):
            if not self._is_cancelled():
                continue
            with self._turn:
                if not self._ended.is_set():
                    self.has_told = True
                    signal.pthread_kill(int(threading.main_thread().ident or 0), signal.SIGTERM)
            return

    def _is_cancelled(self) -> bool:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(self._flow_run_id).state
        except httpx.HTTPError:  # a server that is away cancels nothing; it may come back
            return False
        return state is not None and (state.is_cancelling() or state.is_cancelled())
