"""`hir`: the command line. Turns arguments into a config or a version, runs flows, and shows runs and versions.

Commands that look at rows are in `looking` and `taking`, those that clear up in `clearing`. Exit codes: 0 done; 1 a
launch or the store failed, or what a command looks for, a difference or damage, was found; 2 the input is wrong; 130
interrupted. Imports what a command needs when it runs: prefect takes seconds, and neither wrong input nor `hir ls`
should wait for it.
"""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows import clearing, looking, taking
from flows.terminal import RUNS, AsJson, Ref, RunsDir, answer, messages, print_json, print_lines, terminal_width
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.config import RunConfig

CONFIGS = Path(__file__).resolve().parent / "configs"
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def main() -> None:
    """Post-training by hindsight instruction relabeling."""


@app.command()
def run(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")] = "quickstart",
    changes: Annotated[list[str] | None, typer.Argument(help="key=value, for example iterations=12.")] = None,
) -> None:
    """Run every iteration that a config asks for; the same command again continues."""
    with messages():
        run_config = read_config(config, changes or [])
        check(run_config)
        from flows import prefect_api
        from flows.display import headline

        print(headline(run_config), flush=True)
        prefect_api.connect()
        from flows.hindsight import hindsight
        from flows.stuck import signed

        with signed():
            hindsight(run_config)
        print(f"next    {next_commands(run_config, config, changes or [])}")


@app.command()
def compare(
    config: Annotated[str, typer.Argument(help="A YAML file that names methods, tasks and seeds.")],
    changes: Annotated[list[str] | None, typer.Argument(help="key=value, for example seeds=[0].")] = None,
) -> None:
    """Run methods by tasks by seeds, and say who won; the same command again continues."""
    from hir_core.comparison import load_comparison

    with messages():
        comparison, arms = load_comparison(_find(config), CONFIGS, changes or [])
        for arm in arms:
            check(arm.config)
        from flows import prefect_api

        prefect_api.connect()
        from flows.compare import compare
        from flows.stuck import signed

        with signed():
            compare(comparison, arms)


@app.command()
def ls(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs to look into, by name or folder.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """List the runs, or the versions of some."""
    from flows import listing
    from flows.runs import find_run

    with messages():
        if runs:
            listed = [facts for name in runs for facts in listing.describe_versions(find_run(name, runs_dir))]
            answer(listed, as_json, listing.versions_text)
        else:
            found = listing.describe_runs(runs_dir)
            answer(found, as_json, listing.runs_text if found else lambda _: [_how_to_start(runs_dir)])


@app.command()
def show(
    ref: Ref,
    rows: Annotated[int, typer.Option(min=0, help="Rows of the table to show.")] = 3,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Show a version: where it comes from, what it holds, and its first rows."""
    from flows import show as shown
    from flows.runs import find_version

    with messages():
        store, version = find_version(ref, runs_dir)
        if as_json:
            print_json({**shown.describe(store, version), "first_rows": shown.first_rows(store, version, rows)})
            return
        width = terminal_width()
        print_lines(shown.version_text(store, version, width))
        print_lines(shown.rows_text(shown.first_rows(store, version, rows), width))


for command in (*looking.COMMANDS, *taking.COMMANDS, *clearing.COMMANDS):
    app.command()(command)


def read_config(config: str, changes: list[str]) -> RunConfig:
    """The config at a path or of a shipped name, with changes applied; a change in its place means the quickstart.

    Raises:
        ConfigError: there is no such config, or it is wrong.
    """
    from hir_core.config import load_config

    if "=" in config:
        config, changes = "quickstart", [config, *changes]
    return load_config(_find(config), changes)


def _find(config: str) -> Path:
    """The file that a config's path or shipped name means."""
    for path in (Path(config), CONFIGS / f"{config.removesuffix('.yaml')}.yaml"):
        if path.is_file():
            return path
    raise ConfigError(_no_such_config(config))


def check(config: RunConfig) -> None:
    """Returns if a run can start, having written nothing.

    Raises:
        HirError: the prompts, the model's folder, the reward or the launch settings are wrong, or the run has a writer.
    """
    from hir_core.stages import Run

    run = Run(config)
    run.check()
    if config.run_dir.exists():
        with run.store.lock():
            pass  # the flow takes it for good; this tells a second writer before it has waited for prefect


def next_commands(config: RunConfig, name: str, changes: list[str]) -> str:
    """What to type once a run is done."""
    if "=" in name:
        name, changes = "quickstart", [name, *changes]
    kept = [change for change in changes if not change.startswith("iterations=")]
    more = f"iterations={config.iterations + max(1, config.iterations)}"
    where = [] if config.runs_dir == Path("runs") else ["--runs-dir", str(config.runs_dir)]
    table = "triples" if config.iterations else "evaluations"
    commands = (
        ["hir", "ls", config.run, *where],
        ["hir", "show", f"{config.run}/{table}@latest", *where],
        ["hir", "run", name, *kept, more],
    )
    return " · ".join(map(shlex.join, commands))


def _no_such_config(config: str) -> str:
    """Names the files nearby and the shipped recipes, the near ones first."""
    shipped = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
    folder = Path(config).parent
    here = sorted(str(file) for file in folder.glob("*.yaml")) if folder.is_dir() else []
    near = difflib.get_close_matches(config, [*here, *shipped], n=1)
    hint = f"did you mean `{near[0]}`? " if near else ""
    return f"no such config: {config}; {hint}Expected a YAML file or a shipped recipe ({', '.join(shipped)})"


def _how_to_start(runs_dir: Path) -> str:
    return f"no runs in {runs_dir}: start one with `hir run quickstart`"
