"""What tests of `hir gc` and `hir doctor` share: noting versions of a branch, and all files of a folder."""

from pathlib import Path

from hir_core.config import RetentionConfig
from hir_core.store.branches import BranchLog
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

RULE = RetentionConfig(last=1, best=0)


def note(
    store: Store, refs: list[VersionRef], name: str = "main", rule: RetentionConfig | None = RULE, end: bool = True
):
    notes = BranchLog(store.run_dir, name, rule)
    for ref in refs:
        notes.note(store.manifest(ref).identity)
    if end:
        notes.complete()


def names(refs) -> set[str]:
    return {str(ref) for ref in refs}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, lock files aside."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
