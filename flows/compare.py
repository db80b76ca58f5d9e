"""The comparison flow: runs every arm, gathers their learning curves, and says who won.

Every arm is a run like any other, so the same call again continues. After every arm that was not there it writes
`curves.parquet`, `table.md` and `plot.svg` into the comparison's folder. Leaves what the arms are and what their
numbers say to `comparison`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from prefect import flow

from flows.hindsight import hindsight
from flows.orchestration.flow_runs import sign
from flows.report.comparison_plot import comparison_plot
from flows.terminal.formatting import NOTHING
from hir_core.config.comparison import Arm, CompareConfig
from hir_core.inspect.comparison import last_points, paired, t_interval, verdict
from hir_core.stages.resume import completed_iterations
from hir_core.stages.run import Outputs, Run
from hir_core.store.files import write_text


@flow(name="compare", flow_run_name="{comparison.compare}", persist_result=False, validate_parameters=False)
def compare(comparison: CompareConfig, arms: list[Arm]) -> None:
    """Runs the arms that are not there yet, one after the other, and keeps the results up to date."""
    sign()
    rows: list[dict[str, Any]] = []
    for number, arm in enumerate(arms, start=1):
        print(f"\n{arm.task} · {arm.method} · seed {arm.seed} · arm {number} of {len(arms)}", flush=True)
        run = Run(arm.config)
        there = run.store.versions()
        rows += points(arm, run, complete(run) or hindsight(arm.config))
        # A call that continues meets complete arms first: until it is through them, the files of the call before stay.
        if number == len(arms) or run.store.versions() != there:
            write(comparison, pl.DataFrame(rows), f"{number} of {len(arms)} arms")
    print("\n" + (comparison.folder / "table.md").read_text())
    print(f"plot    {comparison.folder / 'plot.svg'}")


def complete(run: Run) -> list[Outputs]:
    """The models of an arm that is through, none of any other: a flow takes seconds to find nothing to do."""
    wanted = run.config.iterations + 1
    made = completed_iterations(run, run.check())
    if len(made) < wanted:
        return []
    print(f"nothing to do: model {wanted - 1} is there", flush=True)
    return made[:wanted]


def points(arm: Arm, run: Run, models: Sequence[Outputs]) -> list[dict[str, Any]]:
    """One arm's learning curve: a row per model."""
    return [{"task": arm.task, "method": arm.method, "seed": arm.seed, **_point(run, made)} for made in models]


def _point(run: Run, made: Outputs) -> dict[str, Any]:
    """What one model scores, and what it was made from."""
    trained, tested = run.facts(made.model), run.facts(made.evaluation)["overall"]
    triples = run.made_from(made.model, "triples")
    return {
        "iteration": made.model.iteration,
        **{name: tested[name] for name in ("accuracy", "low", "high", "majority_baseline")},
        "samples": sum(manifest.rows_in or 0 for manifest in triples),
        "triples": sum(manifest.rows or 0 for manifest in triples),
        "steps": trained.get("steps", 0),
        "seconds": trained.get("seconds", 0.0),
    }


def write(comparison: CompareConfig, curves: pl.DataFrame, progress: str) -> None:
    """Brings the comparison's files up to date; `progress` says how many arms they tell of."""
    names = [name for name in comparison.methods if name in set(curves["method"])]
    reference = comparison.reference
    others = [name for name in names if name != reference and not paired(curves, name, reference).is_empty()]
    said = [verdict(curves, name, reference) for name in others]
    comparison.folder.mkdir(parents=True, exist_ok=True)
    curves.write_parquet(comparison.folder / "curves.parquet")
    text = "\n".join([*table(curves, names, list(comparison.tasks)), "", progress, *said, ""])
    (comparison.folder / "table.md").write_text(text)
    write_text(comparison.folder / "plot.svg", comparison_plot(curves, names))


def table(curves: pl.DataFrame, methods: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """The final accuracies as a Markdown table: methods by tasks, means over the seeds with their 95 % intervals."""
    last = last_points(curves)
    lines = [["method", *tasks, "mean", "samples that train"], ["---"] * (len(tasks) + 3)]
    for method in methods:
        own = last.filter(pl.col("method") == method)
        by_task = [own.filter(pl.col("task") == task)["accuracy"].to_list() for task in tasks]
        complete = all(by_task)
        mean = own.group_by("seed").agg(pl.col("accuracy").mean())["accuracy"].to_list() if complete else []
        lines.append([method, *map(_cell, by_task), _cell(mean), _share(curves, method)])
    return [f"| {' | '.join(line)} |" for line in lines]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return NOTHING
    mean, low, high = t_interval(values)
    return f"{100 * mean:.1f} ± {100 * (high - low) / 2:.1f}" if len(values) > 1 else f"{100 * mean:.1f}"


def _share(curves: pl.DataFrame, method: str) -> str:
    """Triples per sample over all iterations but the warm start."""
    rows = curves.filter(pl.col("method") == method, pl.col("iteration") > 0)
    return f"{100 * rows['triples'].sum() / max(1, rows['samples'].sum()):.0f} %"
