"""The plan of a launch as text: a table with a row per DeepSpeed file, what does not fit, and what to run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from flows.terminal.formatting import columns, duration, number, printable, quantity, size
from hir_core.inspect.plan import FilePlan, LaunchPlan

GROUPS = ("", "a device, training", "", "", "", "", "sampling", "", "machine", "")
HEADER = ("file", "weights", "grads", "AdamW", "batch", "total", "weights", "rows", "memory", "fits")
"""Of each column two lines of header."""


def plan_text(plan: LaunchPlan, command: Sequence[str], tokens_per_second: float | None = None) -> Iterator[str]:
    """The lines of a plan; its table fits into 80 characters where names are short.

    Args:
        command: the `hir run` that is planned.
        tokens_per_second: that all devices together sample, where somebody has measured it.
    """
    yield _headline(plan)
    yield (
        f"micro-batches of {quantity(plan.rows, 'sequence')}, each of {number(plan.prompt_tokens)} prompt and "
        f"{number(plan.new_tokens)} new tokens; sizes in GB"
    )
    yield ""
    yield from _table(plan)
    yield ""
    for file in plan.files:
        if file.problem:
            yield f"{printable(_name(file))}: {file.problem}"
    chosen = next(file for file in plan.files if (file.file == plan.advised if plan.advised else file.is_current))
    state = f", {size(chosen.state_disk)} beside the first and the newest" if chosen.state_disk else ""
    saved = "adapter" if plan.adapter_parameters else "model"
    yield f"disk    {size(chosen.model_disk)} for the {saved} of each iteration{state}"
    yield f"        up to {size(2 * chosen.checkpoint_disk)} more while one is trained, for two checkpoints"
    if tokens_per_second and plan.sampled_tokens:
        seconds = plan.sampled_tokens / tokens_per_second
        yield f"time    {duration(seconds)} for at most {number(plan.sampled_tokens)} sampled tokens of each iteration"
    yield from _next(plan, chosen, command)


def _headline(plan: LaunchPlan) -> str:
    machines = plan.machines
    kind = ("GPU", "s") if machines.has_gpus else ("process", "es")
    devices = quantity(machines.devices, *kind) + ("" if machines.has_gpus else " on CPU")
    places = f"{machines.machines} machines, each with " if machines.machines > 1 else ""
    memory = f"{machines.device_bytes / 1e9:,.1f} GB ({machines.usable_bytes / 1e9:,.1f} usable)"
    unit, word = (1e9, "billion") if plan.parameters >= 1e9 else (1e6, "million")
    trained = (
        f", {plan.adapter_parameters / 1e6:,.2f} million of a LoRA adapter trained" if plan.adapter_parameters else ""
    )
    return f"{plan.parameters / unit:,.2f} {word} parameters{trained} · {places}{devices} of {memory}"


def _table(plan: LaunchPlan) -> Iterator[str]:
    header, *rows = columns(HEADER, [_cells(file) for file in plan.files], right=range(1, len(HEADER) - 1))
    groups, start = "", 0
    for name, column in zip(GROUPS, HEADER, strict=True):
        start = header.index(column, start)
        groups = f"{groups:<{start}}{name}" if name else groups
        start += len(column)
    yield groups
    yield header
    yield from rows


def _cells(file: FilePlan) -> list[str]:
    training, sampling = file.training, file.sampling
    sizes = [training.weights, training.gradients, training.optimizer, training.activations + training.logits]
    return [
        printable(_name(file).removesuffix(".json")) + ("*" if file.is_current else ""),
        *(f"{part / 1e9:,.1f}" for part in (*sizes, training.total, sampling.weights)),
        number(sampling.rows) + ("s" if sampling.is_streamed else ""),
        f"{file.host / 1e9:,.0f}" if file.host else "–",
        "no" if file.problem else "yes",
    ]


def _name(file: FilePlan) -> str:
    return file.file.rpartition("/")[2]


def _next(plan: LaunchPlan, chosen: FilePlan, command: Sequence[str]) -> Iterator[str]:
    """The command to run, or what would make the config fit."""
    if any(file.sampling.is_streamed for file in plan.files):
        yield "s: the weights are streamed layer by layer for every token, which is slow"
    if not plan.advised:
        yield f"no file fits: set {', '.join(plan.smaller)}, or take more devices"
        return
    added = [] if chosen.is_current else [f"deepspeed={chosen.file}"]
    if plan.machines.machines > 1 and not plan.has_hostfile:
        added.append("launch.hostfile=hosts.txt")
        yield f"hosts   write `NAME slots={plan.machines.devices}` for each machine into hosts.txt"
    yield f"next    {shlex.join([*command, *added])}"
