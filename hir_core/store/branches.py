"""The branches of a run: which versions each config uses, recorded while it runs, for garbage collection (`hir gc`).

    runs/<name>/branches.json      versions and retention rule, by name of the branch (`branch` in the config)

A run whose config was changed leaves versions behind that look like any others; only the run itself knows which it
still uses. It records a version before making it. `store.gc` decides what is removed. Reads and writes `branches.json`,
under the run's lock; raises StoreError.
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
    """The versions that one config of a run uses, and its retention rule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    versions: tuple[str, ...] = ()
    """The versions that the last completed run used, as `stage/id`, in the order of use."""
    underway: tuple[str, ...] = ()
    """The further versions that runs have used since and that were not completed; they need not exist yet."""
    retention: RetentionConfig | None = None
    """The retention rule of the config; None keeps everything."""

    @property
    def is_complete(self) -> bool:
        """Whether no run of the branch is under way or was interrupted."""
        return not self.underway


def read_branches(run_dir: Path) -> dict[str, Branch]:
    """The branches of a run by name; empty if no run has recorded any.

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
            f"{path} is damaged, so it is unknown which versions the run uses: delete it, and run the same config "
            "again, which records them anew"
        ) from None


class BranchLog:
    """Records the versions that one run uses, while it runs.

    Args:
        run_dir: the run's folder; it need not exist yet.
        name: the name of the branch.
        retention: the retention rule of the run's config.
    """

    def __init__(self, run_dir: Path, name: str, retention: RetentionConfig | None) -> None:
        self.run_dir, self.name, self.retention = run_dir, name, retention
        self._branch: Branch | None = None
        self._used: dict[str, None] = {}

    def record(self, identity: Identity) -> None:
        """Records a version as used, whether it exists already or not.

        Raises:
            StoreError: the run's folder cannot be written, or `branches.json` is damaged.
        """
        branch, version = self._read(), f"{identity.stage}/{identity.id}"
        self._used[version] = None
        is_known = version in branch.versions or version in branch.underway
        self._write(branch.versions, branch.underway if is_known else (*branch.underway, version))

    def complete(self) -> None:
        """Records the end of the run: the branch now consists of the versions that this run used.

        If all of them are on the branch already (a run with fewer iterations), the branch keeps its other versions too.
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
        branches = read_branches(self.run_dir) | {self.name: branch}
        write_json(self.run_dir / BRANCHES, {name: item.model_dump(mode="json") for name, item in branches.items()})
        self._branch = branch
