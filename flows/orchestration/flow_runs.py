"""Flow runs that Prefect shows as running although their process is gone, for `hir doctor`.

A flow run of hir carries a tag that names its process. Reads the flow runs of the user's Prefect server; a private
server ends with its run, and has none to show.
"""

from __future__ import annotations

import base64
import os
import re
import socket
from contextlib import suppress
from typing import NamedTuple

import httpx
import psutil

from flows.orchestration.server import without_password
from hir_core.inspect.doctor import Finding

_SIGNED = re.compile(r"process (?P<pid>\d+) of (?P<host>\S+) since (?P<since>\d+)")
ASK_S = 10.0


class FlowRun(NamedTuple):
    """A flow run that Prefect calls running."""

    id: str
    name: str
    tags: list[str]


def sign() -> None:
    """Tags the flow run that is going on with this process's signature.

    Not by `prefect.tags`: every task would inherit the tag, and ask the server for its limit before it starts.
    """
    from prefect.client.orchestration import get_client
    from prefect.context import FlowRunContext

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    found = context.flow_run
    with suppress(httpx.HTTPError), get_client(sync_client=True) as client:  # a server that is away is no obstacle
        client.update_flow_run(found.id, tags=[*found.tags, signature(os.getpid())])


def signature(pid: int) -> str:
    """The tag that names a process: pid, host and start time, since a pid can be used again."""
    return f"process {pid} of {socket.gethostname()} since {psutil.Process(pid).create_time():.0f}"


def check_flow_runs() -> list[Finding]:
    """The flow runs of dead processes of this machine, and a server that is configured but does not answer."""
    from prefect.settings import PREFECT_API_URL

    url = PREFECT_API_URL.value()
    return [] if url is None else flow_runs_of_dead_processes(url)


def flow_runs_of_dead_processes(url: str) -> list[Finding]:
    """The findings about the Prefect server whose API is at this URL."""
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}, "limit": 200}
    try:
        answer = httpx.post(f"{url}/flow_runs/filter", json=running, headers=_credentials(), timeout=ASK_S)
        answer.raise_for_status()
        runs = [FlowRun(run["id"], run["name"], run["tags"]) for run in answer.json()]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        what = f"the Prefect server does not answer ({str(error).splitlines()[0]})"
        where = f"PREFECT_API_URL={without_password(url)}"
        return [Finding(what, where, "start that server, or unset it: a run needs no server")]
    findings = []
    for run in runs:
        owner = next(filter(None, map(_SIGNED.fullmatch, run.tags)), None)
        if owner is not None and owner["host"] == socket.gethostname() and not _is_alive(owner[0], int(owner["pid"])):
            what = f"flow run {run.name} ({run.id}) is `Running` in Prefect, but its process {owner['pid']} is gone"
            findings.append(
                Finding(what, without_password(url), f"prefect flow-run delete {run.id}; no version is lost")
            )
    return findings


def _credentials() -> dict[str, str]:
    """The header with which the user's settings ask a server that wants a password, or Prefect's cloud."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    if (password := PREFECT_API_AUTH_STRING.value()) is not None:
        return {"Authorization": f"Basic {base64.b64encode(password.encode()).decode()}"}
    key = PREFECT_API_KEY.value()
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def _is_alive(signed: str, pid: int) -> bool:
    try:
        return signature(pid) == signed
    except psutil.Error:
        return False
