"""What the head of a launch and its hosts say to each other, as JSON objects of one line.

    host                              head
    Hello     who it is          -->
                                 <--  Welcome
    Alive     every 2 s         <-->  Alive
                                 <--  Prepare   a job is to be started
    Prepared  it sees the job    -->
                                 <--  Start     start this host's ranks
                                 <--  Ask       have the ranks save their work and end
                                 <--  Stop      end the ranks now
    Ended     no rank is left    -->
    Leaving   it was asked to    -->
                                 <--  Goodbye   the run is over

`channel` carries them, and vouches for who has sent them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import get_args

ALIVE_EVERY_S = 2.0
"""How often each side says that it is there."""
SILENCE_S = 15.0
"""A side that has said nothing for so long is taken for lost."""


@dataclass(frozen=True)
class Hello:
    """A host, as it joins."""

    node: int
    """Its number."""
    name: str
    slots: int
    """Ranks that it can run."""
    problem: str = ""
    """Why it cannot take part; empty: it can."""


@dataclass(frozen=True)
class Welcome:
    """The host has joined."""

    problem: str = ""
    """Why it has not; empty: it has."""


@dataclass(frozen=True)
class Alive:
    """The sender is there."""

    clock: float
    """Its time, in seconds since the epoch."""


@dataclass(frozen=True)
class Prepare:
    """A job is to be started, once this host sees its folder."""

    job_dir: str
    digest: str
    """SHA-256 of job.json: over a network file system an older one may be seen for a while."""


@dataclass(frozen=True)
class Prepared:
    """The host sees the job."""

    port: int
    """A TCP port that is free on this host; used where this is host 0."""
    problem: str = ""
    """Why it cannot start the job; empty: it can."""


@dataclass(frozen=True)
class Start:
    """Start the ranks of this host."""

    job_dir: str
    module: str
    slots: list[int]
    """Ranks of each host."""
    master_addr: str
    master_port: int
    collective_timeout_s: float
    grace_s: float


@dataclass(frozen=True)
class Ask:
    """Have the ranks save their work and end."""


@dataclass(frozen=True)
class Stop:
    """End the ranks at once."""


@dataclass(frozen=True)
class Ended:
    """No rank of this host is left."""

    code: int
    """Exit code of its supervisor."""


@dataclass(frozen=True)
class Leaving:
    """The host has been asked to end, and does so once its ranks have saved their work."""

    signal: int


@dataclass(frozen=True)
class Goodbye:
    """The run is over."""


Message = Hello | Welcome | Alive | Prepare | Prepared | Start | Ask | Stop | Ended | Leaving | Goodbye
_TYPES: dict[str, type[Message]] = {kind.__name__: kind for kind in get_args(Message)}


def encoded(message: Message) -> bytes:
    """A message as a line of JSON, without its end."""
    return json.dumps({"type": type(message).__name__, **dataclasses.asdict(message)}).encode()


def decoded(content: bytes) -> Message:
    """The message in a line.

    Raises:
        ConnectionError: it is none, as from another version of hir.
    """
    try:
        fields = json.loads(content)
        return _TYPES[fields.pop("type")](**fields)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ConnectionError("the peer is of another version of hir") from None
