"""What is wrong with a configuration, in words of a configuration: problems that pydantic found, near names for typos.

Reads pydantic's problems and the sections' fields; leaves raising to `config`.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

from hir_core.sections import Part

EXPECTED = {
    "missing": "required, but missing",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "string_type": "expected text",
    "path_type": "expected a path",
    "tuple_type": "expected a list",
    "dict_type": "expected settings as `key: value`",
    "model_type": "expected settings as `key: value`",
    "model_attributes_type": "expected settings as `key: value`",
    "greater_than_equal": "expected at least {ge}",
    "greater_than": "expected more than {gt}",
    "less_than_equal": "expected at most {le}",
    "less_than": "expected less than {lt}",
    "literal_error": "expected {expected}",
    "too_short": "expected at least {min_length}",
}
"""What pydantic's errors are in words of a config; others keep its own."""


def roots(problems: Sequence[Any]) -> list[Any]:
    """The problems without those that only follow from one below: a list whose items are all wrong counts as empty."""
    places = [problem["loc"] for problem in problems]

    def follows(problem: Any) -> bool:
        return any(
            len(place) > len(problem["loc"]) and place[: len(problem["loc"])] == problem["loc"] for place in places
        )

    return [problem for problem in problems if problem["type"] != "too_short" or not follows(problem)]


def explain(problem: Any, root: type[Part]) -> str:
    """One of pydantic's problems with settings of the type `root`: where it is, what was expected, what was found."""
    *above, last = problem["loc"] or ("config",)
    place = ".".join(str(step) for step in (*(step for step in above if step not in _members()), last))
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        return f"{place}: unknown key{_known_keys(above, str(last), root)}"
    if problem["type"] == "union_tag_invalid":
        kinds = context["expected_tags"].replace("'", "").split(", ")
        hint = did_you_mean(context["tag"], kinds)
        return f"{place}.type: expected one of {', '.join(kinds)} (found {context['tag']!r}){hint}"
    if last in _members():  # a whole member of a union is wrong: its section's name says more than its type
        place = place.rpartition(".")[0] or place
    text = EXPECTED.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    return f"{place}: {text.format(**context)}{_found(problem)}"


def _found(problem: Any) -> str:
    given = problem["input"]
    if problem["type"] == "missing" or (isinstance(given, dict) and given):
        return ""  # a whole section would bury the message
    return f" (found {given!r})"


def _known_keys(above: Sequence[Any], name: str, root: type[Part]) -> str:
    """What may have been meant by an unknown key: a near one of its section, else the same one of another section."""
    section = _section(above, root)
    if hint := did_you_mean(name, list(section.model_fields)):
        return hint
    homes = [f"{home}.{name}" for home in root.model_fields if name in _section([home], root).model_fields]
    if homes and section is root:
        return f"; did you mean {' or '.join(f'`{home}`' for home in homes)}?"
    return f"; expected one of {', '.join(section.model_fields)}"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """A hint at the nearest of the known names, to end a message with; nothing where none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def _section(place: Sequence[Any], root: type[Part]) -> type[Part]:
    """The part of the configuration at a place, as pydantic names it."""
    section = root
    for step in place:
        if step in _members():
            section = _members()[step]
        elif step in section.model_fields:
            annotation = section.model_fields[step].annotation
            kinds = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type)]
            section = next((kind for kind in kinds if issubclass(kind, Part)), Part)
    return section


@cache
def _members() -> dict[str, type[Part]]:
    """The members of all unions by their `type`."""
    ours = [part for part in Part.__subclasses__() if part.__module__ == Part.__module__]  # `jobspec` has parts as well
    members = [part for part in ours if "type" in part.model_fields]
    return {str(tag): part for part in members for tag in get_args(part.model_fields["type"].annotation)}
