"""The commands that run flows, `hir run`, `hir compare` and `hir schedule`, and those that only look at a config.

`hir check` tries a config without a launch, and `hir plan` says what its launch needs.

Prefect is imported only after the input was checked: the import takes seconds, and an error in a config should not wait
for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli.external import is_served_elsewhere, refuse_external
from flows.cli.options import AsJson, answer, messages
from flows.start import CONFIGS, checked_run, connect, is_complete, open_checked, started
from hir_core.errors import ConfigError, HirError
from hir_core.light_imports import uncollected

if TYPE_CHECKING:
    from hir_core.config import RunConfig
    from hir_core.config.comparison import Arm


def run(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")] = "quickstart",
    changes: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, key=value, for example iterations=12.")
    ] = None,
) -> None:
    """Run all iterations of a config; the same command again continues where the run ended."""
    from flows.orchestration import server

    with server.ended_at_once_if_lost(), messages():
        with uncollected():
            run_config = read_config(config, changes or [])
            if is_served_elsewhere(run_config):
                return
            rest = started(run_config)
        rest()
        print(f"next    {next_commands(run_config, config, changes or [])}")


def compare(
    config: Annotated[str, typer.Argument(help="A YAML file that lists methods, tasks and seeds.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, key=value, for example seeds=[0].")
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            min=1, help="Arms to run at a time, each in its own process; those of one task and seed take turns."
        ),
    ] = 1,
) -> None:
    """Compare methods over tasks and seeds; the same command again continues where it ended."""
    from flows.orchestration import server
    from hir_core.config.comparison import load_comparison
    from hir_core.config.load import find_config

    with server.ended_at_once_if_lost(), messages():
        comparison, arms = load_comparison(find_config(config, CONFIGS), CONFIGS, changes or [])
        refuse_external(arm.config for arm in arms)
        arms, left_out, is_done = check_arms(arms)
        if not is_done:
            connect()
        from flows.compare import compare

        (compare.fn if is_done else partial(server.call, compare))(comparison, arms, left_out, jobs)


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
        refuse_external([run_config])
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


def check(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")] = "quickstart",
    changes: Annotated[list[str] | None, typer.Argument(help="Settings to change, key=value.")] = None,
    as_json: AsJson = False,
) -> None:
    """Try a config without a launch: prompts, their lengths, the reward, the relabeler, the memory."""
    from dataclasses import asdict

    from flows.terminal.check import check_text
    from hir_core.inspect.machines import find_machines
    from hir_core.inspect.plan import make_plan
    from hir_core.stages.check import check_config

    with messages():
        run_config = read_config(config, changes or [])
        run, loaded = checked_run(run_config)
        found = check_config(run, loaded)
        try:
            prompt_tokens = found.prompt_tokens.most if found.prompt_tokens else None
            plan = make_plan(run_config, find_machines(run_config.launch), prompt_tokens)
        except ConfigError as error:  # its parameters cannot be counted, or no GPU answers
            plan = None
            found.warnings.append(f"memory could not be estimated: {error}")
        if plan is not None and not any(file.is_current and not file.problem for file in plan.files):
            found.warnings.append("the launch may not fit into the memory: see hir plan")
        command = ["hir", "run", config, *(changes or [])]
        shown = asdict(found) if as_json else found
        answer(shown, as_json, lambda _: check_text(run_config.run, found, plan, command))
        if found.errors:
            raise typer.Exit(1)


def plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    changes: Annotated[
        list[str] | None,
        typer.Argument(help="Settings to change, key=value, for example training.micro_batch_tokens=8192."),
    ] = None,
    gpus: Annotated[int | None, typer.Option(min=1, help="GPUs of each machine; those here if left out.")] = None,
    gpu_memory: Annotated[float | None, typer.Option(min=0.1, help="Memory of a GPU in GB, for example 80.")] = None,
    nodes: Annotated[int | None, typer.Option(min=1, help="Machines; those of the config if left out.")] = None,
    host_memory: Annotated[float | None, typer.Option(min=0.1, help="Main memory of a machine in GB.")] = None,
    prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the longest prompt; 512 if left out.")
    ] = None,
    parameters: Annotated[
        int | None, typer.Option(min=1, help="Parameters of the model, where its config.json does not tell.")
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="New tokens that all devices sample in a second, if you know it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a config needs under each DeepSpeed file, and which of them fit; starts nothing."""
    from dataclasses import asdict

    from flows.terminal.plan import plan_text
    from hir_core.inspect.machines import find_machines
    from hir_core.inspect.plan import make_plan

    with messages():
        run_config = read_config(config, changes or [])
        machines = find_machines(run_config.launch, gpus, gpu_memory, nodes, host_memory)
        found = make_plan(run_config, machines, prompt_tokens, parameters)
        command = ["hir", "run", config, *(changes or [])]
        answer(asdict(found) if as_json else found, as_json, lambda _: plan_text(found, command, tokens_per_second))


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


def check_arms(arms: Sequence[Arm]) -> tuple[list[Arm], dict[str, str], bool]:
    """The arms that can start, why the others cannot, by their names, and whether all that can are complete.

    Raises:
        HirError: of the last arm, where none can start.
    """
    from flows.terminal.progress_bar import StatusLine

    ready: list[Arm] = []
    left_out: dict[str, str] = {}
    is_done = True
    with StatusLine() as status_line:
        for number, arm in enumerate(arms, start=1):
            status_line.update(f"checking run {number} of {len(arms)}")
            try:
                is_done = is_complete(*open_checked(arm.config)) and is_done
                ready.append(arm)
            except HirError as error:
                if not ready and number == len(arms):
                    raise
                left_out[arm.name] = str(error)
        for name, why in left_out.items():
            status_line.print_above(f"warning: left out: {name}: {why}")
    return ready, left_out, is_done


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
    """The commands to try after a run: list its versions, ask its model, run more iterations."""
    if "=" in name:
        name, changes = "quickstart", [name, *changes]
    kept = [change for change in changes if not change.startswith("iterations=")]
    more = f"iterations={config.iterations + max(1, config.iterations)}"
    where = [] if config.runs_dir == Path("runs") else ["--runs-dir", str(config.runs_dir)]
    commands = (
        ["hir", "ls", config.run, *where],
        ["hir", "chat", config.run, *where],
        ["hir", "run", name, *kept, more],
    )
    return " · ".join(map(shlex.join, commands))


COMMANDS = (run, compare, schedule, check, plan)
