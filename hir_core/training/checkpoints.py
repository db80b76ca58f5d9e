"""Checkpoints of a training, from which the next launch continues it: weights, AdamW's moments, and results so far.

    .checkpoint-<optimizer step>/    in the draft of the model: optimizer-*.safetensors as in `optimizer_state`,
                                     results.json: the results so far, and digests.json: of these files
    .unfinished-checkpoint/          one that is being written, or of a launch that was killed

One is saved every so many seconds by the clock of rank 0, and where somebody asks the launch to end. It replaces the
one before once it is whole, so a kill at any moment leaves one of the two. Any ZeRO stage and number of ranks reads
what any other wrote. The order of the triples and the learning rates are functions of the step, and nothing else is
drawn, so nothing of them is saved. The commit of the model deletes what lies here: see `store.draft`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import distributed as dist
from torch import nn

from hir_core.errors import StoreError
from hir_core.launch.end_requests import EndRequest
from hir_core.modeling import optimizer_state, zero
from hir_core.progress import Progress
from hir_core.store.files import read_json, sync, write_json, writing
from hir_core.store.training_log import TrainingStep
from hir_core.store.version import digests

logger = logging.getLogger(__name__)

RESULTS, DIGESTS = "results.json", "digests.json"
UNFINISHED = ".unfinished-checkpoint"
_NAME = re.compile(r"\.checkpoint-([0-9]{8})")
_GO_ON, _SAVE, _SAVE_AND_END = range(3)
"""What the ranks do after an optimizer step: the most that any of them wants."""


@dataclass
class Record:
    """What a training has made so far: what its result is computed from."""

    history: list[TrainingStep] = field(default_factory=list)
    """Every optimizer step."""
    tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    """Of the whole training so far, its checkpoints included."""

    def add(self, step: TrainingStep, seconds: float) -> None:
        """Adds an optimizer step, and sets the seconds so far."""
        self.history.append(step)
        self.tokens += step.tokens
        self.target_tokens += step.target_tokens
        self.seconds = seconds


@dataclass(frozen=True)
class _Results:
    """The content of `results.json`."""

    steps: int
    """Optimizer steps of the whole training."""
    saved: float
    """Seconds since the epoch."""
    record: Record


class Checkpoints:
    """The checkpoints of one training; all ranks call the methods together.

    Args:
        engine: a DeepSpeed engine that has not stepped yet.
        model: the model inside the engine's module.
        folder: in which they lie; None: none is read or saved.
        every_s: seconds between two of them; None: one is saved only where somebody asks the launch to end.
        request: whether this rank was asked to end.
        on_progress: called with the progress of the training, which says what became of its checkpoints.
    """

    def __init__(
        self,
        engine: Any,
        model: nn.Module,
        folder: Path | None,
        every_s: float | None,
        request: EndRequest,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.engine, self.model, self.folder, self.every_s = engine, model, folder, every_s
        self.request, self._on_progress = request, on_progress
        self._device: torch.device = engine.device
        self._steps, self._note, self._progress = 0, "", Progress("train")
        self._saved_at = time.monotonic()

    def report(self, progress: Progress) -> None:
        """Reports the progress of the training."""
        self._progress = dataclasses.replace(progress, note=self._note)
        self._on_progress(self._progress)

    def restore(self, steps: int) -> Record:
        """Gives the engine what the newest checkpoint holds, and returns what the training had made by then.

        Nothing is changed where there is no checkpoint, or none that is whole.

        Args:
            steps: optimizer steps of the whole training.
        """
        self._steps = steps
        if self.folder is None:
            return Record()
        step = self._most_of_ranks(self._newest(self.folder) if dist.get_rank() == 0 else 0)
        if not step:
            return Record()
        folder = self.folder / _name(step)
        results = _read(folder)
        optimizer_state.restore(self.engine, self.model, folder)
        optimizer_state.set_weights(self.model, folder)
        saved = time.strftime("%Y-%m-%d %H:%M", time.localtime(results.saved))
        self._say(f"continues at optimizer step {step} of {steps} (checkpoint of {saved})")
        return results.record

    def after_step(self, record: Record) -> None:
        """Saves a checkpoint where it is time; where a rank was asked to end, saves one and ends this process."""
        is_time = self.every_s is not None and time.monotonic() - self._saved_at >= self.every_s
        wanted = _SAVE_AND_END if self.request.number else _SAVE if is_time and dist.get_rank() == 0 else _GO_ON
        agreed = self._most_of_ranks(wanted)
        if agreed == _GO_ON:
            return
        has_saved = self.folder is not None and self._save(self.folder, record)
        self._saved_at = time.monotonic()
        if agreed == _SAVE_AND_END:
            kept = "its checkpoint is kept" if has_saved else "no checkpoint of it could be saved"
            self._say(
                f"was asked to end, and stopped after optimizer step {len(record.history)} of {self._steps}: {kept}"
            )
            self.report(self._progress)
            dist.barrier()  # the end of one rank ends the others
            self.request.obey()

    # --- reading -----------------------------------------------------------------------------------------------------

    def _newest(self, folder: Path) -> int:
        """The optimizer step of the newest whole checkpoint; 0 where there is none."""
        damage = ""
        for step in sorted(_steps_of(folder), reverse=True):
            try:
                _check(folder / _name(step), step, self._steps)
            except (StoreError, OSError, ValueError) as error:
                damage = f"the checkpoint of optimizer step {step} is damaged: {' '.join(str(error).split())}"
                logger.warning("%s", damage)
            else:
                return step
        if damage:
            self._say(f"is trained from the beginning: {damage}")
        return 0

    # --- saving ------------------------------------------------------------------------------------------------------

    def _save(self, folder: Path, record: Record) -> bool:
        """Saves a checkpoint; returns whether that went well. A full disk does not end the training."""
        new, problems, is_first = folder / UNFINISHED, list[str](), dist.get_rank() == 0
        if is_first:
            with _noted(problems), writing(new):
                shutil.rmtree(new, ignore_errors=True)
                new.mkdir()
        dist.barrier()
        with _noted(problems):
            optimizer_state.save(self.engine, self.model, new, moments=True, masters_of_fp32=True)
        if not self._most_of_ranks(len(problems)) and is_first:
            with _noted(problems), writing(new):
                _publish(new, folder / _name(len(record.history)), _Results(self._steps, time.time(), record))
        has_failed = self._most_of_ranks(len(problems)) > 0
        if has_failed and is_first:
            shutil.rmtree(new, ignore_errors=True)  # what a full disk has let through takes up the room that is needed
            why = problems[0] if problems else "see the logs of the other ranks"
            self._say(f"could not save a checkpoint of optimizer step {len(record.history)}: {why}")
        return not has_failed

    def _say(self, note: str) -> None:
        logger.warning("the model %s", note)
        self._note = note

    def _most_of_ranks(self, value: int) -> int:
        """The largest of the ranks' values."""
        return value if dist.get_world_size() == 1 else -zero.min_over_ranks(-value, self._device)


@contextmanager
def _noted(problems: list[str]) -> Iterator[None]:
    """A context whose StoreError is noted instead: the other ranks wait for this one in what follows."""
    try:
        yield
    except StoreError as error:
        logger.warning("%s", error)
        problems.append(str(error))


def _publish(new: Path, target: Path, results: _Results) -> None:
    """Makes a folder of files the newest checkpoint, and deletes those before."""
    write_json(new / RESULTS, dataclasses.asdict(results))
    found = _digests(new)
    write_json(new / DIGESTS, found)
    for path in (*(new / name for name in found), new):
        sync(path)
    shutil.rmtree(target, ignore_errors=True)  # a damaged one of the same step
    new.rename(target)
    sync(target.parent)
    for step in _steps_of(target.parent):
        if _name(step) != target.name:
            shutil.rmtree(target.parent / _name(step), ignore_errors=True)


def _steps_of(folder: Path) -> list[int]:
    """The optimizer steps of the checkpoints in a folder."""
    return [int(found[1]) for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]


def _name(step: int) -> str:
    return f".checkpoint-{step:08d}"


def _read(folder: Path) -> _Results:
    return TypeAdapter(_Results).validate_python(read_json(folder / RESULTS))


def _digests(folder: Path) -> dict[str, str]:
    """The digest of each file but `digests.json`, by name."""
    files = sorted(path for path in folder.iterdir() if path.name != DIGESTS)
    return {path.name: digest for path, digest in zip(files, digests(files), strict=True)}


def _check(folder: Path, step: int, steps: int) -> None:
    """Checks that a checkpoint is whole, and one of this training.

    Raises:
        StoreError, OSError, ValueError: it is not.
    """
    expected, found = read_json(folder / DIGESTS), _digests(folder)
    if found != expected:
        changed = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        raise StoreError(f"{', '.join(changed)} differs from {DIGESTS}")
    results = _read(folder)
    if (results.steps, len(results.record.history)) != (steps, step):
        raise StoreError(f"{RESULTS} is that of optimizer step {len(results.record.history)} of {results.steps}")
