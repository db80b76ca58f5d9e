"""The exceptions of hir. Every message says what was expected, what was found, where, and what to do next.

A message quotes what was typed and what was read, so its lines hold no character that could act on a terminal or begin
a line of its own, and are cut where they are too long to read.

HirError
├── ConfigError          a setting, a path or an input file is wrong: nothing was started
├── SchemaError          a table does not follow its schema
├── StoreError
│   ├── VersionNotFound  there is no such version
│   ├── VersionCorrupt   the files of a version differ from its manifest
│   └── RunLocked        another process writes to this run
├── RewardError          a reward function failed or returned something invalid
├── TrainingError        the triples or the weights are not valid input of training
├── NumericalError       a loss, gradient, weight or logit became NaN or infinite
├── JobFailed            a launch ended without its outputs
└── RunCancelled         the run was cancelled in Prefect
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Collection, Sequence
from pathlib import Path

LONGEST_LINE = 2000
"""Characters of a message's line; of a longer one, the middle is left out."""
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAKE_ROOM = "make room; nothing that was committed is lost, and the same command continues"


class HirError(Exception):
    """An error that hir reports as a message instead of a traceback; `exit_code` is that of the command.

    Args:
        lines: the message, and further lines that list what it is about.
    """

    exit_code = 1

    def __init__(self, *lines: str) -> None:
        self.lines = tuple(_shortened(printable(line)) for line in lines)
        super().__init__("\n".join(self.lines))

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback, as IPython looks for it."""
        return [f"error: {self}"]

    def __str__(self) -> str:
        return "\n".join(self.lines)  # not the argument: a copy is made from it as if it were one line


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


class NumericalError(HirError):
    """A loss, a gradient, a weight or a logit became NaN or infinite, so whatever followed would mean nothing."""


class JobFailed(HirError):
    """A launch ended without its outputs.

    A second try is worth its time where somebody else ended the launch (`is_lost`): a rank or the launcher was killed
    or asked to end from outside, or a host vanished. So it is where the kernel killed a rank because memory ran out,
    which may have been another program's doing. It is not where the same settings lead to the same end: an exception,
    the lack of memory that a rank reported itself, a crash in native code, a full shared memory, or the time limit of
    the launch or of a collective, which would be waited for once more.

    Args:
        reason: one line that says why.
        command: the launcher's argument list.
        status: how the launcher ended, for example `exit code 1` or `signal 9`.
        rank: the first rank that failed, if it is known.
        log: the log file to read.
        tail: the last lines of that log.
        is_lost: the launch was ended from outside, and a second try may succeed.
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
        self.reason, self.status, self.rank, self.is_lost = reason, status, rank, is_lost
        self.command, self.log, self.tail = tuple(command), log, tuple(tail)
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
        super().__init__(*lines)


class RunCancelled(HirError):
    """The run was cancelled in Prefect while it worked."""

    exit_code = 130


def printable(text: str) -> str:
    """The text with control characters, direction marks and the like escaped, so that none acts on the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text)


def _shortened(line: str) -> str:
    if len(line) <= LONGEST_LINE:
        return line
    half = LONGEST_LINE // 2 - 20  # the end says what to do
    return f"{line[:half]} … ({len(line) - 2 * half:,} characters) … {line[-half:]}"


def did_you_mean(name: str, known: Collection[str]) -> str:
    """The end of an error message that suggests the most similar known name; empty if none is similar."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""
