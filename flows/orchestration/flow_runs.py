"""Flow runs that Prefect shows as running although their process is gone, for `hir doctor`.

A run signs itself with a tag that names its process. The private server's database is read as a file (it has no server
while no run is there), the user's own server is asked. Writes nothing.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

from hir_core.inspect.doctor import Finding

_SIGNED = re.compile(r"process (?P<pid>\d+) of (?P<host>\S+) since (?P<since>\d+)")
ASK_S = 10.0
QUESTION = "select id, name, tags from flow_run where state_type = 'RUNNING' order by start_time"


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
    """What a living process signs with; its start tells it from a later one of the same number."""
    return f"process {pid} of {socket.gethostname()} since {psutil.Process(pid).create_time():.0f}"


def check_flow_runs() -> list[Finding]:
    """The flow runs of dead processes of this machine, and a server that is configured but does not answer."""
    from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, PREFECT_API_URL

    url = PREFECT_API_URL.value()
    if url is not None:
        return _of_server(url)
    kind, _, path = str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition(":///")
    if not kind.startswith("sqlite") or not Path(path).is_file():
        return []  # no run was there yet, or the database is kept by somebody else
    return list(_stuck(_of_database(Path(path)), path))


def _stuck(runs: list[FlowRun], where: str) -> Iterator[Finding]:
    for run in runs:
        owner = next(filter(None, map(_SIGNED.fullmatch, run.tags)), None)
        if owner is not None and owner["host"] == socket.gethostname() and not _is_alive(owner[0], int(owner["pid"])):
            what = f"flow run {run.name} ({run.id}) is said to be running, but its process {owner['pid']} is gone"
            yield Finding(what, where, f"prefect flow-run delete {run.id}; the store does not depend on it")


def _is_alive(signed: str, pid: int) -> bool:
    try:
        return signature(pid) == signed
    except psutil.Error:
        return False


def _of_database(path: Path) -> list[FlowRun]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=ASK_S)) as database:
        try:
            rows = database.execute(QUESTION).fetchall()
        except sqlite3.OperationalError:  # made by another release, or not made to its end
            return []
    return [FlowRun(str(key), str(name), json.loads(tags or "[]")) for key, name, tags in rows]


def _of_server(url: str) -> list[Finding]:
    import httpx

    asked = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}, "limit": 200}
    try:
        answer = httpx.post(f"{url}/flow_runs/filter", json=asked, timeout=ASK_S)
        answer.raise_for_status()
        runs = [FlowRun(one["id"], one["name"], one["tags"]) for one in answer.json()]
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        what = f"the Prefect server does not answer ({error})"
        return [Finding(what, f"PREFECT_API_URL={url}", "start that server, or unset it: a run needs no server")]
    return list(_stuck(runs, url))
