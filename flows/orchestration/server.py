"""The Prefect server that a run reports to: the user's own where one is set, else a private one that ends with the run.

Prefect can start a private server itself, but that one gets the terminal's Ctrl-C too, so that an interrupted run waits
half a minute for it, and it outlives a run that is killed. This one runs under the supervisor that launches use.
Prefect's own messages are kept off the terminal; its logs go to the server.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import httpx

from hir_core import supervisor
from hir_core.errors import ConfigError, HirError, RunCancelled, ServerLost
from hir_core.launch.ports import free_port

START_S = 120.0
"""The first start on a machine makes a database: 14 s, more where it is busy."""
SETTINGS = {
    # Errors come as one message of ours.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_HANDLERS_DEBUG_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # A server that is lost is waited for by each call: 14 s this way, a minute by Prefect's default of 5.
    "PREFECT_CLIENT_MAX_RETRIES": "3",
}
"""Defaults for the environment; variables that the user has set are kept."""
_SERVERS: list[subprocess.Popen[bytes]] = []
"""Held until this process ends, which closes their pipes: Prefect still reports while the interpreter shuts down."""


def connect() -> None:
    """Connects this process's flows to a Prefect server, and returns once it answers.

    Raises:
        ConfigError: the user's server does not answer.
        HirError: the private one does not start.
    """
    url = _configured_server()
    if url is None:
        from prefect.context import refresh_global_settings_context

        os.environ["PREFECT_API_URL"] = _start_server()
        refresh_global_settings_context()
    else:
        _check_server(url, "start that server, or unset it; a run needs no server")


def connect_to_standing() -> str:
    """Returns the URL of the user's server once it answers: a schedule needs one that outlives this process.

    Raises:
        ConfigError: there is none, or it does not answer.
    """
    url = _configured_server()
    if url is None:
        raise ConfigError(
            "a schedule needs a Prefect server that keeps running, and PREFECT_API_URL is not set: start one with "
            "`prefect server start`, `export PREFECT_API_URL=http://127.0.0.1:4200/api`, and run this again"
        )
    _check_server(url, "start it with `prefect server start`, or set the URL of one that runs; a schedule needs one")
    return url


def call(flow: Any, *arguments: Any) -> Any:
    """Runs a flow in this process and returns what it returns.

    Raises:
        HirError: it was cancelled, or failed, as it says.
        ServerLost: the server could not be told how it ended.
    """
    try:
        state = flow(*arguments, return_state=True)
    except httpx.TransportError as error:
        url = os.environ.get("PREFECT_API_URL", "PREFECT_API_URL")
        raise ServerLost(
            f"{_earlier_error(error)}Prefect's server at {url} was lost "
            f"({error}): everything that was committed is kept; start it again or unset PREFECT_API_URL, and the same "
            "command continues, or says that there is nothing to do"
        ) from None
    if state.is_cancelled():
        raise RunCancelled(state.message)
    return state.result()


def _earlier_error(error: BaseException) -> str:
    """The run's own error that came before the loss of the server, and a line break; empty where there was none."""
    while error.__context__ is not None:
        error = error.__context__
        if isinstance(error, HirError):
            return f"{error}\n"
    return ""


def _configured_server() -> str | None:
    """The URL of the environment or of Prefect's profile, or None; sets our defaults in the environment."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from prefect.settings import PREFECT_API_URL

    url: str | None = PREFECT_API_URL.value()
    return url


def _check_server(url: str, remedy: str) -> None:
    from prefect.client.orchestration import get_client

    problem = get_client(sync_client=True).api_healthcheck()
    if problem is not None:
        raise ConfigError(f"PREFECT_API_URL is {without_password(url)}, which does not answer ({problem}): {remedy}")


def without_password(url: str) -> str:
    """A URL as it may be shown: without the user, password and query that it may hold."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _start_server() -> str:
    """Starts a server that ends with this process, and returns the URL of its API."""
    port = str(free_port())
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    command += ["--no-ui", "--no-scheduler", "--no-late-runs"]
    # The supervisor's stop file is for ranks on other hosts: nobody looks for one here.
    watched = [sys.executable, "-I", "-S", str(supervisor.__file__), os.devnull, *command]
    quiet = subprocess.DEVNULL
    _SERVERS.append(
        subprocess.Popen(watched, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    )
    url = f"http://127.0.0.1:{port}/api"
    _wait_for(url, _SERVERS[-1])
    return url


def _wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=START_S).close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    raise HirError("prefect's server does not start: `prefect server start` says why")
