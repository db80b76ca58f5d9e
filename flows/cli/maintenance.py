"""The commands that clean up: `hir gc` removes what no run needs any more, `hir doctor` finds and repairs faults.

Exit codes: 0 done, or nothing found; 1 the doctor found something; 2 a process uses the run, or the removal was not
confirmed. What may be removed is decided in `hir_core.store.gc`; what is wrong is found by `hir_core.inspect.doctor`
and `flows.orchestration.flow_runs`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import typer

from flows.cli.options import FOUND, RUNS, AsJson, OneRun, RunsDir, answer, messages, print_json, print_lines
from flows.terminal.formatting import columns, number, printable, quantity, size
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.inspect.doctor import Finding
    from hir_core.store.gc import GcPlan
    from hir_core.store.store import Store


# --- hir gc ----------------------------------------------------------------------------------------------------------


def gc(
    run: OneRun = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without asking.")] = False,
    last: Annotated[int | None, typer.Option(min=1, help="Overrides `retention.last` of the config.")] = None,
    best: Annotated[int | None, typer.Option(min=0, help="Overrides `retention.best` of the config.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Remove versions that no branch uses and the weights of old models, as the config's `retention` says."""
    from hir_core.config import RetentionConfig
    from hir_core.store.gc import plan_gc, remove
    from hir_core.store.references import select_run

    with messages():
        if dry_run and yes:
            raise ConfigError("--dry-run removes nothing and --yes removes without asking: give one of them")
        if not (dry_run or yes or (_is_terminal() and not as_json)):
            raise ConfigError("hir gc removes for good, and there is no terminal to ask at: give --dry-run or --yes")
        store = select_run(run, runs_dir)
        overrides = {name: value for name, value in (("last", last), ("best", best)) if value is not None}
        rule = RetentionConfig(**overrides) if overrides else None
        if dry_run:
            plan, is_done = plan_gc(store, rule), False
            if not as_json:
                print_lines(_plan_lines(store, plan))
        else:
            with store.lock():  # held while the user decides: what was shown is what is removed
                plan = plan_gc(store, rule)
                if not as_json:
                    print_lines(_plan_lines(store, plan))
                is_done = yes or plan.is_empty or typer.confirm(f"remove this for good, {size(plan.bytes)}?")
                if is_done:
                    remove(store, plan)
        if as_json:
            print_json(_plan_json(store, plan, is_done=is_done))
        elif not (dry_run or plan.is_empty):
            print(f"{size(plan.bytes)} removed" if is_done else "nothing was removed")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _plan_json(store: Store, plan: GcPlan, *, is_done: bool) -> dict[str, Any]:
    return {
        "run": store.run_dir.resolve().name,
        "rules": plan.rules,
        "why_all": plan.why_all,
        "kept": [{"version": str(kept.ref), "why": kept.why, "released": list(kept.files)} for kept in plan.kept],
        "removed": [{"version": str(removed.ref), "bytes": removed.bytes} for removed in plan.removed],
        "bytes": plan.bytes,
        "is_done": is_done,
    }


def _plan_lines(store: Store, plan: GcPlan) -> Iterator[str]:
    """What is kept and why, what is removed, and how much disk space that frees."""
    name = printable(store.run_dir.resolve().name)
    if plan.why_all:
        yield f"{name} · nothing to remove: all {number(len(plan.kept))} versions are kept: {printable(plan.why_all)}"
        return
    yield f"{name} · retention of {printable(plan.rules)}"
    yield f"keeps {quantity(len(plan.kept), 'version')}"
    yield from columns(("  version", "because"), [(f"  {kept.ref}", printable(kept.why)) for kept in plan.kept])
    weights = [model for model in plan.released if model.loses_weights]
    states = [model for model in plan.released if not model.loses_weights]
    if weights:
        yield f"deletes the weights of {quantity(len(weights), 'model')}; evaluations and samples stay"
        yield from _sizes([(str(model.ref), model.bytes) for model in weights])
    if states:
        yield f"deletes the optimizer's state of {quantity(len(states), 'model')} from which later models were trained"
        yield from _sizes([(str(model.ref), model.bytes) for model in states])
    if plan.removed:
        yield f"removes {quantity(len(plan.removed), 'version')} that no branch uses and no kept version is made from"
        yield from _sizes([(str(removed.ref), removed.bytes) for removed in plan.removed])
    yield "nothing to remove" if plan.is_empty else f"frees {size(plan.bytes)}"


def _sizes(rows: list[tuple[str, int]]) -> list[str]:
    head, *rest = [(f"  {name}", size(count)) for name, count in rows]
    return columns(head, rest, right=(1,))


# --- hir doctor ------------------------------------------------------------------------------------------------------


class FindingJson(TypedDict):
    """A finding as `--json` prints it."""

    what: str
    where: str
    do: str
    fixable: bool
    fixed: bool


class Diagnosis(TypedDict):
    """What `hir doctor` reports: the number of runs, the findings, and packages that are missing by extra."""

    runs: int
    findings: list[FindingJson]
    missing_extras: dict[str, list[str]]


def doctor(
    config: Annotated[
        str | None,
        typer.Argument(help="A YAML file or a shipped recipe; what it needs of attention and vLLM is checked too."),
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired without harm to any run.")] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Look for faults in the runs and on this machine; exit code 1 if there are any."""
    from flows.cli.run import read_config
    from hir_core.inspect.doctor import check_installation, check_needs, check_upkeep, missing_extras
    from hir_core.store.references import find_runs

    with messages():
        runs = find_runs(runs_dir)
        findings = [*check_installation(runs_dir), *(check_needs(read_config(config, [])) if config else ())]
        for run in runs:
            findings += check_upkeep(run)
        findings += _flow_runs()
        for finding in findings:
            if fix and finding.repair is not None:
                finding.repair()
        diagnosis: Diagnosis = {
            "runs": len(runs),
            "findings": [
                {
                    "what": finding.what,
                    "where": finding.where,
                    "do": finding.do,
                    "fixable": finding.repair is not None,
                    "fixed": fix and finding.repair is not None,
                }
                for finding in findings
            ],
            "missing_extras": missing_extras(),
        }
        answer(diagnosis, as_json, _diagnosis_lines)
        if any(not finding["fixed"] for finding in diagnosis["findings"]):
            raise typer.Exit(FOUND)


def _flow_runs() -> list[Finding]:
    """Flow runs whose process is gone or, where prefect cannot be imported, a finding that says so."""
    from hir_core.inspect.doctor import REINSTALL, Finding

    try:
        from flows.orchestration.flow_runs import check_flow_runs
    except ImportError as error:
        return [Finding(f"prefect cannot be imported: {error}", "Python packages", REINSTALL)]
    return check_flow_runs()


def _diagnosis_lines(diagnosis: Diagnosis) -> Iterator[str]:
    findings = diagnosis["findings"]
    for finding in findings:
        yield printable(f"{finding['where']}: {finding['what']}")
        yield f"    {'done' if finding['fixed'] else 'to do'}: {printable(finding['do'])}"
    if diagnosis["missing_extras"]:
        yield f"not installed, needed by some settings only: extras {', '.join(diagnosis['missing_extras'])}"
    left = [finding for finding in findings if not finding["fixed"]]
    fixable = sum(finding["fixable"] for finding in left)
    hint = f"; `hir doctor --fix` repairs {number(fixable)}" if fixable else ""
    yield f"{quantity(diagnosis['runs'], 'run')} · {quantity(len(left), 'finding') if left else 'sound'}{hint}"


COMMANDS = (gc, doctor)
