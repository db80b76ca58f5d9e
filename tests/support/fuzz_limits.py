"""What a reader must keep to, whatever it is given: a value or one message, soon, in little memory, changing nothing.

`judged` calls a reader under limits. What breaks them is raised as what it is, or as a `BrokenLimit`.
"""

import gc
import re
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hir_core.errors import HirError

SECONDS = 2.0
"""Of this process, for one input."""
MEGABYTES = 256
"""Growth of this process, for one input of at most some 100 kB."""
HARD_MEGABYTES = 4096
"""Where an allocation fails instead of taking the machine's memory."""
_CHANGES = re.compile(r"os\.(rename|remove|mkdir|rmdir|truncate|symlink|link|chmod|chown|system)|shutil\..*")
_WRITE_FLAGS = 0o1 | 0o2 | 0o100  # O_WRONLY, O_RDWR, O_CREAT


class BrokenLimit(BaseException):
    """A limit that a reader broke; not an Exception, so that no reader catches it."""


class _Watch:
    """Notes the changes to files that Python makes while it is on."""

    def __init__(self) -> None:
        self.is_on = False
        self.changes: list[str] = []

    def hook(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.is_on:
            return
        if event == "open":
            path, mode, flags = arguments
            is_change = bool(set(mode) & set("wax+")) if isinstance(mode, str) else bool(flags & _WRITE_FLAGS)
            if is_change and not isinstance(path, int) and path != "/dev/null":  # a number is open already: a pipe
                self.changes.append(f"open {path!r}")
        elif _CHANGES.fullmatch(event):
            self.changes.append(f"{event} {arguments!r}")


_WATCH = _Watch()
sys.addaudithook(_WATCH.hook)


def judged(read: Callable[[], object]) -> str:
    """Calls a reader: `read` if it returned a value, else the name of the HirError that it raised.

    Args:
        read: calls the reader, and checks what it returns.

    Raises:
        BrokenLimit: it took too long or too much memory, changed files, or gave a message that is not one.
        Exception: whatever else it raised, warnings among them.
    """
    with _limited_seconds(), _limited_memory(), _unchanged_files(), warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            read()
        except HirError as error:
            _check_message(str(error))
            return type(error).__name__
        return "read"


def _check_message(message: str) -> None:
    first, *further = message.split("\n")
    if not first.strip() or not all(line.startswith("  ") for line in further):
        raise BrokenLimit(f"more than one message, or none: {message!r}")
    if not all(line.isprintable() and len(line) <= 2000 for line in (first, *further)):
        raise BrokenLimit(f"raw characters, or a line of endless length: {message[:500]!r}")


@contextmanager
def _limited_seconds() -> Iterator[None]:
    """Ends what takes longer than the limit, in seconds of this process, which a busy machine does not shorten."""

    def strike(*_: object) -> None:
        raise BrokenLimit(f"took more than {SECONDS:g} s")

    before = signal.signal(signal.SIGPROF, strike)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    if (took := time.process_time() - started) > SECONDS:  # inside of a library the signal waits
        raise BrokenLimit(f"took {took:.1f} s")


@contextmanager
def _limited_memory() -> Iterator[None]:
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes(status, "VmRSS")
    usual = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_kilobytes(status, "VmSize") * 1024 + HARD_MEGABYTES * 2**20, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, usual)
    if (grown := (_kilobytes(status, "VmHWM") - before) // 1024) > MEGABYTES:
        gc.collect()
        raise BrokenLimit(f"took {grown} MB of memory")


def _kilobytes(status: Path, name: str) -> int:
    return int(re.search(rf"^{name}:\s+(\d+) kB", status.read_text(), re.MULTILINE)[1])


@contextmanager
def _unchanged_files() -> Iterator[None]:
    _WATCH.changes, _WATCH.is_on = [], True
    try:
        yield
    finally:
        _WATCH.is_on = False
    if _WATCH.changes:
        raise BrokenLimit(f"changed files: {_WATCH.changes}")
