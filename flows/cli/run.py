"""The commands that run flows: `hir run`, `hir compare` and `hir schedule`.

Prefect is imported only after the input was checked: the import takes seconds, and an error in a config should not wait
for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.options import messages
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.config import RunConfig


CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def run(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")] = "quickstart",
    changes: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, key=value, for example iterations=12.")
    ] = None,
) -> None:
    """Run all iterations of a config; the same command again continues where the run ended."""
    with messages():
        run_config = read_config(config, changes or [])
        check([run_config])
        from flows.terminal.run_table import headline

        print(headline(run_config), flush=True)
        connect()
        from flows.hindsight import hindsight
        from flows.orchestration import server

        server.call(hindsight, run_config)
        print(f"next    {next_commands(run_config, config, changes or [])}")


def compare(
    config: Annotated[str, typer.Argument(help="A YAML file that lists methods, tasks and seeds.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, key=value, for example seeds=[0].")
    ] = None,
) -> None:
    """Compare methods over tasks and seeds; the same command again continues where it ended."""
    from hir_core.config.comparison import load_comparison
    from hir_core.config.load import find_config

    with messages():
        comparison, arms = load_comparison(find_config(config, CONFIGS), CONFIGS, changes or [])
        check([arm.config for arm in arms])
        connect()
        from flows.compare import compare
        from flows.orchestration import server

        server.call(compare, comparison, arms)


def schedule(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, key=value, for example seed=1.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help='Start times as a cron expression, as in "0 2 * * *".')] = None,
    interval: Annotated[str | None, typer.Option(help="Time between two starts, as in 90s, 30m, 6h or 1d.")] = None,
    further: Annotated[int, typer.Option(min=1, help="Iterations that each start adds to the run.")] = 1,
    when_busy: Annotated[
        Literal["skip", "wait"], typer.Option(help="What to do while another process writes to the run.")
    ] = "skip",
    pool: Annotated[
        str, typer.Option(help="A Prefect work pool of type process; created if it does not exist.")
    ] = "hir",
    serve: Annotated[
        bool, typer.Option("--serve", help="Start the runs from this process, without a work pool.")
    ] = False,
) -> None:
    """Add iterations to a run on a schedule; needs a Prefect server that keeps running."""
    with messages():
        run_config, every = read_config(config, changes or []), _period(interval)
        if (cron is None) == (every is None):
            raise ConfigError("expected one of --cron and --interval")
        from hir_core.stages.prompts import check as check_run
        from hir_core.stages.run import Run

        check_run(Run(run_config))
        from flows.orchestration import server

        server.connect_to_standing()
        from flows import schedule as deployments

        planned = deployments.build_deployment(run_config, further, when_busy, cron, every, None if serve else pool)
        name = shlex.quote(planned.full_name)
        if not serve:
            deployments.create(planned, pool)
        print(f"{planned.full_name} · {further} more iterations each time · {cron or interval} · {run_config.run_dir}")
        start = (
            "waiting for the next start, Ctrl-C ends it"
            if serve
            else f"prefect worker start --pool {shlex.quote(pool)}"
        )
        print(f"next    {start} · prefect deployment run {name} · prefect deployment delete {name}", flush=True)
        if serve:
            deployments.serve_here(planned)


def read_config(config: str, changes: list[str]) -> RunConfig:
    """The config at a path or of a shipped recipe, with changes applied.

    Args:
        config: a path, the name of a recipe, or a change `key=value`, which then is one of the quickstart.
        changes: settings to change, each `key=value`.

    Raises:
        ConfigError: there is no such config, or it is wrong.
    """
    from hir_core.config import load_config
    from hir_core.config.load import find_config

    if "=" in config:
        config, changes = "quickstart", [config, *changes]
    return load_config(find_config(config, CONFIGS), changes)


def check(configs: Sequence[RunConfig]) -> None:
    """Checks that these runs can start; writes nothing.

    Raises:
        HirError: the prompts, the model's folder, the reward or the launch settings are wrong.
        RunLocked: another process writes to a run.
    """
    from flows.terminal.progress_bar import StatusLine
    from hir_core.stages.prompts import check as check_run
    from hir_core.stages.run import Run

    with StatusLine() as status_line:
        for number, config in enumerate(configs, start=1):
            activity = "reading the prompts" if len(configs) == 1 else f"checking run {number} of {len(configs)}"
            status_line.update(activity)
            run = Run(config)
            check_run(run)
            if config.run_dir.exists():
                with run.store.lock():
                    pass  # the flow takes it later; a second process should not have to wait for prefect first


def connect() -> None:
    """Connects to Prefect; takes seconds, and longer the first time, when its database is created."""
    from flows.orchestration import server
    from flows.terminal.progress_bar import StatusLine

    with StatusLine() as status_line:
        status_line.update("starting Prefect")
        server.connect()


def _period(text: str | None) -> timedelta | None:
    """The time that a text like 90s, 30m, 6h or 1d stands for.

    Raises:
        ConfigError: the text is of another form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"0*([1-9]\d{0,5})([smhd])", text)
    if match is None:
        raise ConfigError(f"--interval {text}: expected a number and s, m, h or d, as in 90s, 30m, 6h or 1d")
    return int(match[1]) * timedelta(**{{"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[match[2]]: 1})


def next_commands(config: RunConfig, name: str, changes: list[str]) -> str:
    """The commands to try after a run: list its versions, show its last table, run more iterations."""
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


COMMANDS = (run, compare, schedule)
