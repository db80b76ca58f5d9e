"""`Section`, the base class of every section of a configuration, and the marker of fields that change no result.

Every section is frozen and refuses unknown keys. `Section.fingerprint` returns the settings that enter version ids. It
leaves out fields marked with `ExcludedFromId`, which change speed, memory or bookkeeping, but no result, and fields
marked with `DefaultExcludedFromId` where they have their default: what was done before there was such a field.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError


class _ExcludedFromId:
    """Marks a field that cannot change a result."""


class _DefaultExcludedFromId:
    """Marks a field whose default is what was done before the field existed."""


ExcludedFromId = _ExcludedFromId()
DefaultExcludedFromId = _DefaultExcludedFromId()


class Section(BaseModel):
    """A section of the configuration: immutable, without unknown keys, and with a docstring below every field."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_is_a_number(cls, value: Any, fields: ValidationInfo) -> Any:
        """Refuses true and false for a number, which pydantic takes for 1 and 0."""
        if not isinstance(value, bool):
            return value
        kinds = set(types_within(cls.model_fields[str(fields.field_name)].annotation))
        if bool not in kinds and (number := kinds & {int, float}):
            raise PydanticCustomError("int_type" if int in number else "float_type", "expected a number")
        return value

    def fingerprint(self) -> dict[str, Any]:
        """The settings that decide a result, as plain JSON values: what a version's id is made from."""
        return {
            name: _plain(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if not any(isinstance(item, _ExcludedFromId) for item in field.metadata)
            and not (DefaultExcludedFromId in field.metadata and getattr(self, name) == field.default)
        }


def types_within(annotation: Any) -> list[Any]:
    """A type annotation and those within it: members of unions, items of lists."""
    return [annotation, *(kind for inner in get_args(annotation) for kind in types_within(inner))]


def sections_within(annotation: Any) -> list[type[Section]]:
    """The sections among `types_within`."""
    return [kind for kind in types_within(annotation) if isinstance(kind, type) and issubclass(kind, Section)]


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return value.fingerprint()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def tagged(default: str) -> Discriminator:
    """The discriminator of a union of sections by their `type`; settings without a `type` are of the default type."""

    def type_of(value: Any) -> str:
        return str(value.get("type", default) if isinstance(value, dict) else getattr(value, "type", default))

    return Discriminator(type_of)


def function_name(function: str) -> str:
    """Field validator: the name of a Python function, as `module:function`."""
    if not re.fullmatch(r"[\w.]+:\w+", function):
        raise ValueError("expected module:function, as in my_rewards:score")
    return function


def folder_name(name: str) -> str:
    """Field validator: a text that is a valid folder name on every operating system."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name, re.ASCII):
        raise ValueError("expected a folder's name of up to 100 letters, digits, `.`, `_` and `-`")
    return name
