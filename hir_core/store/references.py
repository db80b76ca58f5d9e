"""Runs and versions by the names that commands take: `quickstart`, `samples@3`, `quickstart/samples@latest`, a folder.

Reads folder names only; `Store.resolve` finds the versions within a run. Raises VersionNotFound.
"""

from __future__ import annotations

import re
from pathlib import Path

from hir_core.errors import VersionNotFound, did_you_mean
from hir_core.store.manifest import STAGES
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

_VERSION = re.compile(rf"(?:(?P<run>.+)/)?(?P<version>(?:{'|'.join(STAGES)})[@/][^/]*)/?")


def find_runs(runs_dir: Path) -> list[Path]:
    """The folders in `runs_dir` that contain a run, sorted by name."""
    if not runs_dir.is_dir():
        return []
    return sorted(path for path in runs_dir.iterdir() if path.is_dir() and _is_run(path))


def find_run(name: str, runs_dir: Path) -> Path:
    """The folder of a run, by the run's name or by the folder itself.

    Raises:
        VersionNotFound: there is no such run; lists the existing ones.
    """
    for path in (runs_dir / name, Path(name)):
        if path.is_dir() and _is_run(path):
            return path
    if Path(name).is_dir():
        raise VersionNotFound(f"`{name}` is a folder without versions, so no run: {_there_are(runs_dir)}")
    raise VersionNotFound(f"no run `{name}` in {runs_dir}; {_there_are(runs_dir)}")


def find_version(text: str, runs_dir: Path) -> tuple[Store, VersionRef]:
    """A version by its reference, and the store of its run. The run may be left out if there is only one.

    Args:
        text: `[run/]stage@iteration`, `[run/]stage@latest` or `[run/]stage/id`.
        runs_dir: the folder of all runs.

    Raises:
        VersionNotFound: there is no such run or version, or several; lists the existing ones.
    """
    match = _VERSION.fullmatch(text)
    if match is None:
        raise VersionNotFound(
            f"`{text}` names no version: expected stage@iteration, stage@latest or stage/id, with the run in front "
            f"where there are several, as in quickstart/samples@3; stages are {', '.join(STAGES)}"
            f"{did_you_mean(re.split('[@/]', text)[-2], STAGES) if re.search('[@/]', text) else ''}"
        )
    store = Store(_current_run(text, runs_dir) if match["run"] is None else find_run(match["run"], runs_dir))
    return store, store.resolve(match["version"])


def find_key(text: str, runs_dir: Path) -> tuple[Store, str]:
    """The key of a row, given as `[run/]key`, and the store of its run. The run may be left out if there is only one.

    Raises:
        VersionNotFound: there is no such run, or several; lists the existing ones.
    """
    run, slash, key = text.rpartition("/")
    return Store(find_run(run, runs_dir) if slash else _current_run(text, runs_dir)), key


def one_run(name: str | None, runs_dir: Path) -> Store:
    """The store of a run by its name or folder; without a name, of the only run.

    Raises:
        VersionNotFound: there is no such run, or several; lists the existing ones.
    """
    return Store(_current_run("", runs_dir) if name is None else find_run(name, runs_dir))


def some_runs(name: str | None, runs_dir: Path) -> list[Path]:
    """The folder of the run of this name; without a name, the folders of all runs.

    Raises:
        VersionNotFound: there is no such run, or none at all.
    """
    if name is not None:
        return [find_run(name, runs_dir)]
    return find_runs(runs_dir) or [_current_run("", runs_dir)]


def _current_run(text: str, runs_dir: Path) -> Path:
    """The run that needs no name: the only one in `runs_dir`, or the working folder if that is a run."""
    runs = find_runs(runs_dir)
    if len(runs) == 1:
        return runs[0]
    if not runs and _is_run(Path.cwd()):
        return Path.cwd()
    if not runs:
        raise VersionNotFound(_there_are(runs_dir))
    hint = f"; put one in front, as in {runs[0].name}/{text}" if text else ""
    problem = f"`{text}` does not say of which run" if text else "which run is meant"
    raise VersionNotFound(f"{problem}; {_there_are(runs_dir)}{hint}")


def _there_are(runs_dir: Path) -> str:
    names = [path.name for path in find_runs(runs_dir)]
    return (
        f"{runs_dir} holds {', '.join(names)}" if names else f"{runs_dir} holds no run: `hir run quickstart` makes one"
    )


def _is_run(path: Path) -> bool:
    return any((path / stage).is_dir() for stage in STAGES)
