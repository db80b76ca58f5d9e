"""The command line `hir`: registers every command of the modules beside it.

Exit codes: 0 done; 1 a launch or the store failed, or the command found the differences, damage or faults that it looks
for; 2 wrong input; 130 interrupted; 141 the reader of the output closed its pipe.
"""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli import evaluate, export, inspect, maintenance, push, run, use


def print_version(is_asked: bool) -> None:
    """Prints the installed version and ends the program."""
    if is_asked:
        from hir_core.store.manifest import code_version

        print(f"hir {code_version()}")
        raise typer.Exit


app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main(
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version of hir.")
    ] = False,
) -> None:
    """Post-training by hindsight instruction relabeling."""


for module in (run, use, evaluate, inspect, export, push, maintenance):
    for command in module.COMMANDS:
        app.command()(command)
