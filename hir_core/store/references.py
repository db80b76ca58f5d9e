"""Runs and versions as a person names them: `quickstart`, `samples@3`, `quickstart/samples@latest`, or a folder.

Reads folder names only; leaves the versions of one run to the store.
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
    """The folders below `runs_dir` that hold a run, by name."""
    if not runs_dir.is_dir():
        return []
    return sorted(path for path in runs_dir.iterdir() if path.is_dir() and _is_run(path))


def find_run(name: str, runs_dir: Path) -> Path:
    """The folder of a run, given its name or the folder itself.

    Raises:
        VersionNotFound: there is no such run; lists those that are there.
    """
    for path in (runs_dir / name, Path(name)):
        if path.is_dir() and _is_run(path):
            return path
    if Path(name).is_dir():
        raise VersionNotFound(f"`{name}` is a folder without versions, so no run: {_there_are(runs_dir)}")
    raise VersionNotFound(f"no run `{name}` in {runs_dir}; {_there_are(runs_dir)}")


def find_version(text: str, runs_dir: Path) -> tuple[Store, VersionRef]:
    """The version that a person means, and the store of its run; the run may be left out where there is one only.

    Raises:
        VersionNotFound: there is no such run or version, or several; lists what there is.
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
    """The run that a person means a row of, and the row's key; the run is named as in `find_version`.

    Raises:
        VersionNotFound: there is no such run, or several; lists what there is.
    """
    run, slash, key = text.rpartition("/")
    return Store(find_run(run, runs_dir) if slash else _current_run(text, runs_dir)), key


def one_run(name: str | None, runs_dir: Path) -> Store:
    """The run of this name or folder; without a name, the one that needs none.

    Raises:
        VersionNotFound: there is no such run, or several; lists what there is.
    """
    return Store(_current_run("", runs_dir) if name is None else find_run(name, runs_dir))


def some_runs(name: str | None, runs_dir: Path) -> list[Path]:
    """The folder of the run of this name, or without a name those of all runs.

    Raises:
        VersionNotFound: there is no such run, or none at all.
    """
    found = [find_run(name, runs_dir)] if name is not None else find_runs(runs_dir)
    if not found:
        found = [_current_run("", runs_dir)]
    return found


def _current_run(text: str, runs_dir: Path) -> Path:
    """The run that needs no name: the only one there is, or the one whose folder one stands in."""
    there = find_runs(runs_dir)
    if len(there) == 1:
        return there[0]
    if not there and _is_run(Path.cwd()):
        return Path.cwd()
    if not there:
        raise VersionNotFound(_there_are(runs_dir))
    hint = f"; put one in front, as in {there[0].name}/{text}" if text else ""
    what = f"`{text}` does not say of which run" if text else "which run is meant"
    raise VersionNotFound(f"{what}; {_there_are(runs_dir)}{hint}")


def _there_are(runs_dir: Path) -> str:
    names = [path.name for path in find_runs(runs_dir)]
    return (
        f"{runs_dir} holds {', '.join(names)}" if names else f"{runs_dir} holds no run: `hir run quickstart` makes one"
    )


def _is_run(path: Path) -> bool:
    return any((path / stage).is_dir() for stage in STAGES)
