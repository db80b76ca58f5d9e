"""What all commands share: common options, errors as one message with an exit code, and output as text or JSON."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from flows.terminal.formatting import printable
from hir_core.errors import FULL_DISK, MAKE_ROOM, HirError

FOUND = 1
"""Exit code of a command that looks for differences, damage or faults, where it found some."""
INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit code where the reader of the output has ended, as in `hir ls | head -1`: that of a program ended by SIGPIPE."""
_PERMISSION = "give this user permission, or choose another folder"
FILE_ERROR_ADVICE = {
    **dict.fromkeys(FULL_DISK, MAKE_ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _PERMISSION),
}
"""What a user can do about an error of the file system, by its number."""
RUNS = Path("runs")
T = TypeVar("T")
RunsDir = Annotated[Path, typer.Option(help="The folder that holds the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for other programs.")]
OneRun = Annotated[str | None, typer.Argument(help="A run, by name or folder; may be left out if there is only one.")]
Ref = Annotated[
    str, typer.Argument(help="A version: [RUN/]samples@3, [RUN/]samples@latest, [RUN/]samples/<id>, or its folder.")
]


@contextmanager
def messages() -> Iterator[None]:
    """Ends the program with a message and an exit code on a HirError, an interrupt, or an error of the file system."""
    try:
        yield
        sys.stdout.flush()  # in here, where it may fail
    except HirError as error:
        lines = f"error: {error}".split("\n")  # an error quotes what was typed and what was read
        print("\n".join(map(printable, lines)), file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit(BROKEN_PIPE) from None
    except OSError as error:
        if error.errno not in FILE_ERROR_ADVICE:
            raise  # nothing that a user could do about it
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(f'{where}{error.strerror}')}: {FILE_ERROR_ADVICE[error.errno]}", file=sys.stderr)
        raise typer.Exit(HirError.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted: nothing that was committed is lost; the same command continues", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # polars', which is no Exception; it is not imported for its name
            raise
        what = printable(" ".join(str(error).split())[:300])
        print(f"error: polars failed: {what}; is a file damaged or of a stranger? See `hir verify`", file=sys.stderr)
        raise typer.Exit(HirError.exit_code) from None


def answer(value: T, as_json: bool, text: Callable[[T], Iterable[str]]) -> None:
    """Prints a value, as JSON or as the lines that `text` makes of it."""
    if as_json:
        print_json(value)
    else:
        print_lines(text(value))


def print_json(value: object) -> None:
    """Prints a value as JSON, in ASCII only, so that control characters in texts stay escaped."""
    print(json.dumps(value, indent=2))


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines, in which everything that could act on the terminal must be escaped already."""
    for line in lines:
        print(line)


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns
