"""A Prefect server of one run's own: behind a secret, with a database in memory, and gone with the run.

Prefect can start a private server itself, but that one gets the terminal's Ctrl-C too, so that an interrupted run waits
half a minute for it, it outlives a run that is killed, and every user of the machine can read what is reported to it.
This one runs under the supervisor that launches use, and answers only who knows the secret, which stands in the
environment of the run's own processes. It has no services: nobody schedules anything on it. Writes nothing.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request

from flows.orchestration import private_server_process
from hir_core import supervisor
from hir_core.launch.ports import free_port

START_S = 60.0
"""How long a run waits for its server after everything else is ready; a busy machine takes several times longer."""
DATABASE_IN_MEMORY = {
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": "sqlite+aiosqlite:///:memory:",
    "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
}
"""Prefect's settings for a database in memory, whose tables `private_server_process` makes."""


class PrivateServer:
    """Starts the server; `wait` returns once it answers. It ends with this process, however that ends.

    Attributes:
        client_environment: the settings with which this process's flows report to it.
    """

    def __init__(self) -> None:
        port, secret = str(free_port()), secrets.token_urlsafe(32)
        self.client_environment = {
            "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
            "PREFECT_API_AUTH_STRING": secret,
        }
        command = [sys.executable, "-P", str(private_server_process.__file__), port]
        # The supervisor's stop file is for ranks on other hosts: nobody looks for one here.
        watched = [sys.executable, "-I", "-S", str(supervisor.__file__), os.devnull, "0", *command]
        settings = {"PREFECT_SERVER_API_AUTH_STRING": secret, "PREFECT_SERVER_UI_ENABLED": "false"}
        environment = os.environ | DATABASE_IN_MEMORY | settings
        quiet = subprocess.DEVNULL
        # Held until this process ends, which closes the pipe: Prefect still reports while the interpreter shuts down.
        self._process = subprocess.Popen(
            watched, env=environment, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True
        )

    def wait(self) -> str | None:
        """Waits until the server answers; returns why it does not, else None."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                return "did not start: `prefect server start` says why"
            try:
                urllib.request.urlopen(f"{self.client_environment['PREFECT_API_URL']}/health", timeout=START_S).close()
            except OSError:
                time.sleep(0.05)
            else:
                return None
        self.stop()
        return f"did not start within {START_S:g} s, a time limit of hir's"

    def stop(self) -> None:
        """Ends the server."""
        assert self._process.stdin is not None
        self._process.stdin.close()
