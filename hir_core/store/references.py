"""Runs and versions by what a user types: `quickstart`, `samples@3`, `quickstart/samples@latest`, or a folder.

The run may be left out where there is only one, or where the current folder is one. Reads names of folders only; which
version of a run `samples@3` is, is left to the store.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path

from hir_core.errors import VersionNotFound, did_you_mean
from hir_core.store.manifest import STAGES
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

_VERSION = re.compile(rf"(?:(?P<run>.+)/)?(?P<version>(?:{'|'.join(STAGES)})[@/][^/]*)/?")


def find_runs(runs_dir: Path) -> list[Path]:
    """The folders below `runs_dir` that hold a run, sorted by name."""
    if not runs_dir.is_dir():
        return []
    return sorted(path for path in runs_dir.iterdir() if path.is_dir() and _is_run(path))


def find_run(name: str, runs_dir: Path) -> Path:
    """The folder of a run, given its name or the folder itself.

    Raises:
        VersionNotFound: there is no such run; the message lists the runs that exist.
    """
    for path in (runs_dir / name, Path(name)):
        if _is_folder(path) and _is_run(path):
            return path
    if _is_folder(Path(name)):
        raise VersionNotFound(f"`{name}` is a folder without versions, so no run: {_existing_runs(runs_dir)}")
    raise VersionNotFound(f"no run `{name}` in {runs_dir}; {_existing_runs(runs_dir)}")


def find_version(text: str, runs_dir: Path) -> tuple[Store, VersionRef]:
    """A version and the store of its run, from `[RUN/]stage@iteration`, `[RUN/]stage@latest` or `[RUN/]stage/id`.

    Raises:
        VersionNotFound: there is no such run or version, or several; the message lists those that exist.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise VersionNotFound(
            f"`{text}` names no version: expected stage@iteration, stage@latest or stage/id, with the run in front "
            f"where there are several, as in quickstart/samples@3; stages are {', '.join(STAGES)}"
            f"{did_you_mean(re.split('[@/]', text)[-2], STAGES) if re.search('[@/]', text) else ''}"
        )
    store = Store(_only_run(text, runs_dir) if match["run"] is None else find_run(match["run"], runs_dir))
    return store, store.resolve(match["version"])


def find_model(text: str | None, runs_dir: Path) -> tuple[Store, VersionRef]:
    """A model and the store of its run, as `find_version`; of a run's name, or of nothing, the run's newest model.

    Raises:
        VersionNotFound: there is no such run or model, or several; the message lists those that exist.
    """
    if text is None or _VERSION.fullmatch(text) is None:
        store = select_run(text, runs_dir)
        return store, store.resolve("models@latest")
    store, ref = find_version(text, runs_dir)
    if ref.stage != "models":
        raise VersionNotFound(f"{ref} is no model: expected models@iteration, models@latest or models/id")
    return store, ref


def find_key(text: str, runs_dir: Path) -> tuple[list[Store], str]:
    """The runs that may hold a row, and its key, from `[RUN/]KEY`; whether there is such a row is not checked.

    Raises:
        VersionNotFound: there is no such run, or none at all.
    """
    run, slash, key = text.rpartition("/")
    runs = [find_run(run, runs_dir)] if slash else find_runs(runs_dir) or [_only_run(text, runs_dir)]
    return [Store(folder) for folder in runs], key


def select_run(name: str | None, runs_dir: Path) -> Store:
    """The store of the run with this name or folder; without a name, of the only run.

    Raises:
        VersionNotFound: there is no such run, or several; the message lists those that exist.
    """
    return Store(_only_run("", runs_dir) if name is None else find_run(name, runs_dir))


def select_runs(name: str | None, runs_dir: Path) -> list[Path]:
    """The folder of the run with this name or folder; without a name, the folders of all runs.

    Raises:
        VersionNotFound: there is no such run, or none at all.
    """
    runs = find_runs(runs_dir) if name is None else [find_run(name, runs_dir)]
    return runs or [_only_run("", runs_dir)]


def _only_run(text: str, runs_dir: Path) -> Path:
    """The run where none is named: the only one there is, or the current folder.

    Args:
        text: what the user typed, for the message.
        runs_dir: the folder of the runs.
    """
    runs = find_runs(runs_dir)
    if len(runs) == 1:
        return runs[0]
    if not runs and _is_run(Path.cwd()):
        return Path.cwd()
    if not runs:
        raise VersionNotFound(_existing_runs(runs_dir))
    if not text:
        raise VersionNotFound(f"several runs: name one; {_existing_runs(runs_dir)}")
    hint = f"put one in front, as in {runs[0].name}/{text}"
    raise VersionNotFound(f"`{text}` could be of several runs; {_existing_runs(runs_dir)}; {hint}")


def _existing_runs(runs_dir: Path) -> str:
    names = [path.name for path in find_runs(runs_dir)]
    if not names:
        return f"{runs_dir} holds no run: `hir run quickstart` makes one"
    return f"{runs_dir} holds {', '.join(names)}"


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def _is_run(path: Path) -> bool:
    return any((path / stage).is_dir() for stage in STAGES)
