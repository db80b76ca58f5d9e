"""The command line `hir`: registers every command of `run`, `inspect` and `maintenance`.

Exit codes: 0 done; 1 a launch or the store failed, or what a command looks for, a difference or damage, was found; 2
wrong input; 130 interrupted; 141 the reader of the output closed its pipe.
"""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import inspect, maintenance, run


def tell_version(is_asked: bool) -> None:
    """Prints the installed version, and ends."""
    if is_asked:
        from hir_core.store.manifest import code_version

        print(f"hir {code_version()}")
        raise typer.Exit


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=tell_version, help="Say which hir this is.")
    ] = False,
) -> None:
    """Post-training by hindsight instruction relabeling."""


for command in (*run.COMMANDS, *inspect.COMMANDS, *maintenance.COMMANDS):
    app.command()(command)
