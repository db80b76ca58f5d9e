"""The Prefect server that a run reports to, and how a run goes on without one: its record is the store, not Prefect.

A run reports to the server that the user has set, else to a private one (see `private_server`). A server that does not
answer, is lost or refuses a report costs a run nothing but what Prefect would have shown: this is said once, and from
then on nothing is reported. Prefect's own messages are kept off the terminal; its logs go to the server.
"""

from __future__ import annotations

import copy
import functools
import logging
import os
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import typer

from flows.orchestration.private_server import PrivateServer
from hir_core.errors import ConfigError, RunCancelled

SETTINGS = {
    # Errors come as one message of ours.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # A server that is lost is waited for by each call: 14 s this way, a minute by Prefect's default of 5.
    "PREFECT_CLIENT_MAX_RETRIES": "3",
    # One that accepts connections and never answers: a minute for each try by Prefect's default.
    "PREFECT_API_REQUEST_TIMEOUT": "10",
}
"""Defaults for the environment; variables that the user has set are kept."""
T = TypeVar("T")
Say = Callable[[str], None]


@dataclass
class _Connection:
    """Where this process's flows report to."""

    private: PrivateServer | None = None
    is_lost: bool = False


_CONNECTION = _Connection()


def prepare() -> None:
    """Starts the private server, where no other is set for certain, so that it starts while other things are read.

    Without Prefect, whose import takes a second: a mistake in a config should not wait for it.
    """
    _set_defaults()
    home = Path(os.environ.get("PREFECT_HOME", "~/.prefect")).expanduser()
    files = (home / "profiles.toml", Path("prefect.toml"), Path("pyproject.toml"), Path(".env"))
    is_set = any(name in os.environ for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"))
    if _CONNECTION.private is None and not is_set and not any(path.exists() for path in files):
        _CONNECTION.private = PrivateServer()


def connect(say: Say) -> None:
    """Connects this process's flows to a Prefect server, and returns once it answers, or once it is given up.

    Args:
        say: prints a line: why the run goes on without Prefect.
    """
    logging.raiseExceptions = False  # else Prefect's log handler writes to the terminal what it cannot send
    url = configured_server()
    private = _CONNECTION.private
    if private is not None and url == private.client_environment["PREFECT_API_URL"]:
        return  # of an earlier run of this process
    if url is None:
        _CONNECTION.private = _CONNECTION.private or PrivateServer()
        problem = _CONNECTION.private.wait()
        if problem is None:
            from prefect.context import refresh_global_settings_context

            os.environ.update(_CONNECTION.private.client_environment)
            refresh_global_settings_context()
        name = "Prefect's private server"
    else:
        if _CONNECTION.private is not None:
            _CONNECTION.private.stop()
            _CONNECTION.private = None
        problem, name = _problem_of_server(), f"Prefect's server at {shown_url()}"
    if problem is not None:
        _lose(f"{name} {problem}", say)


def connect_to_standing() -> str:
    """Returns the URL of the user's server once it answers: a schedule needs one that outlives this process.

    Raises:
        ConfigError: there is none, or it does not answer.
    """
    url = configured_server()
    if url is None:
        raise ConfigError(
            "a schedule needs a Prefect server that keeps running, and PREFECT_API_URL is not set: start one with "
            "`prefect server start`, `export PREFECT_API_URL=http://127.0.0.1:4200/api`, and run this again"
        )
    problem = _problem_of_server()
    if problem is not None:
        raise ConfigError(
            f"PREFECT_API_URL is {without_password(url)}, which {problem}: start it with `prefect server start`, or "
            "set the URL of one that runs; a schedule needs one"
        )
    return url


def call(flow: Any, *arguments: Any, say: Say = print) -> Any:
    """Runs a flow in this process, or its function alone where Prefect is lost, and returns what it returns.

    Raises:
        HirError: it failed, as it says.
        RunCancelled: it was cancelled from Prefect.
    """

    def in_prefect(work: Callable[[], Any]) -> None:
        shown = copy.copy(flow)
        shown.fn = functools.wraps(flow.fn)(lambda *_, **__: work())
        state = shown(*arguments, return_state=True)
        if state.is_cancelled():
            raise RunCancelled(state.message)

    return shown_in_prefect(in_prefect, lambda: flow.fn(*arguments), say)


def shown_in_prefect(in_prefect: Callable[[Callable[[], T]], object], work: Callable[[], T], say: Say) -> T:
    """The result of work that Prefect runs, as a flow or a task, or that is done without it where Prefect is lost.

    Args:
        in_prefect: has Prefect run the work that it is given. Whatever it raises beside the work's own error means that
            the server is lost.
        work: what to do.
        say: prints a line.

    Raises:
        Exception: what the work raises.
        RunCancelled: `in_prefect` raises it.
    """
    if _CONNECTION.is_lost:
        return work()
    outcome = _Outcome(work)
    try:
        in_prefect(outcome.run)
    except RunCancelled:
        raise
    except Exception as error:  # noqa: BLE001 - the store is the record: whatever Prefect raises, the run goes on
        if error is not outcome.error:
            lose(error, say)
    return outcome.result()


class _Outcome(Generic[T]):
    """What work came to that Prefect runs: kept here, for Prefect may be lost before it hands it on."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self.error: BaseException | None = None

    def run(self) -> T:
        """Does the work."""
        try:
            self._results = [self._work()]
        except BaseException as error:
            self.error = error
            raise
        return self._results[0]

    def result(self) -> T:
        """The result of the work; does it now where Prefect has not begun it."""
        if self.error is not None:
            raise self.error
        return self._results[0] if self._results else self.run()


@contextmanager
def ended_at_once_if_lost() -> Iterator[None]:
    """Ends the process after the block where Prefect was lost: else Prefect tries for 10 s to send each event."""
    try:
        yield
        code = 0
    except typer.Exit as error:
        if not _CONNECTION.is_lost:
            raise
        code = error.exit_code
    if _CONNECTION.is_lost:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def is_lost() -> bool:
    """Whether a run of this process goes on without Prefect."""
    return _CONNECTION.is_lost


def lose(error: Exception, say: Say) -> None:
    """Reports nothing to Prefect from now on, and says so."""
    name = "Prefect's private server" if _CONNECTION.private else f"Prefect's server at {shown_url()}"
    _lose(f"{name} was lost ({_in_one_line(error)})", say)


def _lose(what: str, say: Say) -> None:
    if not _CONNECTION.is_lost:
        _CONNECTION.is_lost = True
        say(f"warning: {what}: the run goes on, and Prefect does not show the rest of it")


def _in_one_line(error: Exception) -> str:
    """An error of Prefect's or of HTTP without the advice that follows in further lines."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": ")


def configured_server() -> str | None:
    """The URL of the environment or of Prefect's profile, or None; sets our defaults in the environment."""
    _set_defaults()
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    return url


def _set_defaults() -> None:
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)


def _problem_of_server() -> str | None:
    """Why the user's server cannot be reported to; None where it answers."""
    from prefect.client.orchestration import get_client

    problem = get_client(sync_client=True).api_healthcheck()
    return None if problem is None else f"does not answer ({_in_one_line(problem)})"


def shown_url() -> str:
    """The URL of the user's server, as it may be shown."""
    return without_password(configured_server() or "")


def without_password(url: str) -> str:
    """A URL as it may be shown: without the user, password and query that it may hold."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
