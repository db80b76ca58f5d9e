"""The exceptions of hir. Every message says what was expected, what was found, where, and what to do next.

HirError
├── ConfigError          a setting, a path or an input file is wrong: nothing was started
├── SchemaError          a table does not follow its schema
├── StoreError
│   ├── VersionNotFound  there is no such version
│   ├── VersionCorrupt   the files of a version differ from its manifest
│   └── RunLocked        another process writes to this run
├── RewardError          a reward function failed or returned something invalid
├── TrainingError        the triples or the weights are not valid input of training
├── JobFailed            a launch ended without its outputs
└── RunCancelled         the run was cancelled in Prefect
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path


class HirError(Exception):
    """An error that hir reports as a message instead of a traceback; `exit_code` is that of the command."""

    exit_code = 1


class ConfigError(HirError):
    """A setting, a path or an input file is wrong; found before anything is written."""

    exit_code = 2


class SchemaError(HirError):
    """A table lacks a column, has one of the wrong type, or violates a rule of its schema."""

    exit_code = 2


class StoreError(HirError):
    """The folder of a run cannot be read, written or locked, or contains something invalid."""


class VersionNotFound(StoreError):
    """There is no committed version, or no run, of this name."""

    exit_code = 2


class VersionCorrupt(StoreError):
    """The files of a committed version differ from its manifest."""


class RunLocked(StoreError):
    """Another process is writing to this run."""

    exit_code = 2


class RewardError(HirError):
    """A reward function raised, or returned something other than one number or None per sample."""

    exit_code = 2


class TrainingError(HirError):
    """The triples or the weights are not valid input of training; found by its checks before the first step."""


class JobFailed(HirError):
    """A launch ended without its outputs.

    Args:
        reason: one sentence that says why.
        command: the launcher's argument list.
        status: how the launcher ended, for example `exit code 1` or `signal 9`.
        rank: the first rank that failed, if it is known.
        log: the log file to read.
        tail: the last lines of that log.
        is_lost: a rank was killed or vanished, and nothing is known to be wrong with the work, so that a second attempt
            may succeed.
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
    """The run was cancelled in Prefect while it worked."""

    exit_code = 130


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of an error message that suggests the most similar known name; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
