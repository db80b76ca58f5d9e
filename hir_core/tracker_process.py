"""The process that hands the curves of a run to trackers (TensorBoard, ...), through accelerate.

    python -m hir_core.tracker_process FOLDER PROJECT RUN TRACKER...

Reads a line of JSON per model from standard input, as `flows.trackers` writes them:
`{"model": ..., "settings": {...}, "points": [[step, {name: number or text}], ...]}`. Writes to FOLDER: what the
trackers write, and `RUN.TRACKER.json` for each, which says what it has, so that no model is handed to it twice. Prints
a line for each tracker that fails, which then gets nothing more; the others go on. Ends once it has handed over what it
was given, and `END_S` seconds after the end of its input at the latest, whatever a tracker waits for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

END_S = 300.0
PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb"}
"""What has to be installed for each tracker."""


def record_path(folder: Path, run: str, tracker: str) -> Path:
    """The file that says what of a run a tracker has."""
    return folder / f"{run}.{tracker}.json"


def recorded_models(path: Path) -> set[str]:
    """The models that a tracker has, as `stage/id`."""
    return set(_read_record(path)["models"])


def _read_record(path: Path) -> dict[str, Any]:
    """What a tracker has: the models, and the last step of their points; -1 where it has nothing."""
    try:
        record = json.loads(path.read_text())
        return {"models": [str(model) for model in record["models"]], "last_step": int(record["last_step"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"models": [], "last_step": -1}


class Recorder:
    """One tracker of one run, which is started with the first model that it does not have.

    Args:
        name: the tracker, as accelerate calls it.
        folder: what the tracker writes on this machine goes there.
        project: the name of the group of runs.
        run: the name of the run, which stays the same when it is continued.
    """

    def __init__(self, name: str, folder: Path, project: str, run: str) -> None:
        self.name, self._folder, self._project, self._run = name, folder, project, run
        self._path = record_path(folder, run, name)
        self._record = _read_record(self._path)
        self._tracker: Any = None

    def add(self, entry: dict[str, Any]) -> None:
        """Hands over the points of a model, unless the tracker has them."""
        if entry["model"] in self._record["models"]:
            return
        if self._tracker is None:
            self._start(entry["settings"])
        for step, values in entry["points"]:
            self._tracker.log(values, step=step)
            self._record["last_step"] = max(self._record["last_step"], step)
        self._record["models"].append(entry["model"])
        new = self._path.with_name(f".{self._path.name}.tmp")
        new.write_text(json.dumps(self._record))
        new.replace(self._path)

    def end(self) -> None:
        """Has the tracker write what it still holds."""
        if self._tracker is not None:
            self._tracker.finish()

    def _start(self, settings: dict[str, Any]) -> None:
        from accelerate.state import PartialState
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        PartialState(cpu=True)  # a tracker asks it which process it is in: this is the only one
        if self.name == "tensorboard":
            # Points from there on, left by a process that was killed before it recorded them, no longer count.
            kwargs = {"logging_dir": self._folder / "tensorboard", "purge_step": self._record["last_step"] + 1}
            self._tracker = TensorBoardTracker(self._run, **kwargs)
        else:
            kwargs = {"id": self._run, "name": self._run, "resume": "allow", "dir": str(self._folder)}
            self._tracker = WandBTracker(self._project, **kwargs)
        self._tracker.start()
        if self._record["models"]:
            return
        if self.name == "tensorboard":  # it makes a run of its own of what is stored as a configuration
            rows = "".join(f"| {name} | {_cell(value)} |\n" for name, value in settings.items())
            self._tracker.log({"settings": f"| setting | value |\n|---|---|\n{rows}"}, step=0)
        else:
            self._tracker.store_init_configuration(settings)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def main(folder: Path, project: str, run: str, names: list[str]) -> None:
    """Hands over every model that standard input names; prints the problems of trackers."""
    # Trackers print much; what they print goes to the log, and only our lines to who started this process.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.nice(5)  # the run goes first
    lock = (folder / ".lock").open("w")  # of one that still hands over what the run before gave it
    fcntl.flock(lock, fcntl.LOCK_EX)
    recorders = [Recorder(name, folder, project, run) for name in names]
    for line in _lines_until_end():
        entry = json.loads(line)
        for recorder in [*recorders]:
            with _reported(recorder, recorders, answers):
                recorder.add(entry)
    for recorder in [*recorders]:
        with _reported(recorder, recorders, answers):
            recorder.end()


def _lines_until_end() -> Iterator[str]:
    """The lines of standard input; `END_S` after its last one this process ends, even if a tracker hangs."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("")
        time.sleep(END_S)
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    yield from iter(lines.get, "")


@contextlib.contextmanager
def _reported(recorder: Recorder, recorders: list[Recorder], answers: IO[str]) -> Iterator[None]:
    """A context in which a tracker may fail: that is said in one line, and it gets nothing more."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a tracker raises, the others go on
        recorders.remove(recorder)
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, ImportError):
            problem += f": pip install {PACKAGES[recorder.name]}"
        with contextlib.suppress(OSError):  # who started this process is gone
            print(f"tracker {recorder.name} gets no more of this run: {problem}", file=answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
