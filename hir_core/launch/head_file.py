"""`head.json`: where the hosts of a run find its head, and the key that they show it.

    launches/head.json   in the run's folder, for its owner only, while the run has other hosts

Hosts that a cluster has started read it where it is, over the file system that all hosts share; those that the head
starts itself get it as their standard input. A file of an earlier run may lie there: its head does not answer.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

import psutil
from pydantic import ValidationError

from hir_core.config.section import Section
from hir_core.errors import ConfigError
from hir_core.store.plain_files import open_folder, open_plain


class HeadFile(Section):
    """Content of `head.json`."""

    addresses: tuple[str, ...]
    """Where the head may be reached, the likeliest first."""
    port: int
    key: str
    """In hexadecimal digits."""
    env: dict[str, str]
    """Environment variables that the hosts take over."""


def head_file(run_dir: Path) -> Path:
    """The path of the file."""
    return run_dir / "launches" / "head.json"


def write_head_file(path: Path, content: HeadFile) -> None:
    """Writes the file, readable by this user only.

    Raises:
        ConfigError: the file system lets others read it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = f".{path.name}.{os.getpid()}.tmp"
    with open_folder(path.parent) as folder:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as file:
            if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
                os.unlink(temporary, dir_fd=folder)
                raise ConfigError(
                    f"{path} holds a key, and its file system lets other users read every file: choose another runs_dir"
                )
            file.write(content.model_dump_json().encode() + b"\n")
        os.rename(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)


def read_head_file(path: Path) -> HeadFile | None:
    """The content of the file; None where there is none.

    Raises:
        ConfigError: another user than the owner of the folder has written it: what the head says is obeyed.
    """
    try:
        with open_plain(path) as file:
            if os.fstat(file.fileno()).st_uid != path.parent.stat().st_uid:
                raise ConfigError(f"{path} is not of the owner of its folder: delete it")
            return HeadFile.model_validate_json(file.read())
    except (FileNotFoundError, ValidationError):
        return None


def delete_head_file(path: Path) -> None:
    """Deletes the file."""
    path.unlink(missing_ok=True)


def own_addresses() -> tuple[str, ...]:
    """The addresses of this machine, those that only itself can reach last."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    addresses = [
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family.name in ("AF_INET", "AF_INET6") and not entry.address.startswith("fe80:")
    ]
    return tuple(sorted(addresses, key=lambda address: (is_loopback(address), ":" in address)))


def is_loopback(address: str) -> bool:
    """Whether an address is reached from its own machine only."""
    return address.startswith("127.") or address == "::1"


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has the address; None where none has."""
    for name, entries in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in entries):
            return str(name)
    return None
