"""The lines of a run: which versions each of its configs uses, noted while it runs, for whoever clears up afterwards.

    runs/<name>/branches.json      by name of the line (`branch` in the config): versions, and the retention rule

A fork leaves versions behind that look like any others; only the run itself can tell which it still asks for. Notes
names, before the versions are there; leaves what may go to `retaining`. Written by the run's only writer.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hir_core.config import RetentionConfig
from hir_core.errors import StoreError
from hir_core.store.files import read_json, write_json
from hir_core.store.manifest import Identity

BRANCHES = "branches.json"


class Branch(BaseModel):
    """What one config of a run uses."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: tuple[str, ...] = ()
    """What the last run that came to its end used, as `stage/id`, in the order in which it asked for them."""
    underway: tuple[str, ...] = ()
    """What runs have asked for since that have not come to their end; it need not be there yet."""
    retention: RetentionConfig | None = None

    @property
    def is_complete(self) -> bool:
        """Whether no run of the line waits to be continued."""
        return not self.underway


def read_branches(run_dir: Path) -> dict[str, Branch]:
    """The lines of a run by name; empty where no run has noted any.

    Raises:
        StoreError: the file is damaged.
    """
    path = run_dir / BRANCHES
    try:
        raw = read_json(path)
        return {str(name): Branch.model_validate(branch) for name, branch in dict(raw).items()}
    except FileNotFoundError:
        return {}
    except (StoreError, ValidationError, TypeError, ValueError):
        raise StoreError(
            f"{path} is damaged, so nothing says what the run still uses: delete it, and run the same config again, "
            "which notes it anew"
        ) from None


class BranchLog:
    """Notes what one run uses, as it asks for it.

    Args:
        run_dir: the run's folder; it need not exist yet.
        name: the line's name.
        retention: the rule of the run's config.
    """

    def __init__(self, run_dir: Path, name: str, retention: RetentionConfig | None) -> None:
        self.run_dir, self.name, self.retention = run_dir, name, retention
        self._branch: Branch | None = None
        self._used: dict[str, None] = {}

    def note(self, named: Identity) -> None:
        """Notes a version, which may be there or not.

        Raises:
            StoreError: the run's folder cannot be written, or its notes are damaged.
        """
        branch, name = self._read(), f"{named.stage}/{named.id}"
        self._used[name] = None
        is_known = name in branch.versions or name in branch.underway
        self._write(branch.versions, branch.underway if is_known else (*branch.underway, name))

    def complete(self) -> None:
        """Notes that the run came to its end; what only its earlier configs used is forgotten.

        A run that asked for fewer iterations than before is still on the same line: nothing of it is forgotten.
        """
        versions = self._read().versions
        self._write(versions if self._used.keys() <= set(versions) else tuple(self._used), ())

    def _read(self) -> Branch:
        if self._branch is None:
            self._branch = read_branches(self.run_dir).get(self.name, Branch())
        return self._branch

    def _write(self, versions: tuple[str, ...], underway: tuple[str, ...]) -> None:
        branch = Branch(versions=versions, underway=underway, retention=self.retention)
        if branch == self._branch:
            return
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write to {self.run_dir}: {error.strerror}") from None
        lines = read_branches(self.run_dir) | {self.name: branch}
        write_json(self.run_dir / BRANCHES, {name: one.model_dump(mode="json") for name, one in lines.items()})
        self._branch = branch
