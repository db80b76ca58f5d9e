"""Cancellation from Prefect: a cancelled flow run ends with its launch, ranks and reward workers.

A worker or `serve` that started the flow is notified by Prefect and sends SIGTERM. For a flow that `hir run` calls
directly there is no such process, so this module asks for its state every few seconds. Prefect makes an exception of
SIGTERM, with which a launch ends in order; for a run without Prefect this module does.
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
from prefect.exceptions import PrefectException, TerminationSignal

from flows.orchestration import server
from hir_core.errors import RunCancelled

POLL_S = 2.0


@contextmanager
def cancellable() -> Iterator[None]:
    """Ends the block below it when the flow run that executes it is cancelled.

    Raises:
        RunCancelled: the flow run was cancelled.
    """
    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None:
        with _exit_at_sigterm():
            yield
        return
    if run.deployment_id is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    watch = _Watch(run.id)
    try:
        with watch:
            yield
    except TerminationSignal:
        if not watch.has_signalled:
            raise
        raise RunCancelled(
            "cancelled from Prefect; nothing that was committed is lost, and the same command continues"
        ) from None


@contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """A context in which SIGTERM raises SystemExit, unless somebody handles it already."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Watch:
    """Asks the API for the flow run's state; sends the main thread SIGTERM, which Prefect turns into an exception."""

    def __init__(self, flow_run_id: UUID) -> None:
        self.has_signalled = False
        self._flow_run_id = flow_run_id
        self._ended = threading.Event()
        self._signal_lock = threading.Lock()
        # In a copy of this context, which holds the settings: without, Prefect would ask another API.
        self._thread = threading.Thread(target=copy_context().run, args=(self._poll,), daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with self._signal_lock:  # from here on no signal comes
            self._ended.set()

    def _poll(self) -> None:
        while not self._ended.wait(POLL_S):
            if server.is_lost():
                return
            if not self._is_cancelled():
                continue
            with self._signal_lock:
                if not self._ended.is_set():
                    self.has_signalled = True
                    signal.pthread_kill(int(threading.main_thread().ident or 0), signal.SIGTERM)
            return

    def _is_cancelled(self) -> bool:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(self._flow_run_id).state
        except (httpx.HTTPError, PrefectException):  # a server that is away cancels nothing; it may come back
            return False
        return state is not None and (state.is_cancelling() or state.is_cancelled())
