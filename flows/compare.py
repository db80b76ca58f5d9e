"""The flow of `hir compare`: runs every arm and keeps the comparison's results up to date.

Every arm is a run like any other, so the same call again continues. After every arm that was not complete yet, the
flow writes `results.json`, `curves.parquet`, `table.md` and `plot.svg` into the comparison's folder. Leaves what the
arms are to `hir_core.config.comparison`, how they are run to `arms`, and statistics to `hir_core.inspect.comparison`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from prefect import flow

from flows.arms import one_by_one, side_by_side
from flows.orchestration.flow_runs import sign
from flows.report.comparison_plot import comparison_plot
from flows.report.comparison_tables import summary_table
from hir_core.config.comparison import Arm, CompareConfig
from hir_core.errors import HirError
from hir_core.inspect.comparison import (
    ArmResult,
    CurvePoint,
    Results,
    difference,
    statement,
    summarize,
    write_results,
)
from hir_core.stages.run import Run
from hir_core.stages.train import Outputs
from hir_core.store.files import write_table, write_text
from hir_core.store.manifest import code_version

CHECKOUT = Path(__file__).resolve().parents[1]


@flow(name="compare", flow_run_name="{comparison.compare}", persist_result=False, validate_parameters=False)
def compare(comparison: CompareConfig, arms: list[Arm], left_out: dict[str, str], jobs: int = 1) -> None:
    """Runs the arms that are not complete yet, and keeps the results up to date.

    Args:
        arms: those that can start.
        left_out: why the others cannot, by their names.
        jobs: how many arms to run at a time.

    Raises:
        HirError: an arm has no result; all others were run.
    """
    sign()
    results: dict[str, ArmResult] = {}
    planned, failed = len(arms) + len(left_out), dict(left_out)
    all_ended = one_by_one(arms) if jobs == 1 else side_by_side(arms, jobs, comparison.folder / "arms")
    with closing(all_ended):
        for number, ended in enumerate(all_ended, start=1):
            if ended.error is None:
                results[ended.arm.name] = arm_result(ended.arm, Run(ended.arm.config), ended.models)
            else:
                failed[ended.arm.name] = str(ended.error)
            # A call that continues meets complete arms first: until it is through them, the files of the call before
            # stay.
            if results and (number == len(arms) or ended.is_new):
                write(comparison, [results[arm.name] for arm in arms if arm.name in results], planned)
    if results:
        print_results(comparison.folder)
    if failed:
        first_lines = [f"  {name}: {why.splitlines()[0]}" for name, why in failed.items()]
        raise HirError(f"{len(failed)} of {planned} arms have no result:", *first_lines)


def print_results(folder: Path) -> None:
    """Prints the comparison's table, and where its files are."""
    print(f"\n{(folder / 'table.md').read_text()}")
    print(f"plot    {folder / 'plot.svg'}\nresults {folder / 'results.json'}")


def arm_result(arm: Arm, run: Run, models: Sequence[Outputs]) -> ArmResult:
    """An arm's learning curve and what it took, read from the manifests of its versions."""
    last = models[-1].model
    launched = [ref for outputs in models for ref in (outputs.model, outputs.evaluation)]
    launched += [outputs.samples for outputs in models[:-1] if outputs.samples]  # the last are for a further model
    return ArmResult(
        arm.task,
        arm.method,
        arm.seed,
        tuple(_curve_point(run, outputs) for outputs in models),
        model=f"{last.stage}/{last.id}",
        made_with=run.metrics(last).get("save", {}).get("made_with", {}),
        seconds=sum(run.metrics(ref).get("step_seconds", 0.0) for ref in launched),
    )


def _curve_point(run: Run, outputs: Outputs) -> CurvePoint:
    """What one model scores, and what it was trained on."""
    trained, evaluated = run.metrics(outputs.model), run.metrics(outputs.evaluation)["overall"]
    triples = run.store.parents(outputs.model, "triples")
    return CurvePoint(
        outputs.model.iteration,
        **{name: evaluated[name] for name in ("accuracy", "low", "high", "majority_baseline")},
        samples=sum(manifest.rows_in or 0 for manifest in triples),
        triples=sum(manifest.rows or 0 for manifest in triples),
        steps=trained.get("steps", 0),
        seconds=trained.get("seconds", 0.0),
    )


def write(comparison: CompareConfig, arms: Sequence[ArmResult], planned: int) -> None:
    """Brings the comparison's files up to date with the arms that are complete, of so many that are planned."""
    results, folder = gather(comparison, arms, planned), comparison.folder
    curves = pl.DataFrame(
        [
            {"task": arm.task, "method": arm.method, "seed": arm.seed, **asdict(point)}
            for arm in arms
            for point in arm.curve
        ]
    ).drop("further")
    sentences = map(statement, results.differences)
    table = [*summary_table(results.summary, list(comparison.tasks)), "", f"{len(arms)} of {planned} arms", *sentences]
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "results.json", results)
    write_table(folder / "curves.parquet", curves)
    write_text(folder / "table.md", "\n".join([*table, ""]))
    write_text(folder / "plot.svg", comparison_plot(arms, [summary.method for summary in results.summary]))


def gather(comparison: CompareConfig, arms: Sequence[ArmResult], planned: int) -> Results:
    """The arms with what they say together, and where, when and with what they were measured."""
    others = [name for name in comparison.methods if name != comparison.reference]
    differences = [difference(arms, name, comparison.reference) for name in others]
    return Results(
        name=comparison.compare,
        source="hir compare",
        date=datetime.now(UTC).date().isoformat(),
        hir_version=code_version(),
        git_commit=git_commit(),
        machine=machine(arms),
        seconds=sum(arm.seconds or 0.0 for arm in arms),
        config=comparison.model_dump(mode="json", exclude={"runs_dir"}),
        arms_planned=planned,
        arms=tuple(arms),
        summary=summarize(arms, list(comparison.methods), list(comparison.tasks)),
        differences=tuple(gap for gap in differences if gap is not None),
    )


def git_commit() -> str | None:
    """The commit of the checkout that this code stands in, `-dirty` if files were changed; None without a checkout."""
    if not (CHECKOUT / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        described = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def machine(arms: Sequence[ArmResult]) -> str:
    """This machine in words, with the devices and the torch release that the arms' models were made with."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    ranks = [
        f"{count} rank{'' if count == 1 else 's'} on {'CPU' if device == 'cpu' else device}"
        for count, device in dict.fromkeys((arm.made_with["ranks"], arm.made_with["device"]) for arm in arms
                                           if "device" in arm.made_with)
    ]  # fmt: skip
    torch = {arm.made_with["torch"] for arm in arms if "torch" in arm.made_with}
    torch = torch or {importlib.metadata.version("torch")}
    cpu = models[0] if models else platform.machine()
    counted = f"{cores} CPU core{'' if cores == 1 else 's'} ({cpu})"
    return ", ".join([counted, *ranks, f"torch {' and '.join(sorted(torch))}"])
