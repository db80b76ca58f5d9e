"""`Section`, one section of a configuration, and what its fields can be marked with.

Every section is frozen and refuses unknown keys. A field marked `ExcludedFromId` changes speed or memory but not the
numbers, so `fingerprint`, which goes into the ids of versions, leaves it out. One marked `OmittedIfDefault` is left out
as long as it has its default: it was added later, and versions made without it keep their ids.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Discriminator
from pydantic.fields import FieldInfo


class _ExcludedFromId:
    """Marks a field that cannot change a result."""


class _OmittedIfDefault:
    """Marks a field whose default is what its section did before it had the field."""


ExcludedFromId = _ExcludedFromId()
OmittedIfDefault = _OmittedIfDefault()


class Section(BaseModel):
    """One section of the configuration: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def fingerprint(self) -> dict[str, Any]:
        """The settings that decide a result, as plain JSON values: what a version's id is made from."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not _is_marked(field, _ExcludedFromId)
            and not (_is_marked(field, _OmittedIfDefault) and getattr(self, name) == field.default)
        }


def _is_marked(field: FieldInfo, mark: type) -> bool:
    return any(isinstance(found, mark) for found in field.metadata)


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.fingerprint()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def tagged(default: str) -> Discriminator:
    """Chooses a union's member by its `type`, which may be left out for the usual one."""

    def choose(value: Any) -> str:
        found = value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default)
        return str(found)

    return Discriminator(choose)


def function_name(function: str) -> str:
    """Checks, for a field of that kind, that it names a function of the user's."""
    if not re.fullmatch(r"[\w.]+:\w+", function):
        raise ValueError("expected module:function, as in my_rewards:score")
    return function


def folder_name(name: str) -> str:
    """Checks, for a field of that kind, that it can name a folder everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        raise ValueError("expected a folder's name of up to 100 letters, digits, `.`, `_` and `-`")
    return name
