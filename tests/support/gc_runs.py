"""What tests of `hir gc` and `hir doctor` share: recording the versions of a branch, and all files of a folder."""

from pathlib import Path

from hir_core.config import RetentionConfig
from hir_core.store.branches import BranchLog
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

RULE = RetentionConfig(last=1, best=0)


def note(
    store: Store, refs: list[VersionRef], name: str = "main", rule: RetentionConfig | None = RULE, end: bool = True
):
    log = BranchLog(store.run_dir, name, rule)
    for ref in refs:
        log.record(store.manifest(ref).identity)
    if end:
        log.complete()


def names(refs) -> set[str]:
    return {str(ref) for ref in refs}


def tree(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder by its path, except lock files."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
