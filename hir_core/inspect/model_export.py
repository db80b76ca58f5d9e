"""The model of a version as a folder that plain `transformers` loads, for `hir export` and `hir serve`.

A whole model is copied. An adapter is merged into the model that it belongs to, which is done by a launch of one rank.
The chat template may get the instruction of the run, so that any server asks the model as its run did.
Reads a version, its digests checked. Writes one new folder, which appears complete or not at all, and never replaces an
existing one. Tables are exported by `export`.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from hir_core.config import HubModel, LaunchConfig, LoraConfig
from hir_core.errors import ConfigError
from hir_core.inspect.export import check_place
from hir_core.inspect.model_usage import model_usage
from hir_core.launch.job_spec import Adapter, JobSpec, SaveStep
from hir_core.launch.launcher import launch
from hir_core.store.adapters import base_of
from hir_core.store.store import Store
from hir_core.store.training_log import STEPS, TIMES
from hir_core.store.version import VersionRef, is_optimizer_state
from hir_core.time_limit import Work, process_rows

CHAT_TEMPLATE = "chat_template.jinja"
"""File of a model's folder that holds the chat template."""
TEMPLATE_LIMIT_S = 600.0


class ExportedModel(NamedTuple):
    """What became of a model version."""

    bytes: int
    """Size of the folder's files."""
    merged_into: str | None
    """The version that an adapter was merged into, as `models/id`; None of a model that was stored whole."""
    instruction: str | None
    """What its chat template puts before a question; None where the template is the model's own."""


def export_model(store: Store, ref: VersionRef, out: Path, *, with_instruction: bool = False) -> ExportedModel:
    """Writes a model version whole, without the state of its optimizer and the log of its training.

    Args:
        out: the folder to make.
        with_instruction: whether its chat template asks as the run did: with the instruction before the question, the
            values of `model.chat_template_kwargs`, or the text of a format string.

    Raises:
        VersionNotFound: there is no such version.
        VersionCorrupt: its files are not what its manifest says.
        StoreError: its weights were deleted.
        ConfigError: `out` exists, lies inside the run, or cannot be written; or no chat template asks as the run did.
        JobFailed: the launch that merges an adapter failed.
    """
    base, instruction = base_of(store, ref), None
    try:
        check_place(store, out)
        written = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
        try:
            written.mkdir()
            if base == ref:
                _copy(store, ref, written)
            else:
                _merge(store, ref, base, written)
            if with_instruction:
                instruction = _write_template(store, ref, written)
            size = sum(path.stat().st_size for path in written.iterdir())
            written.rename(out)
        finally:
            shutil.rmtree(written, ignore_errors=True)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error}; give another place") from None
    return ExportedModel(size, None if base == ref else str(base), instruction)


def _copy(store: Store, ref: VersionRef, out: Path) -> None:
    folder = store.folder(ref)
    for part in store.manifest(ref).parts:
        if not is_optimizer_state(part.name) and part.name not in (STEPS, TIMES):
            shutil.copyfile(folder / part.name, out / part.name)


def _merge(store: Store, ref: VersionRef, base: VersionRef, out: Path) -> None:
    """Has a rank load the adapter and its model, in the number format in which they were trained, and save them."""
    settings = store.manifest(ref).config
    job = JobSpec(
        model=HubModel(source=str(store.folder(base).resolve())),
        adapter=Adapter(lora=LoraConfig.model_validate(settings["lora"]), folder=store.folder(ref).resolve()),
        seed=0,
        deepspeed={"zero_optimization": {"stage": 0}, "bf16": {"enabled": settings["bf16"]}},
        steps=(SaveStep(output=out.resolve()),),
    )
    with tempfile.TemporaryDirectory(prefix="hir-export-") as folder:
        job.write(Path(folder))
        launch(Path(folder), LaunchConfig(processes=1))


def _write_template(store: Store, ref: VersionRef, out: Path) -> str:
    """Gives the model in a folder the chat template that asks as its run did; returns the instruction in it."""
    usage = model_usage(store, ref)
    settings = {
        "model": usage.model.model_copy(update={"source": str(out.resolve())}).model_dump(mode="json"),
        "instruction": usage.instruction,
    }
    [result] = process_rows(Work("hir_core.worker.served_template:make_template", settings), [None], TEMPLATE_LIMIT_S)
    if result.problem:
        raise ConfigError(f"the chat template could not be made: the process that does it {result.problem}")
    (out / CHAT_TEMPLATE).write_text(result.value, encoding="utf-8")
    return usage.instruction
