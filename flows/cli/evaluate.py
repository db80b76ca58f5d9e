"""The command that measures a model on public benchmarks, `hir evaluate`, with EleutherAI's lm-evaluation-harness.

Reads the store, and keeps the results in the run's folder `benchmarks`; no version is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import RUNS, AsJson, RunsDir, answer, messages
from flows.cli.use import Model
from flows.terminal.formatting import columns, duration, number, printable, quantity
from hir_core.errors import ConfigError

if TYPE_CHECKING:
    from hir_core.inspect.benchmarks import Benchmark

Tasks = Annotated[
    str | None,
    typer.Option(help="Names of lm-eval, separated by commas: ifeval,gsm8k. If left out: what was measured before."),
]
NumFewshot = Annotated[
    int | None, typer.Option(min=0, help="Examples before each question; as each task says if left out.")
]
Limit = Annotated[
    float | None, typer.Option(help="Only so many questions of a task, or a share of them below 1: for a trial.")
]
BatchSize = Annotated[str, typer.Option(help="Requests at once: a number, or auto.")]
IncludePath = Annotated[
    Path | None, typer.Option(help="A folder with task files of your own; Python that they name has your rights.")
]
Plain = Annotated[
    bool, typer.Option("--plain", help="Ask without the instruction of the run, in the model's own template.")
]
LogSamples = Annotated[bool, typer.Option("--log-samples", help="Keep prompts and answers, too, as JSON lines.")]
Again = Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")]


def evaluate(
    model: Model = None,
    tasks: Tasks = None,
    num_fewshot: NumFewshot = None,
    limit: Limit = None,
    batch_size: BatchSize = "8",
    include_path: IncludePath = None,
    plain: Plain = False,
    log_samples: LogSamples = False,
    again: Again = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:
    """Measure a model on benchmarks, with lm-evaluation-harness."""
    from hir_core.inspect.benchmarks import benchmarks_of
    from hir_core.inspect.evaluate import Asked
    from hir_core.inspect.evaluate import evaluate as measure
    from hir_core.store.references import find_model

    with messages():
        store, ref = find_model(model, runs_dir)
        name = f"{store.run_dir.resolve().name}/{ref}"
        if tasks is None:
            if not (kept := benchmarks_of(store, ref)):
                raise ConfigError(f"{name} was not measured yet: name tasks, as in --tasks ifeval,gsm8k")
            answer([result.model_dump(mode="json") for result in kept], as_json, lambda _: results_table(kept))
            return
        asked = Asked(
            tasks=tuple(task.strip() for task in tasks.split(",") if task.strip()),
            num_fewshot=num_fewshot,
            limit=_limit(limit),
            batch_size=_batch_size(batch_size),
            include_path=include_path,
            is_plain=plain,
            with_answers=log_samples,
        )
        if not asked.tasks:
            raise ConfigError("--tasks: expected names, separated by commas, as in ifeval,gsm8k")
        found = measure(store, ref, asked, lambda step: print(printable(step), file=sys.stderr), again=again)
        lines = [*results_table(found.results), *_summary(name, found.results, found.measured)]
        answer([result.model_dump(mode="json") for result in found.results], as_json, lambda _: lines)


def _limit(limit: float | None) -> float | None:
    if limit is not None and (limit <= 0 or (limit > 1 and limit != int(limit))):
        raise ConfigError(f"--limit: expected a number of questions, or a share of them below 1, found {limit:g}")
    return limit


def _batch_size(text: str) -> int | str:
    if text == "auto":
        return text
    if not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"--batch-size: expected a number from 1, or auto, found `{text}`")
    return int(text)


def results_table(results: Sequence[Benchmark]) -> list[str]:
    """The figures of results as a table."""
    from hir_core.inspect.benchmarks import metric_name

    rows = []
    for result in results:
        for figure in result.figures:
            task = figure.task + (" (plain)" if result.settings.is_plain else "")
            metric = metric_name(figure.metric, figure.filter)
            numbers = [
                f"{figure.value:.4f}",
                number(figure.stderr, ".4f"),
                number(figure.n),
                number(figure.num_fewshot),
            ]
            rows.append([printable(task), printable(metric), *numbers])
    return columns(["task", "metric", "value", "stderr", "n", "few-shot"], rows, right=range(2, 6))


def _summary(name: str, results: Sequence[Benchmark], measured: int) -> Iterator[str]:
    """How the model was asked, and what of it was done now."""
    first = results[0]
    instruction = f'under "{printable(first.instruction)}"' if first.instruction else "without an instruction"
    yield f"{name} · {instruction} · {first.device}, {first.dtype} · lm-eval {first.settings.harness}"
    if kept := len(results) - measured:
        seconds = sum(result.seconds for result in results)
        yield f"{quantity(kept, 'task')} measured before, in {duration(seconds)}: --again measures anew"


COMMANDS = (evaluate,)
