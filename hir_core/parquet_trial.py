"""A trial reading of Parquet files that come from elsewhere, in a process of its own whose memory is limited.

A Parquet file of a kilobyte can become gigabytes: by compression, by one long value of a dictionary that all rows name,
by a run of repeated values. Its metadata need not say so, and no reader has a limit; at a damaged file a reader may
also panic or crash. So the limit is set by the operating system, on a process that reads the file once and may fail. A
file that passes is read again by the caller, as if it were its own. Takes about a second and the time of reading.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

LEAST, TIMES = 2**30, 100
"""What a file's rows may take in memory: a gibibyte, or a hundred times its size, whichever is more. Files of text are
packed to a third to a tenth of their size; a column that repeats one long text in every row, to less than a hundredth,
but such files are small."""
VALUE_BYTES = 64
"""What a value takes as an object of Python, beside its text."""
READING_BYTES = 2**30
"""What reading takes whatever the file is: threads, buffers."""
_COMMAND = "import sys; sys.path[:] = sys.argv[1:]; from hir_core.parquet_trial import main; main()"
_THREADS = "4"  # each takes address space, which is what is limited


def unreadable(paths: Iterable[Path]) -> dict[Path, str]:
    """The files that cannot be read with limited memory, each with the reason, on one line."""
    problems: dict[Path, str] = {}
    left = list(paths)
    while left:
        answers, log = _try(left)
        if len(answers) < len(left):
            answers.append(_why_it_ended(log, left[len(answers)]))
        problems |= {path: problem for path, problem in zip(left, answers, strict=False) if problem}
        left = left[len(answers) :]
    return problems


def _try(paths: list[Path]) -> tuple[list[str], str]:
    """An answer for each file up to one that ended the process, empty or why it cannot be read; and standard error."""
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND, *sys.path],
        input=json.dumps([str(path.resolve()) for path in paths]),
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env=os.environ | {"POLARS_MAX_THREADS": _THREADS, "RUST_BACKTRACE": "0"},
    )
    return done.stdout.split("\n")[:-1], done.stderr


def _why_it_ended(log: str, path: Path) -> str:
    """Why a process ended without an answer: no memory (so it, or the kernel, ended it), or a crash."""
    if "memory allocation" in log or not log:
        return f"reading it takes more memory than it may: {_limit_text(path)}"
    return f"it makes the reader crash: {log.strip().splitlines()[-1][:200]}"


def _limit(path: Path) -> int:
    return max(LEAST, TIMES * path.stat().st_size)


def _limit_text(path: Path) -> str:
    return (
        f"the rows of a file of {path.stat().st_size:,} bytes may take {_limit(path) / 1e9:.1f} GB "
        f"(1 GiB, or {TIMES} times the file); write it anew in smaller files, or as JSONL"
    )


# --- in the process --------------------------------------------------------------------------------------------------


def main() -> None:
    """Reads the files that standard input names, and prints an answer for each."""
    # Where memory is short on the machine, the kernel shall end this process and no other.
    Path("/proc/self/oom_score_adj").write_text("1000")
    for name in json.load(sys.stdin):
        print(_problem(Path(name)), flush=True)


def _problem(path: Path) -> str:
    """Why a file cannot be read; empty where it can."""
    import polars as pl

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * os.sysconf("SC_PAGE_SIZE") + READING_BYTES + 2 * _limit(path)
    resource.setrlimit(resource.RLIMIT_AS, (allowed, resource.RLIM_INFINITY))
    try:
        frame = pl.read_parquet(path, glob=False)
        taken = sum(_bytes_as_objects(column) for column in frame.get_columns())
    except MemoryError:
        return f"reading it takes more memory than it may: {_limit_text(path)}"
    except pl.exceptions.PanicException as error:
        return f"it makes the reader panic: {_on_one_line(error)}"
    except (pl.exceptions.PolarsError, OSError) as error:
        return _on_one_line(error)
    if taken > _limit(path):
        return f"its rows take {taken / 1e9:.1f} GB of memory: {_limit_text(path)}"
    return ""


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _bytes_as_objects(column: pl.Series) -> int:
    """What the values of a column take as objects of Python, nested ones included."""
    import polars as pl

    taken = VALUE_BYTES * len(column)
    if isinstance(column.dtype, pl.List | pl.Array):
        return taken + _bytes_as_objects(column.explode())
    if isinstance(column.dtype, pl.Struct):
        return taken + sum(_bytes_as_objects(field) for field in column.struct.unnest().get_columns())
    if column.dtype == pl.Binary:
        return taken + int(column.bin.size().cast(pl.UInt64).sum())
    if isinstance(column.dtype, pl.String | pl.Categorical | pl.Enum):
        return taken + int(column.cast(pl.String).str.len_bytes().cast(pl.UInt64).sum())
    return taken
