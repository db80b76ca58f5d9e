"""What every command shares: options that several have, one message for an error, text or JSON as the answer."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from flows.terminal.formatting import printable
from hir_core.errors import HirError, ServerLost

FOUND = 1
"""Exit code of a command that looks for differences or damage, and found some."""
INTERRUPTED = 130
UNREAD = 141
"""Exit code where nobody reads on, as in `hir ls | head -1`: that of a program that SIGPIPE ended."""
_ROOM = "make room; nothing that was committed is lost, and the same command continues"
_RIGHTS = "give this user the right to, or choose another place"
REFUSED = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _RIGHTS),
}
"""What a file system answers to people, and what they can do about it."""
RUNS = Path("runs")
RunsDir = Annotated[Path, typer.Option(help="The folder that holds the runs.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for other programs.")]
OneRun = Annotated[str | None, typer.Argument(help="A run, by name or folder; needed where there are several.")]
Ref = Annotated[
    str, typer.Argument(help="samples@3, samples@latest, samples/<id> or a version's folder; [RUN/] in front.")
]


@contextmanager
def messages() -> Iterator[None]:
    """Ends the program with a message and an exit code where a HirError, an interrupt or a full disk comes up."""
    try:
        yield
        sys.stdout.flush()  # in here, where it may fail
    except HirError as error:
        lines = f"error: {error}".split("\n")  # an error quotes what was typed and what was read
        print("\n".join(map(printable, lines)), file=sys.stderr)
        if isinstance(error, ServerLost):
            _leave_now(error.exit_code)
        raise typer.Exit(error.exit_code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it ends
        raise typer.Exit(UNREAD) from None
    except OSError as error:
        if error.errno not in REFUSED:
            raise  # nothing that a person could mend
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {printable(f'{where}{error.strerror}')}: {REFUSED[error.errno]}", file=sys.stderr)
        raise typer.Exit(HirError.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted: nothing that was committed is lost; the same command continues", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _leave_now(code: int) -> NoReturn:
    """Ends this process: on its way out Prefect would try for ten seconds to send each event that is left."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def answer(facts: Any, as_json: bool, text: Callable[[Any], Iterable[str]]) -> None:
    """Prints facts, as JSON or as the lines that `text` makes of them."""
    if as_json:
        print_json(facts)
    else:
        print_lines(text(facts))


def print_json(value: Any) -> None:
    """Prints a value as JSON, in ASCII only: a control character in a text stays an escape."""
    print(json.dumps(value, indent=2))


def print_lines(lines: Iterable[str]) -> None:
    """Prints lines, which escape whatever could act on the terminal."""
    for line in lines:
        print(line)


def terminal_width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns
