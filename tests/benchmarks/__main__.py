"""The command `python -m tests.benchmarks [NAME ...]`: measures cases, prints each one's table, and keeps the numbers.

A name is a module of this folder, such as `commit`, or one of its cases, such as `commit/write`; without a name every
case is measured.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.measure import CHECKOUT, Case, Measurement, Result, Surroundings, measure

MODULES = ("training", "head", "sampling", "scoring", "commit", "commands", "iteration", "growth", "accuracy")
"""The modules that hold cases, each in a tuple `CASES`."""


def find_cases(names: Sequence[str]) -> list[Case]:
    """The cases of these names; all without a name.

    Raises:
        SystemExit: there is no such case; lists the existing ones.
    """
    known = [case for module in MODULES for case in importlib.import_module(f"tests.benchmarks.{module}").CASES]
    for name in names:
        if not any(name in (case.name, case.name.partition("/")[0]) for case in known):
            raise SystemExit(f"no case `{name}`: there is {', '.join(case.name for case in known)}")
    return [case for case in known if not names or {case.name, case.name.partition("/")[0]} & set(names)]


def main() -> int:
    """Measures what the command line names; returns the exit code: 1 where a side failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a module or a case; all without one")
    parser.add_argument("--rounds", type=int, help="measurements of each side; each case has its own number")
    parser.add_argument("--threads", type=int, default=1, help="threads of every library, on both sides (1)")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "runs/benchmarks.json", help="the JSON file to update")
    parser.add_argument("--continue", action="store_true", dest="continues", help="keep what the file holds, add to it")
    parser.add_argument("--list", action="store_true", help="print the cases instead")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # temporary folders are then deleted
    cases = find_cases(options.names)
    if options.list:
        print("\n".join(f"{case.name:<24} {case.question}" for case in cases))
        return 0
    results, surroundings = report.read(options.out), report.surroundings()
    has_failed = False
    for case in cases:

        def keep(side: str, result: Result) -> None:
            results[result.case] = result
            report.write(options.out, results.values())
            print(progress_line(side, result), file=sys.stderr)

        earlier = results.get(case.name) if options.continues else None
        kept = kept_measurements(case, earlier, surroundings, options.threads)
        rounds = options.rounds or case.rounds
        result = measure(
            case, rounds, threads=options.threads, surroundings=surroundings, kept=kept, on_measurement=keep
        )
        results[case.name] = result
        report.write(options.out, results.values())
        print(report.table(result), flush=True)
        has_failed |= any(not reason.endswith("[bench]'") for reason in result.left_out.values())
    print(f"kept in {options.out}")
    return int(has_failed)


def progress_line(side: str, result: Result) -> str:
    """What was measured last, or why it failed."""
    if side in result.left_out:
        return f"{result.case} · {side} failed: {result.left_out[side].splitlines()[-1]}"
    latest = result.measurements[-1]
    return f"{result.case} · {side} · round {latest.round}: {latest.cpu_s:.2f} CPU s"


def kept_measurements(
    case: Case, earlier: Result | None, surroundings: Surroundings, threads: int
) -> list[Measurement]:
    """The earlier measurements of the sides whose settings are the same, on this machine with these libraries."""
    places = (surroundings.machine, surroundings.releases, threads)
    if earlier is None or (earlier.machine, earlier.releases, earlier.threads) != places:
        return []
    same = {side.name for side in case.sides if earlier.settings.get(side.name) == dict(side.settings)}
    return [measurement for measurement in earlier.measurements if measurement.side in same]


if __name__ == "__main__":
    sys.exit(main())
