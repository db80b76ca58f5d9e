"""Parquet files from elsewhere: what would take gigabytes, or the process with it, is one message; others are read."""

import json
import os
import resource
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from finished_run import hir, write_manifest
from pyarrow import parquet

from hir_core.config import FilePrompts
from hir_core.errors import ConfigError
from hir_core.parquet_trial import _bytes_as_objects, unreadable
from hir_core.prompts.load import load_prompts
from hir_core.store.version import _digest


def zeros(count: int) -> pa.Array:
    return pa.Array.from_buffers(pa.int8(), count, [None, pa.py_buffer(bytes(count))])


def repeated(value: object, times: int) -> pa.Array:
    """One value in so many rows, which Parquet keeps in a few hundred bytes."""
    return pa.DictionaryArray.from_arrays(zeros(times), pa.array([value]))


def long_value() -> dict:
    return {"query": repeated("x" * 2**20, 2000)}


def many_rows() -> dict:
    return {"query": repeated("x", 20_000_000)}


def many_columns() -> dict:
    column = repeated("x", 20_000_000)
    return {"query": column} | {f"c{number}": column for number in range(14)}


def long_list() -> dict:
    references = pa.ListArray.from_arrays(pa.array([0, 20_000_000], pa.int32()), zeros(20_000_000))
    return {"query": ["a"], "references": references}


BOMBS = {
    "a long value in all rows": (long_value, "its rows take 2.1 GB of memory"),
    "many rows": (many_rows, "its rows take 1.3 GB of memory"),
    "many columns of many rows": (many_columns, "reading it takes more memory than it may"),
    "a long list in a row": (long_list, "its rows take 1.3 GB of memory"),
}


def write(path: Path, columns: dict) -> None:
    settings = {"compression": "zstd", "write_statistics": False, "store_schema": False, "row_group_size": 2**31 - 1}
    parquet.write_table(pa.table(columns), path, **settings)


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_becomes_gigabytes_is_refused_with_what_to_do(tmp_path, name):
    make, message = BOMBS[name]
    path = tmp_path / "bomb.parquet"
    write(path, make())
    assert path.stat().st_size < 2_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match=r"bomb\.parquet cannot be read as Parquet: ") as caught:
        load_prompts([FilePrompts(path=path)])
    assert message in str(caught.value)
    assert "(1 GiB, or 100 times the file); write it anew in smaller files, or as JSONL" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # in kB


def changed_files(folder: Path) -> list[Path]:
    """A tiny file with each of its bytes changed, in three ways: its lengths, counts and encodings become lies."""
    write(folder / "sound.parquet", {"query": ["a", "b"]})
    sound = (folder / "sound.parquet").read_bytes()
    paths = []
    for place in range(len(sound)):
        for value in {1, 127, sound[place] ^ 4} - {sound[place]}:
            path = folder / f"{place}-{value}.parquet"
            path.write_bytes(sound[:place] + bytes([value]) + sound[place + 1 :])
            paths.append(path)
    return [folder / "sound.parquet", *paths]


READ_ALL = """
import sys
import polars as pl
for path in sys.argv[1:]:
    for _ in pl.read_parquet(path, glob=False).iter_rows(named=True): pass
"""


def test_a_file_whose_metadata_lies_is_refused_or_read_without_harm(tmp_path):
    paths = changed_files(tmp_path)
    problems = unreadable(paths)
    assert paths[0] not in problems
    assert len(problems) > 100
    assert all(problem and "\n" not in problem and len(problem) < 500 for problem in problems.values())
    harmless = [str(path) for path in paths if path not in problems]
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL, *harmless],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30)),
        env=os.environ | {"POLARS_MAX_THREADS": "2"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_type_is_counted_and_comes_back(tmp_path):
    table = pl.DataFrame(
        {
            "query": ["a", "b"],
            "references": [["1", "2"], []],
            "count": [1, None],
            "history": [[{"role": "user", "content": "Hi"}], None],
            "bytes": [b"abc", b""],
            "kind": pl.Series(["x", "y"], dtype=pl.Enum(["x", "y"])),
            "group": pl.Series(["g", None], dtype=pl.Categorical),
            "when": [datetime(2026, 1, 1, tzinfo=UTC), None],
            "day": [date(2026, 1, 1), None],
            "price": [Decimal("1.50"), None],
            "pair": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int8, 2)),
            "nothing": [None, None],
            "yes": [True, None],
        }
    )
    path = tmp_path / "all.parquet"
    table.write_parquet(path)
    assert unreadable([path]) == {}
    taken = {name: _bytes_as_objects(table[name]) for name in table.columns}
    assert taken["query"] == 2 * 64 + 2
    assert taken["bytes"] == 2 * 64 + 3
    assert taken["kind"] == 2 * 64 + 2
    assert taken["references"] == 2 * 64 + 2 * 64 + 2
    assert taken["pair"] == 2 * 64 + 4 * 64
    plain = ("count", "when", "day", "price", "nothing", "yes")
    assert [taken[name] for name in plain] == [2 * 64] * len(plain)


def test_a_large_file_of_ordinary_text_is_read(tmp_path):
    path = tmp_path / "large.parquet"
    rows = 400_000
    texts = pl.select(("question " + pl.int_range(rows).cast(pl.String) + " " + "how many? " * 40).alias("query"))
    texts.with_columns(answer=pl.int_range(rows).cast(pl.String)).write_parquet(path)
    assert unreadable([path]) == {}


def test_nothing_of_these_files_is_read_in_a_shell_or_named_in_a_command_line(tmp_path):
    path = tmp_path / "a b$(touch harmed)\n'.parquet"
    pl.DataFrame({"query": ["a"]}).write_parquet(path)
    missing = tmp_path / "gone.parquet"
    missing.touch()
    assert list(unreadable([path, missing])) == [missing]


# --- a run from elsewhere --------------------------------------------------------------------------------------------


def forged(store, name: str, path: Path) -> str:
    """Puts a file in the place of a version's first part, with a manifest that fits it."""
    ref = store.resolve(name)
    part = store.parts(ref)[0]
    path.replace(part)
    facts = json.loads((ref.path / "manifest.json").read_text())
    facts["parts"][0] |= {"bytes": part.stat().st_size, "sha256": _digest(part)}
    write_manifest(ref.path, facts)
    return str(ref)


def test_verify_names_a_version_whose_files_are_harmful_and_reads_nothing_of_it(small_run, tmp_path):
    write(tmp_path / "bomb.parquet", long_value())
    ref = forged(small_run, "samples@1", tmp_path / "bomb.parquet")
    shown = hir("verify", code=1)
    assert f"{ref}  part-0.parquet cannot be read: its rows take 2.1 GB of memory" in shown
    assert f"it was not checked, because it is made from {ref}, whose files cannot be read" in shown
    assert "samples/0002" not in shown


def test_a_panic_of_polars_is_one_message(small_run, tmp_path):
    panicking = [path for path, problem in unreadable(changed_files(tmp_path)).items() if "panic" in problem]
    forged(small_run, "samples@1", panicking[0])
    with pytest.raises(pl.exceptions.PanicException):
        pl.read_parquet(small_run.parts(small_run.resolve("samples@1"))[0])
    shown = hir("head", "samples@1", code=1)
    assert shown.splitlines()[-1].startswith("error: polars failed: ")
    assert "Traceback" not in shown
