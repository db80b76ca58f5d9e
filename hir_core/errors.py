"""The exceptions that a user of hir can meet; every message says what was expected, found, where, and what to do next.

HirError
├── ConfigError          a setting, a path or an input file is wrong: nothing was started
├── SchemaError          a table breaks its schema
├── StoreError
│   ├── VersionNotFound  no such version
│   ├── VersionCorrupt   a committed file is not what its manifest says
│   └── RunLocked        another process writes to this run
├── RewardError          a reward function failed or broke its contract
├── TrainingError        the triples or the weights are not what training must start from
├── JobFailed            a launch ended without its outputs
├── RunCancelled         somebody cancelled the run from Prefect
└── ServerLost           Prefect's server went away while a run worked
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path


class HirError(Exception):
    """Anything that hir reports as a message instead of a traceback."""

    exit_code = 1


class ConfigError(HirError):
    """A setting, a path or an input file is wrong; found before anything was written."""

    exit_code = 2


class SchemaError(HirError):
    """A table lacks a column, has one of the wrong type, or breaks a rule of its schema."""

    exit_code = 2


class StoreError(HirError):
    """The run directory cannot do what was asked of it."""


class VersionNotFound(StoreError):
    """A reference names no committed version."""

    exit_code = 2


class VersionCorrupt(StoreError):
    """A committed version differs from its manifest."""


class RunLocked(StoreError):
    """Another process is writing to this run."""

    exit_code = 2


class RewardError(HirError):
    """A reward function raised, or returned something other than one number or None per sample."""

    exit_code = 2


class TrainingError(HirError):
    """The triples or the weights are not what training must start from."""


class JobFailed(HirError):
    """A launch ended without committing what it was asked for.

    Args:
        reason: one sentence in domain words.
        command: the launcher's argument list.
        status: how the launcher ended, for example `exit code 1` or `signal 9`.
        rank: the first rank that failed, where one is known.
        log: the log to read.
        tail: that log's last lines.
        is_lost: nothing was found wrong with the work: a rank was killed or vanished, and the same launch again may
            end well.
    """

    def __init__(
        self,
        reason: str,
        *,
        command: Sequence[str] = (),
        status: str = "",
        rank: int | None = None,
        log: Path | None = None,
        tail: Sequence[str] = (),
        is_lost: bool = False,
    ) -> None:
        self.command, self.status, self.rank, self.log, self.tail = tuple(command), status, rank, log, tuple(tail)
        self.is_lost = is_lost
        facts = [reason]
        if status:
            facts.append(f"the launcher ended with {status}")
        if rank is not None:
            facts.append(f"the first rank to fail was {rank}")
        if log is not None:
            facts.append(f"log: {log}")
        lines = ["; ".join(facts), *(f"  | {line}" for line in tail)]
        if command:
            lines.append("command: " + " ".join(command))
        super().__init__("\n".join(lines))


class RunCancelled(HirError):
    """Somebody cancelled the run while it worked."""

    exit_code = 130


class ServerLost(HirError):
    """Prefect's server went away while a run worked, which went on to its end without."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A hint at the nearest of the known names, to end a message with; nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
