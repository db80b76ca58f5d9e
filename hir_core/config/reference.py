"""The settings reference: every section of a run's configuration as Markdown, from the docstrings of its fields.

`python -m hir_core.config.reference` rewrites the part of `flows/configs/README.md` between two comments. Reads the
sections' classes; writes that one file.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import Discriminator
from pydantic.fields import FieldInfo

from hir_core.config.comparison import CompareConfig
from hir_core.config.deepspeed import DeepSpeedFile
from hir_core.config.run import RunConfig
from hir_core.config.section import ExcludedFromId, Section, sections_within, types_within
from hir_core.config.training import TrainingConfig

README = Path(__file__).resolve().parents[2] / "flows" / "configs" / "README.md"
BEGIN = (
    "<!-- Made by `python -m hir_core.config.reference`: change the docstrings in hir_core/config, not this part. -->"
)
END = "<!-- The end of the part that is made. -->"
LONG = 100
"""Characters of a default that a cell of a table takes; a longer one stands below the table."""
WORDS = {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "any value"}
WORDS |= {Path: "path", DeepSpeedFile: "path"}
BOUNDS: tuple[tuple[type[Any], str, str], ...] = (
    (Ge, "ge", "at least"),
    (Gt, "gt", "more than"),
    (Le, "le", "at most"),
    (Lt, "lt", "less than"),
)


class TaggedUnion(NamedTuple):
    """The sections that a key may hold, by their `type`, and the type that may be left out."""

    members: dict[str, type[Section]]
    usual: str


def render() -> str:
    """The reference as Markdown: the keys of a run, then each key that holds settings, then the keys of a comparison.

    Ends with a line end.
    """
    lines = ["### All keys of a run", *_section_text(RunConfig)]
    for key, hint in _hints(RunConfig).items():
        union, sections = _tagged_union(hint), sections_within(hint)
        if sections:
            lines += ["", f"### `{key}`", *(_union_text(key, union) if union else _section_text(sections[0]))]
    return "\n".join([*lines, "", "### All keys of a comparison", *_section_text(CompareConfig)]) + "\n"


def types_of(key: str) -> dict[str, str]:
    """The types that a key of `RunConfig` may have, each with the first paragraph of its docstring.

    Raises:
        KeyError: the configuration has no such key, or its settings have no `type`.
    """
    union = _tagged_union(_hints(RunConfig)[key])
    if union is None:
        raise KeyError(key)
    return {name: _paragraphs(section)[0] for name, section in union.members.items()}


def replaced(text: str) -> str:
    """A README's text with the part between the two comments written anew.

    Raises:
        ValueError: the two comments do not stand in it once each, in this order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"expected the comments `{BEGIN}` and `{END}` once each, in this order")
    return f"{before}{BEGIN}\n\n{render()}\n{END}{after}"


def _union_text(key: str, union: TaggedUnion) -> Iterator[str]:
    """The types in a table, what all of them have, and the settings of each type that has some of its own."""
    yield ""
    yield from _table(("type", "what it is"), [(f"`{name}`", about) for name, about in types_of(key).items()])
    yield from ("", f"Where `type` is left out, it is `{union.usual}`.")
    first, *others = union.members.values()
    shared = [name for name in first.model_fields if all(_is_same(name, first, other) for other in others)]
    if shared:
        yield from ("", "Every type has:", "", *_settings_text(first, shared))
    for name, section in union.members.items():
        if own := list(_section_text(section, paragraphs=_paragraphs(section)[1:], without=shared)):
            yield from ("", f"#### `{key}` of `type: {name}`", *own)


def _is_same(name: str, section: type[Section], other: type[Section]) -> bool:
    """Whether two sections have the same setting of this name, by its type, its default and its description."""
    facts = [
        (field.annotation, field.default, field.description)
        for field in (section.model_fields.get(name), other.model_fields.get(name))
        if field is not None
    ]
    return name != "type" and len(facts) == 2 and facts[0] == facts[1]


def _section_text(
    section: type[Section], paragraphs: Sequence[str] | None = None, without: Sequence[str] = ()
) -> Iterator[str]:
    """A section's docstring, or these paragraphs of it, its settings, and those of the sections inside it."""
    paragraphs = _paragraphs(section) if paragraphs is None else paragraphs
    is_training = issubclass(section, TrainingConfig) and section is not TrainingConfig
    if is_training:
        paragraphs = [*paragraphs, "It has every setting of [`training`](#training). Its own, and other defaults:"]
    yield from (line for paragraph in paragraphs for line in ("", paragraph))
    known = section.__annotations__ if is_training else section.model_fields
    names = [name for name in section.model_fields if name in known and name not in {*without, "type"}]
    if names:
        yield from ("", *_settings_text(section, names))
    for name in names:
        inner = sections_within(_hints(section)[name])
        if len(inner) == 1 and section is not RunConfig:
            yield from ("", f"The keys in `{name}`. {_paragraphs(inner[0])[0]}", "")
            yield from _settings_text(inner[0], [field for field in inner[0].model_fields if field != "type"])


def _settings_text(section: type[Section], names: Sequence[str]) -> Iterator[str]:
    """A table with a row for each of these settings, and below it the defaults that are too long for a table."""
    fields, hints = {name: section.model_fields[name] for name in names}, _hints(section)
    rows = [
        (f"`{n}`", _type_text(hints[n], field.metadata), _default(field), _meaning(field))
        for n, field in fields.items()
    ]
    yield from _table(("key", "type", "default", "what it does"), rows)
    for name, field in fields.items():
        if isinstance(field.default, str) and len(field.default) > LONG:
            yield from ("", f"The default of `{name}`:", "", "```text", field.default.rstrip("\n"), "```")


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    is_free = any(mark is ExcludedFromId for mark in field.metadata)
    return f"{text} *Not in version ids.*".strip() if is_free else text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "none"
    if isinstance(value, Section):
        return f"`{value.type}`" if hasattr(value, "type") else "its defaults"
    if isinstance(value, Path):
        return f"`{value}`"
    if isinstance(value, str) and (value.isidentifier() or len(value) > LONG):
        return f"`{value}`" if len(value) <= LONG else "below"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _type_text(hint: Any, marks: Sequence[Any] = ()) -> str:
    """A type in plain words, with the bounds that it or its field sets."""
    while get_origin(hint) is Annotated:
        hint, *more = get_args(hint)
        marks = [
            *marks,
            *(mark for item in more for mark in (item.metadata if isinstance(item, FieldInfo) else [item])),
        ]
    return ", ".join([_bare_type(hint), *_bounds(marks)])


def _bounds(marks: Sequence[Any]) -> Iterator[str]:
    limits = {words: getattr(mark, name) for kind, name, words in BOUNDS for mark in marks if isinstance(mark, kind)}
    if "at least" in limits and limits["at least"] == limits.get("at most"):
        yield f"always {limits['at least']:g}"
    else:
        yield from (f"{words} {limit:g}" for words, limit in limits.items())
    if any(isinstance(mark, MinLen) for mark in marks):
        yield "not empty"


def _bare_type(hint: Any) -> str:
    origin, inner = get_origin(hint), [item for item in get_args(hint) if item not in (NoneType, Ellipsis)]
    if sections := set(sections_within(hint)):
        keys = [key for key, other in _hints(RunConfig).items() if set(sections_within(other)) == sections]
        settings = f"[settings](#{keys[0]})" if keys else "settings"
        names = [f"`{name}`" for kind in types_within(hint) if get_origin(kind) is Literal for name in get_args(kind)]
        settings = " or ".join([*names, settings])
        return f"list of {settings}" if origin is tuple else settings
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        return " or ".join(_type_text(item) for item in inner)
    if origin is tuple:
        return f"list of {_type_text(inner[0])}{'' if get_origin(inner[0]) else 's'}"
    if origin is dict:
        keys_text = "name" if inner[0] is str else f"of {_type_text(inner[0])}"
        return f"for each {keys_text}: {'settings' if get_origin(inner[1]) is dict else _type_text(inner[1])}"
    return WORDS[hint]


def _tagged_union(hint: Any) -> TaggedUnion | None:
    """The union that a type is, or is a list of; None where it is none."""
    for mark in getattr(hint, "__metadata__", ()):
        if isinstance(mark, Discriminator) and callable(mark.discriminator):
            members = {get_args(item.model_fields["type"].annotation)[0]: item for item in sections_within(hint)}
            return TaggedUnion(members, str(mark.discriminator({})))
    inner = get_args(hint) if get_origin(hint) in (Annotated, tuple) else ()
    return next((union for item in inner if (union := _tagged_union(item))), None)


def _hints(section: type[Section]) -> dict[str, Any]:
    """The types of a section's settings, with their marks, in the order of the settings."""
    hints = get_type_hints(section, include_extras=True)
    return {name: hints[name] for name in section.model_fields}


def _paragraphs(section: type[Section]) -> list[str]:
    return [" ".join(text.split()) for text in inspect.cleandoc(section.__doc__ or "").split("\n\n")]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (head, ["---"] * len(head), *rows):
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


if __name__ == "__main__":
    README.write_text(replaced(README.read_text()))
