"""The command that writes a version for other programs, `hir export`: a table as a file, a model as a folder.

Reads the store, changes nothing in it, and writes one new file or folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import RUNS, AsJson, Ref, RunsDir, answer, messages
from flows.terminal.formatting import number, printable, size
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.store.store import Store
    from hir_core.store.version import VersionRef

Raw = Annotated[
    bool,
    typer.Option(
        "--raw",
        help="With csv: write every text as it is, so that a program reads back the same table. Otherwise a text "
        "that a spreadsheet would run as a formula (it begins with = + - @, a tab or a line break, and is no "
        "number) gets a ' in front, which makes it text there too; numbers stay numbers. A comma ends a cell.",
    ),
]
WithInstruction = Annotated[
    bool,
    typer.Option(
        "--with-instruction",
        help="With a model: its chat template puts the instruction of the run before a question, so that any "
        "server asks it as it was trained.",
    ),
]


Card = Annotated[
    bool,
    typer.Option(
        "--card",
        help="With a model, and with hf: also write README.md, the card with which `hir push` uploads it.",
    ),
]


def export(
    ref: Ref,
    out: Annotated[Path, typer.Argument(help="The file to write; for hf and for a model the folder.")],
    to: Annotated[
        str | None,
        typer.Option(
            help="The format of a table: jsonl, csv, parquet, or hf (a folder that `datasets` loads); of triples also "
            "sharegpt (conversations), of rewards also dpo (right completions preferred to wrong ones)."
        ),
    ] = None,
    raw: Raw = False,
    with_instruction: WithInstruction = False,
    card: Card = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Write a version to a new file or folder, for other programs.

    Of triples, those that are only ruled out are left out. A model becomes a folder for plain `transformers`, with an
    adapter merged into its weights.
    """
    from hir_core.store.references import find_version

    with messages():
        store, version = find_version(ref, runs_dir)
        if version.stage == "models":
            if to is not None:
                raise ConfigError(
                    f"--to is for tables only: {version} is a model, which becomes a folder for `transformers`"
                )
            _export_model(store, version, out, with_instruction, card, as_json)
            return
        if with_instruction:
            raise ConfigError(f"--with-instruction is for models only: {version} is a table")
        if card and to != "hf":
            raise ConfigError("--card is for models and for --to hf, whose folders are what the hub takes")
        _export_table(store, version, out, to, raw, card, as_json)


def _export_table(
    store: Store, version: VersionRef, out: Path, to: str | None, raw: bool, card: bool, as_json: bool
) -> None:
    from hir_core.inspect.export import FORMS, export
    from hir_core.inspect.push import write_dataset_card

    if to is None:
        raise ConfigError(f"--to is missing: expected one of {', '.join(FORMS)}")
    if raw and to != "csv":
        raise ConfigError(f"--raw is for csv only: {to} has every text as it is")
    exported = export(store, version, to, out, is_raw=raw)
    if card:
        write_dataset_card(store, version, out, exported)
    lines = [f"{number(exported.rows)} rows in {printable(str(out))}"]
    if exported.left_out:
        left_out = f"left out: {number(exported.left_out)} rows {exported.reason}"
        lines.append(f"{left_out}; `hir path` prints the folder of the whole table")
    answer({**exported._asdict(), "path": str(out)}, as_json, lambda _: lines)


def _export_model(
    store: Store, version: VersionRef, out: Path, with_instruction: bool, card: bool, as_json: bool
) -> None:
    from hir_core.inspect.model_export import export_model
    from hir_core.inspect.push import write_model_card

    exported = export_model(store, version, out, with_instruction=with_instruction)
    if card:
        write_model_card(store, version, out, exported)
    merged = "" if exported.merged_into is None else f": its adapter, merged into {exported.merged_into}"
    lines = [f"{version} in {printable(str(out))} (plain transformers, {size(exported.bytes)}){merged}"]
    if exported.instruction:
        lines.append(f'its chat template puts "{printable(exported.instruction)}" before a question')
    answer({**exported._asdict(), "path": str(out)}, as_json, lambda _: lines)


COMMANDS = (export,)
