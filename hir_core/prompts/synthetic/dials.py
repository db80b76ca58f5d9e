"""A check that the dials of several synthetic tasks share."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def require_known(dial: str, names: Sequence[str], known: Collection[str]) -> None:
    """Raises an error where a dial names something that its task does not have.

    Raises:
        ValueError: names the unknown ones, and what there is.
    """
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"unknown {dial} {unknown}: choose from {', '.join(known)}")
