"""A benchmark case, its sides, and their measurement: each side several times, in turn, every time in a new process.

Reads nothing; a case works in a temporary folder that is deleted afterwards. Leaves timing inside the process to
`side_process`, tables and JSON files to `report`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Any, Literal, NamedTuple

import psutil
from pydantic import BaseModel, ConfigDict

CHECKOUT = Path(__file__).resolve().parents[2]
SAMPLING_INTERVAL_S = 0.1
"""How often the memory of a side's processes is added up."""
Quantity = Literal["cpu_s", "wall_s", "peak_bytes"]
Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Side:
    """One of the programs that a case compares."""

    name: str
    function: Callable[..., Work]
    """Does the work, in a new process: `function(clock, inputs, **settings)`.

    It prepares what the work needs, works `with clock:`, and returns a `Work`. `inputs` is the folder that the case's
    `prepare` has filled. A function of a module, which must import without torch or a rival.
    """
    settings: Mapping[str, Setting]
    """Batch sizes, lengths and so on: the function's keyword arguments, and printed with the result."""
    needs: tuple[str, ...] = ()
    """Modules without which this side is left out."""


class Work(NamedTuple):
    """What a side has done."""

    amount: float
    """In the unit of the case; costs are compared per unit."""
    facts: Mapping[str, float | str] = {}
    """Further numbers, kept with the measurement."""


@dataclass(frozen=True)
class Case:
    """A comparison: two programs that do the same work, or one with several sizes of work."""

    name: str
    question: str
    """What is compared, in one sentence."""
    unit: str
    """What an amount of work counts, as in `tokens`."""
    sides: tuple[Side, ...]
    """Ours first. Ratios are of the others to it."""
    rounds: int = 5
    starts_inside: bool = False
    """Whether the measured part includes the start of a program and its imports."""
    prepare: Callable[[Path], None] | None = None
    """Writes what all sides read, once."""
    conclude: Callable[[Result], list[Figure]] | None = None
    """Figures that follow from the measurements; ratios to the first side where it is None."""
    timeout_s: float = 3600


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Surroundings(_Record):
    """What measurements belong to."""

    commit: str = "unknown"
    """The commit that is measured, with `+` where files differ from it."""
    machine: dict[str, str | int] = {}
    releases: dict[str, str] = {}
    """Of the libraries that are compared or do the work."""


UNKNOWN = Surroundings()


class Measurement(_Record):
    """One side, measured once."""

    side: str
    round: int
    order: int
    """Its place among the measurements of the case, from 0."""
    amount: float
    cpu_s: float
    """User and system seconds, those of child processes included."""
    wall_s: float
    peak_bytes: int
    """The largest sum of the resident memory of the process and its children; pages that they share count twice."""
    facts: dict[str, float | str]
    commit: str
    time: str


class Figure(_Record):
    """A number that follows from the measurements of a case, with its spread over the rounds."""

    name: str
    value: float
    low: float
    high: float
    unit: str


class Result(_Record):
    """Everything that is known of a case after its measurement."""

    case: str
    question: str
    unit: str
    starts_inside: bool
    threads: int
    machine: dict[str, str | int]
    releases: dict[str, str]
    settings: dict[str, dict[str, Setting]]
    """By side, in the order of the sides."""
    measurements: list[Measurement]
    left_out: dict[str, str]
    """Sides that were not measured, or not to the end, with the reason."""
    figures: list[Figure]

    def of(self, side: str) -> list[Measurement]:
        """The measurements of a side, by round."""
        return sorted((m for m in self.measurements if m.side == side), key=lambda m: m.round)

    def per_unit(self, side: str, quantity: Quantity) -> dict[int, float]:
        """A side's cost by round: seconds per unit of work, or bytes."""
        amounts = {m.round: 1.0 if quantity == "peak_bytes" else m.amount for m in self.of(side)}
        return {m.round: getattr(m, quantity) / amounts[m.round] for m in self.of(side)}

    def ratio(self, side: str, quantity: Quantity, to: str) -> Figure | None:
        """How many times one side's cost is that of another: median, least and most over the rounds of both.

        None where they have no round in common.
        """
        costs, others = self.per_unit(side, quantity), self.per_unit(to, quantity)
        ratios = [costs[number] / others[number] for number in sorted(costs.keys() & others.keys())]
        names = {"cpu_s": "CPU seconds", "wall_s": "wall seconds", "peak_bytes": "peak memory"}
        return spread(f"{names[quantity]}, {side} / {to}", ratios, "x") if ratios else None


def spread(name: str, values: Sequence[float], unit: str) -> Figure:
    """A figure of several values: their median, the least and the greatest."""
    return Figure(name=name, value=median(values), low=min(values), high=max(values), unit=unit)


def ratios(result: Result) -> list[Figure]:
    """The ratios of every other side to the first."""
    quantities: tuple[Quantity, ...] = ("cpu_s", "wall_s", "peak_bytes")
    ours, *rivals = result.settings
    found = [result.ratio(rival, quantity, ours) for rival in rivals for quantity in quantities]
    return [figure for figure in found if figure is not None]


class SideFailed(Exception):
    """The process of a side ended without a result."""


def measure(
    case: Case,
    rounds: int,
    *,
    threads: int = 1,
    surroundings: Surroundings = UNKNOWN,
    kept: Sequence[Measurement] = (),
    on_measurement: Callable[[str, Result], None] = lambda side, result: None,
) -> Result:
    """Measures every side of a case once per round, in the listed order and its reverse by turns.

    Args:
        rounds: rounds to be had in the end.
        threads: of every library, on every side.
        surroundings: recorded with the result, the commit with each measurement.
        kept: earlier measurements, which are not made again.
        on_measurement: called after each measurement with the name of the side, and the result so far.
    """
    left_out = {side.name: reason for side in case.sides if (reason := _missing(side))}
    done = {(m.side, m.round): m for m in kept if m.round < rounds}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        if case.prepare is not None:
            case.prepare(inputs)
        for number, side in in_turn(case.sides, rounds):
            if side.name in left_out or (side.name, number) in done:
                continue
            try:
                taken = _run(side, number, inputs, threads, case.timeout_s)
            except SideFailed as error:
                left_out[side.name] = str(error)
            else:
                order = max((m.order for m in done.values()), default=-1) + 1
                now, commit = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), surroundings.commit
                of = {"side": side.name, "round": number, "order": order, "commit": commit, "time": now}
                done[side.name, number] = Measurement.model_validate({**of, **taken})
            on_measurement(side.name, _result(case, threads, surroundings, done.values(), left_out))
    return _result(case, threads, surroundings, done.values(), left_out)


def _result(
    case: Case,
    threads: int,
    surroundings: Surroundings,
    measurements: Iterable[Measurement],
    left_out: Mapping[str, str],
) -> Result:
    facts = Result(
        case=case.name,
        question=case.question,
        unit=case.unit,
        starts_inside=case.starts_inside,
        threads=threads,
        machine=surroundings.machine,
        releases=surroundings.releases,
        settings={side.name: dict(side.settings) for side in case.sides},
        measurements=sorted(measurements, key=lambda m: m.order),
        left_out=dict(left_out),
        figures=[],
    )
    return facts.model_copy(update={"figures": (case.conclude or ratios)(facts)})


def in_turn(sides: Sequence[Side], rounds: int) -> Iterator[tuple[int, Side]]:
    """Every round with its sides: as listed, then in reverse, and so on, so that neither is always the first."""
    for number in range(rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            yield number, side


def _missing(side: Side) -> str:
    absent = [name for name in side.needs if importlib.util.find_spec(name) is None]
    return f"{' and '.join(absent)} not installed: pip install -e '.[bench]'" if absent else ""


def _run(side: Side, number: int, inputs: Path, threads: int, timeout_s: float) -> dict[str, Any]:
    """Calls a side in a new process and an empty folder; returns its work, its times and its peak memory."""
    name = f"{side.function.__module__}:{side.function.__qualname__}"
    request = {"function": name, "inputs": str(inputs), "settings": dict(side.settings), "round": number}
    numbers_of_threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")
    env = os.environ | dict.fromkeys(numbers_of_threads, str(threads))
    env |= {"PYTHONPATH": str(CHECKOUT), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory(dir=inputs.parent) as folder, tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.side_process", json.dumps(request)],
            cwd=folder,
            env=env,
            bufsize=0,  # a line that a buffer holds would not wake `select`
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        with process:
            try:
                return _follow(process, time.monotonic() + timeout_s)
            except SideFailed as error:
                log.seek(0)
                raise SideFailed(f"{name}: {error}\n{log.read()[-2000:]}".rstrip()) from None
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def _follow(process: subprocess.Popen[bytes], deadline: float) -> dict[str, Any]:
    """Reads what a side reports, and adds up the memory of its processes between the begin and the end of its work."""
    assert process.stdout is not None
    peak_bytes, is_working = 0, False
    while time.monotonic() < deadline:
        line = _line_within(process.stdout, SAMPLING_INTERVAL_S)
        if line is None:
            if is_working:
                peak_bytes = max(peak_bytes, _resident_bytes(process.pid))
            continue
        if not line:
            raise SideFailed(f"ended with exit code {process.wait()}")
        report = json.loads(line)
        if "amount" in report:
            return {**report, "peak_bytes": max(peak_bytes, report["peak_bytes"])}
        is_working = report["is_working"]
    raise SideFailed("took too long")


def _line_within(stream: IO[bytes], seconds: float) -> bytes | None:
    """The next line; empty at the end of the stream, None where none comes in time."""
    return stream.readline() if select.select([stream], [], [], seconds)[0] else None


def _resident_bytes(pid: int) -> int:
    total = 0
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it has just ended
            continue
    return total
