"""A version's table for other programs: as JSON lines, CSV, one Parquet file, or a folder that `datasets` loads.

Reads a version, verified; writes one new file or folder, which appears whole or not at all, and replaces nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl

from hir_core.errors import ConfigError
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


def export(store: Store, ref: VersionRef, form: str, out: Path) -> int:
    """Writes a version's rows, in the order of the table, and returns how many there are.

    Args:
        store: the run.
        ref: a version that holds a table.
        form: one of `FORMS`.
        out: the file, for `hf` the folder, to make.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        ConfigError: the form is unknown, `out` is there already, lies inside the run, or cannot be written.
    """
    if form not in FORMS:
        raise ConfigError(f"--to: no form `{form}`: expected one of {', '.join(FORMS)}")
    try:
        _refuse(store, out)
        table = pl.concat([pl.read_parquet(path) for path in store.parts(ref)])
        _write(table, FORMS[form], out)
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk is polars' ComputeError
        raise ConfigError(f"cannot write {out}: {error}; give another place") from None
    return table.height


def _write(table: pl.DataFrame, write: Callable[[pl.DataFrame, Path], None], out: Path) -> None:
    enums = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.Enum)]
    plain = table.with_columns(pl.col(enums).cast(pl.String))  # few programs know what polars writes for an enum
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(plain, temporary)
        _write_atomically(temporary, out)
    finally:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _refuse(store: Store, out: Path) -> None:
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} is there already, and an export replaces nothing: give another name, or remove it")
    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: there is no folder {out.parent}")
    if out.resolve().is_relative_to(store.run_dir.resolve()):
        raise ConfigError(
            f"{out} lies inside the run {store.run_dir}, which holds its own files only: give another place"
        )


def _write_atomically(temporary: Path, out: Path) -> None:
    """Gives what was written its name; a file by a link, which, unlike a rename, replaces nothing."""
    if temporary.is_dir():
        temporary.rename(out)
    else:
        os.link(temporary, out)


def _jsonl(table: pl.DataFrame, out: Path) -> None:
    table.write_ndjson(out)


def _csv(table: pl.DataFrame, out: Path) -> None:
    """Lists as JSON in a cell, as the reader of files of prompts takes them; a null is an empty cell."""
    nested = [name for name, dtype in table.schema.items() if dtype.is_nested()]
    texts = [
        pl.Series(
            name, [None if v is None else json.dumps(v, ensure_ascii=False) for v in table[name].to_list()], pl.String
        )
        for name in nested
    ]
    table.with_columns(texts).write_csv(out)


def _parquet(table: pl.DataFrame, out: Path) -> None:
    table.write_parquet(out)


def _hf(table: pl.DataFrame, out: Path) -> None:
    """`data/SPLIT.parquet` for each split of prompts, else all in `train`: the names that `load_dataset` looks for."""
    (out / "data").mkdir(parents=True)
    splits = table.partition_by("split", as_dict=True) if "split" in table.columns else {("train",): table}
    for (split,), rows in splits.items():
        rows.write_parquet(out / "data" / f"{split}.parquet")


FORMS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
    "hf": _hf,
}
