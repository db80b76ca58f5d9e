"""What `hir check` has found, as text: prompts as the model reads them, lengths, verdicts, triples, problems."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from flows.terminal.formatting import clipped, columns, number, printable, quantity
from hir_core.inspect.plan import LaunchPlan
from hir_core.stages.check import Check, Lengths, Tried

WIDTH = 90
MARKS = ("\u27e8", "\u27e9")
"""Around control tokens: angle brackets that hardly any prompt holds."""
FIRST_TRIED = 2


def check_text(name: str, check: Check, plan: LaunchPlan | None, command: Sequence[str]) -> Iterator[str]:
    """The lines of a check.

    Args:
        name: of the run.
        plan: what the launch needs; None where it cannot be told.
        command: the `hir run` that is checked.
    """
    prompts = f"{number(check.train)} train and {number(check.test)} test prompts"
    yield f"{printable(name)} · {prompts} · nothing was started or written"
    yield from columns(
        ("task", "prompts"), [(printable(task), number(count)) for task, count in check.tasks.items()], [1]
    )
    yield from (f"left out: {quantity(count, 'row')}: {printable(why)}" for why, count in check.rejected.items())
    for pieces in check.rendered:
        marked = "".join(f"{MARKS[0]}{text}{MARKS[1]}" if is_control else text for text, is_control in pieces)
        yield ""
        yield f"a prompt as the model reads it, control tokens in {MARKS[0]}{MARKS[1]}"
        yield from (f"  {printable(line)}" for line in marked.split("\n"))
    yield ""
    yield from _lengths(check)
    yield from _verdicts(check.tried)
    yield from _triples(check)
    if plan is not None:
        yield from _memory(plan)
    yield ""
    yield from (f"error: {printable(error)}" for error in check.errors)
    yield from (f"warning: {printable(warning)}" for warning in check.warnings)
    if not check.errors:
        yield f"next    {shlex.join(command)}"


def _lengths(check: Check) -> Iterator[str]:
    if check.prompt_tokens is None:  # the prompts could not be rendered, and then nothing is known of the model either
        limit = "is unknown"
    else:
        limit = "has no limit" if check.context is None else f"is {number(check.context)}"
    yield f"tokens     prompt {_span(check.prompt_tokens)} · longest reference {_span(check.reference_tokens)}"
    new_tokens = f"output at most {number(check.new_tokens)} (sampling.max_new_tokens)"
    yield f"           {new_tokens} · the model's context {limit}"


def _span(lengths: Lengths | None) -> str:
    return "–" if lengths is None else f"{number(lengths.median)}, at most {number(lengths.most)}"


def _verdicts(tried: Sequence[Tried]) -> Iterator[str]:
    """What the reward says of references and of a wrong text."""
    for is_reference, title in ((True, "references"), (False, "times a wrong text")):
        outputs = [output for output in tried if output.is_reference is is_reference]
        if outputs:
            scores = [output.score for output in outputs if output.score is not None]
            mean = f"mean score {sum(scores) / len(scores):.2f}" if scores else "no score"
            without = f", {len(outputs) - len(scores)} without one" if len(scores) < len(outputs) else ""
            yield f"reward     {len(outputs)} {title}: {mean}{without}"
            for output in outputs[:FIRST_TRIED]:
                score = "null" if output.score is None else f"{output.score:g}"
                reason = f"  ({printable(output.reason)})" if output.reason else ""
                yield clipped(f"             {score:>4}  {printable(output.output)}{reason}", WIDTH)


def _triples(check: Check) -> Iterator[str]:
    for triple in check.triples:
        is_taught = triple["weight"] > 0
        instruction = triple["instruction"] if is_taught else triple["excluded_from"]
        under = repr(instruction) if instruction else "no instruction"
        what = f"{'taught' if is_taught else 'ruled out'} under {under}"
        yield clipped(f"relabel    {printable(triple['output'])}: {printable(what)}", WIDTH)


def _memory(plan: LaunchPlan) -> Iterator[str]:
    file = next(file for file in plan.files if file.is_current)
    usable = f"{plan.machines.usable_bytes / 1e9:,.1f} GB usable of each device"
    state = f"does not fit: {file.problem}" if file.problem else "fits"
    yield f"memory     {printable(file.file)} takes {file.training.total / 1e9:,.1f} of {usable}: {printable(state)}"
