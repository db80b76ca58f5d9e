"""The table of a version for other programs, for `hir export`: JSON lines, CSV, Parquet, or a folder for `datasets`.

Triples also as conversations, and rewards as pairs of a right and a wrong completion, which `chat_data` makes.

Reads a version, its digests checked. Writes one new file or folder, which appears complete or not at all, and never
replaces an existing one. A spreadsheet runs a cell that begins as a formula does, whoever wrote its text: a model, or
whoever wrote a prompt. In CSV, such a text is therefore marked as text, unless the table is asked for as it is. Other
trainers take every row of triples for a demonstration, so triples that are none are left out.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import polars as pl
import polars.selectors as cs

from hir_core.errors import ConfigError
from hir_core.inspect.chat_data import conversations, preference_pairs
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"
"""How a text begins that a spreadsheet takes for a formula, as OWASP lists it under "CSV injection"."""
RULED_OUT = "of weight 0, whose outputs are only ruled out and must not be imitated"
NUMBER = r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$"


class Exported(NamedTuple):
    """What became of a version's rows."""

    rows: int
    """Rows that were written."""
    left_out: int
    """Rows of the version that are not in them."""
    reason: str
    """Why rows are left out; empty where none are."""


def export(store: Store, ref: VersionRef, form: str, out: Path, *, is_raw: bool = False) -> Exported:
    """Writes a version's rows in the order of its table, but for triples that demonstrate nothing.

    Args:
        store: the run.
        ref: a version that holds a table.
        form: one of `FORMS`.
        out: the file to make, for `hf` the folder.
        is_raw: whether CSV has every text as it is, also one that a spreadsheet would take for a formula.

    Raises:
        VersionNotFound: there is no such version, or it holds no table.
        VersionCorrupt: its files are not what its manifest says.
        ConfigError: the form is unknown, `out` exists, lies inside the run, or cannot be written.
    """
    if form not in FORMS:
        raise ConfigError(f"--to: no form `{form}`: expected one of {', '.join(FORMS)}")
    try:
        check_place(store, out)
        table, exported = _chats(store, ref, form) if form in CHATS else _rows(store, ref)
        text_safe = _without_formulas(table) if form == "csv" and not is_raw else table
        _write_atomically(text_safe, FORMS[form], out)
    except (OSError, pl.exceptions.PolarsError) as error:  # a full disk is polars' ComputeError
        raise ConfigError(f"cannot write {out}: {error}; give another place") from None
    return exported


def _rows(store: Store, ref: VersionRef) -> tuple[pl.DataFrame, Exported]:
    """The rows of a version but for triples that demonstrate nothing."""
    table = store.read(ref)
    kept = table.filter(pl.col("weight") > 0) if ref.stage == "triples" else table
    left_out = table.height - kept.height
    return kept, Exported(kept.height, left_out, RULED_OUT if left_out else "")


def _chats(store: Store, ref: VersionRef, form: str) -> tuple[pl.DataFrame, Exported]:
    stage, make, used, reason = CHATS[form]
    if ref.stage != stage:
        raise ConfigError(f"--to {form} is for {stage}, and {ref} is none: give a version such as {stage}@latest")
    chats = make(store, ref)
    left_out = sum(part.rows or 0 for part in store.manifest(ref).parts) - used * chats.height
    return chats, Exported(chats.height, left_out, reason if left_out else "")


def check_place(store: Store, out: Path) -> None:
    """Raises ConfigError where something is at `out`, its parent folder is missing, or it would lie inside the run."""
    if out.exists() or out.is_symlink():
        raise ConfigError(f"{out} exists already, and an export replaces nothing: give another name, or remove it")
    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: there is no folder {out.parent}")
    if out.resolve().is_relative_to(store.run_dir.resolve()):
        raise ConfigError(
            f"{out} lies inside the run {store.run_dir}, which holds its own files only: give another place"
        )


def _write_atomically(table: pl.DataFrame, write: Callable[[pl.DataFrame, Path], None], out: Path) -> None:
    """Writes below a temporary name and then renames; a file by a link, which, unlike a rename, replaces nothing."""
    enums = [name for name, dtype in table.schema.items() if isinstance(dtype, pl.Enum)]
    plain = table.with_columns(pl.col(enums).cast(pl.String))  # few programs can read the enums of polars
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        write(plain, temporary)
        if temporary.is_dir():
            temporary.rename(out)
        else:
            os.link(temporary, out)
    finally:
        shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """The table with a ' before each text that a spreadsheet would take for a formula; a number is none.

    This holds for a spreadsheet that takes a comma for the end of a cell, as the file means it.
    """
    text = cs.string()
    is_formula = text.str.contains(FORMULA) & ~text.str.contains(NUMBER)
    return table.with_columns(pl.when(is_formula).then(pl.lit("'") + text).otherwise(text).name.keep())


def _write_json_lines(table: pl.DataFrame, out: Path) -> None:
    table.write_ndjson(out)


def _write_csv(table: pl.DataFrame, out: Path) -> None:
    """A null is an empty cell; a list is JSON in a cell, as `prompts` of type `file` read it."""
    lists = [name for name, dtype in table.schema.items() if dtype.is_nested()]
    cells = {
        name: [None if value is None else json.dumps(value, ensure_ascii=False) for value in table[name].to_list()]
        for name in lists
    }
    table.with_columns(pl.Series(name, texts, pl.String) for name, texts in cells.items()).write_csv(out)


def _write_folder(table: pl.DataFrame, out: Path) -> None:
    """`data/SPLIT.parquet` for each split of prompts, else all in `train`: the names that `load_dataset` looks for."""
    (out / "data").mkdir(parents=True)
    splits = table.partition_by("split", as_dict=True) if "split" in table.columns else {("train",): table}
    for (split,), rows in splits.items():
        rows.write_parquet(out / "data" / f"{split}.parquet")


FORMS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "jsonl": _write_json_lines,
    "csv": _write_csv,
    "parquet": lambda table, out: table.write_parquet(out),
    "hf": _write_folder,
    "sharegpt": _write_json_lines,
    "dpo": _write_json_lines,
}
"""What writes a table, by the value of `--to`."""
CHATS: dict[str, tuple[str, Callable[[Store, VersionRef], pl.DataFrame], int, str]] = {
    "sharegpt": ("triples", conversations, 1, RULED_OUT),
    "dpo": ("rewards", preference_pairs, 2, "without a score, equal to another, or without one to be paired with"),
}
"""Forms that are made of the rows of one stage: the stage, what makes them, of how many rows each, and why some of the
rows are in none."""
