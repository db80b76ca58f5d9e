"""`hir gc` and `hir doctor`: what of a run may go, and what is not as it should be, in the runs and on this machine.

Exit codes: 0 done, or all is well; 1 the doctor has found something; 2 somebody uses the run, or nobody said that
anything may be removed. What may go is up to `hir_core.retaining`, how it goes to `removing`; what is wrong to
`upkeep`, `installation` and `stuck`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.options import FOUND, RUNS, AsJson, OneRun, RunsDir, answer, messages, print_json, print_lines
from flows.terminal.formatting import columns, number, printable, size
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.inspect.doctor import Finding
    from hir_core.store.gc import GcPlan
    from hir_core.store.store import Store


def gc(
    run: OneRun = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it without being asked.")] = False,
    last: Annotated[int | None, typer.Option(min=1, help="retention.last, in place of the config's.")] = None,
    best: Annotated[int | None, typer.Option(min=0, help="retention.best, in place of the config's.")] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Remove forks that were left, and the weights of old models, as `retention` in the config says."""
    from hir_core.config import RetentionConfig
    from hir_core.store.gc import plan_gc, remove
    from hir_core.store.references import one_run

    with messages():
        _check_asked(dry_run, yes, as_json)
        store = one_run(run, runs_dir)
        given = {name: value for name, value in (("last", last), ("best", best)) if value is not None}
        rule = RetentionConfig(**given) if given else None
        if dry_run:
            _tell(store, plan_gc(store, rule), as_json, is_done=False)
            return
        with store.lock():  # held while somebody thinks: what was shown is what is removed
            found = plan_gc(store, rule)
            if not as_json:
                print_lines(_lines(store, found))
            is_wanted = yes or found.is_nothing or typer.confirm(f"remove this for good, {size(found.bytes)}?")
            if is_wanted:
                remove(store, found)
        if as_json:
            print_json(_facts(store, found, is_done=is_wanted))
        elif not found.is_nothing:
            print(f"{size(found.bytes)} removed" if is_wanted else "nothing was removed")


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="Set right what cannot harm: what no run can take up.")] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Look for what is broken in the runs and on this machine; the exit code is 1 where something is found."""
    from hir_core.inspect.doctor import check_installation, check_upkeep, missing_extras
    from hir_core.store.references import find_runs

    with messages():
        runs = find_runs(runs_dir)
        found = [*check_installation(runs_dir), *(one for run in runs for one in check_upkeep(run)), *_flow_runs()]
        for one in found:
            if fix and one.mend is not None:
                one.mend()
        facts = {"runs": len(runs), "findings": [_told(one, fix) for one in found], "missing_extras": missing_extras()}
        answer(facts, as_json, _diagnosis)
        if any(not one["fixed"] for one in facts["findings"]):
            raise typer.Exit(FOUND)


def _flow_runs() -> list[Finding]:
    try:
        from flows.orchestration.flow_runs import check_flow_runs
    except ImportError as error:
        from hir_core.inspect.doctor import Finding

        return [Finding(f"prefect cannot be imported: {error}", "Python packages", "in hir's folder: pip install -e .")]
    return check_flow_runs()


def _told(finding: Finding, fix: bool) -> dict[str, Any]:
    can_mend = finding.mend is not None
    facts = {"what": finding.what, "where": finding.where, "do": finding.do}
    return {**facts, "fixable": can_mend, "fixed": can_mend and fix}


def _diagnosis(facts: dict[str, Any]) -> Iterator[str]:
    findings = facts["findings"]
    for one in findings:
        yield printable(f"{one['where']}: {one['what']}")
        yield f"    {'done' if one['fixed'] else 'to do'}: {printable(one['do'])}"
    if facts["missing_extras"]:
        yield f"not installed, and needed by some settings only: extras {', '.join(facts['missing_extras'])}"
    left = sum(not one["fixed"] for one in findings)
    fixable = sum(one["fixable"] and not one["fixed"] for one in findings)
    hint = f"; `hir doctor --fix` sets {number(fixable)} right" if fixable else ""
    yield f"{_count(facts['runs'], 'run')} · {_count(left, 'finding') if left else 'sound'}{hint}"


def _check_asked(dry_run: bool, yes: bool, as_json: bool) -> None:
    """Returns if somebody can say whether anything may be removed.

    Raises:
        ConfigError: nobody can, or two things were said.
    """
    if dry_run and yes:
        raise ConfigError("--dry-run removes nothing and --yes everything that may go: give one of them")
    if not (dry_run or yes or (_is_terminal() and not as_json)):
        raise ConfigError("hir gc removes for good, and there is no terminal to ask at: give --dry-run or --yes")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _tell(store: Store, found: GcPlan, as_json: bool, *, is_done: bool) -> None:
    if as_json:
        print_json(_facts(store, found, is_done=is_done))
    else:
        print_lines(_lines(store, found))


def _facts(store: Store, found: GcPlan, *, is_done: bool) -> dict[str, Any]:
    return {
        "run": store.run_dir.resolve().name,
        "rules": found.rules,
        "why_all": found.why_all,
        "kept": [{"version": str(one.ref), "why": one.why, "released": list(one.weights)} for one in found.kept],
        "removed": [{"version": str(one.ref), "bytes": one.bytes} for one in found.removed],
        "bytes": found.bytes,
        "is_done": is_done,
    }


def _lines(store: Store, found: GcPlan) -> Iterator[str]:
    """What stays and why, what goes, and what that frees."""
    name = printable(store.run_dir.resolve().name)
    if found.why_all:
        yield f"{name} · nothing to remove: all {number(len(found.kept))} versions are kept: {printable(found.why_all)}"
        return
    yield f"{name} · retention of {printable(found.rules)}"
    yield f"keeps {_count(len(found.kept), 'version')}"
    yield from columns(("  version", "because"), [(f"  {one.ref}", printable(one.why)) for one in found.kept])
    if found.emptied:
        yield f"lets go of the weights of {_count(len(found.emptied), 'model')}; what they scored and wrote stays"
        yield from _sizes([(str(one.ref), one.bytes) for one in found.emptied])
    if found.removed:
        yield f"removes {_count(len(found.removed), 'version')} that no line uses and nothing kept is made from"
        yield from _sizes([(str(one.ref), one.bytes) for one in found.removed])
    yield "nothing to remove" if found.is_nothing else f"frees {size(found.bytes)}"


def _sizes(rows: list[tuple[str, int]]) -> list[str]:
    head, *rest = [(f"  {name}", size(count)) for name, count in rows]
    return columns(head, rest, right=(1,))


def _count(count: int, word: str) -> str:
    return f"{number(count)} {word}{'' if count == 1 else 's'}"


COMMANDS = (gc, doctor)
