"""The command that publishes a version on the Hugging Face hub, `hir push`: a model or a table, with its card.

Reads the store, changes nothing in it, and writes a repository of the hub; with `--dry-run` nothing.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import RUNS, AsJson, Ref, RunsDir, answer, messages
from flows.terminal.formatting import columns, printable, printable_lines, quantity, size


def push(
    ref: Ref,
    repository: Annotated[str, typer.Argument(help="USER/NAME on the hub; it is made where there is none.")],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody read it. Without it a new repository is private.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Of a model: leave the instruction out of its chat template.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the card and the files that would go up; needs no network.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Publish a model or a table on the Hugging Face hub, with a card; private unless --public."""
    from hir_core.inspect.push import check_name, prepare, upload
    from hir_core.store.references import find_version

    with messages(), tempfile.TemporaryDirectory(prefix="hir-push-") as temporary:
        check_name(repository)
        store, version = find_version(ref, runs_dir)
        folder = Path(temporary) / "folder"
        prepared = prepare(store, version, folder, is_plain=plain)
        where = f"{prepared.kind} {repository} ({'public' if public else 'private'})"
        result = {"repository": repository, "private": not public, **prepared._asdict(), "url": None}
        if dry_run:
            rows = [[printable(name), size(count)] for name, count in prepared.files.items()]
            lines = [printable_lines(prepared.card), *columns(["file", "size"], rows, right=[1])]
            lines += ["", f"{quantity(len(rows), 'file')}, {size(sum(prepared.files.values()))}, for {where}"]
            answer(result, as_json, lambda _: [*lines, "nothing was uploaded: leave --dry-run out"])
            return
        message = f"{store.run_dir.resolve().name}: {version}"
        result["url"] = upload(folder, repository, prepared.kind, is_public=public, message=message)
        answer(result, as_json, lambda _: [f"{version} is {where}: {printable(str(result['url']))}"])


COMMANDS = (push,)
