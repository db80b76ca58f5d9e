"""What is wrong with a configuration, in words of a configuration: problems that pydantic found.

Reads pydantic's problems and the sections' fields; leaves raising to `config`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from hir_core.config.section import Section
from hir_core.errors import did_you_mean

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


def explain(problem: Any, root: type[Section]) -> str:
    """One of pydantic's problems with settings of the type `root`: where it is, what was expected, what was found."""
    *above, last = problem["loc"] or ("config",)
    steps, section = _walk(above, root)
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        return f"{'.'.join([*steps, str(last)])}: unknown key{_known_keys(section, str(last), root)}"
    place = ".".join(_walk([*above, last], root)[0])  # where a whole member of a union is wrong, its section's name
    if problem["type"] == "union_tag_invalid":
        kinds = context["expected_tags"].replace("'", "").split(", ")
        hint = did_you_mean(context["tag"], kinds)
        return f"{place}.type: expected one of {', '.join(kinds)} (found {context['tag']!r}){hint}"
    ours = EXPECTED.get(problem["type"])
    text = ours.format(**context) if ours else problem["msg"].removeprefix("Value error, ")
    return f"{place}: {text}{_found(problem)}"


def _found(problem: Any) -> str:
    given = problem["input"]
    if problem["type"] == "missing" or (isinstance(given, dict) and given):
        return ""  # a whole section would bury the message
    return f" (found {given!r})"


def _known_keys(section: type[Section], name: str, root: type[Section]) -> str:
    """What may have been meant by an unknown key: a near one of its section, else the same one of another section."""
    if hint := did_you_mean(name, section.model_fields):
        return hint
    homes = [f"{home}.{name}" for home in root.model_fields if name in _walk([home], root)[1].model_fields]
    if homes and section is root:
        return f"; did you mean {' or '.join(f'`{home}`' for home in homes)}?"
    return f"; expected one of {', '.join(section.model_fields)}"


def _walk(place: Sequence[Any], root: type[Section]) -> tuple[list[str], type[Section]]:
    """A place as pydantic names it: its steps without the tags of unions, and the part of the configuration there."""
    steps: list[str] = []
    section, members = root, list[type[Section]]()
    for step in place:
        if tagged := [part for part in members if step in _tags(part)]:
            section, members = tagged[0], []
            continue
        steps.append(str(step))
        if step in section.model_fields:
            members = list(_parts(section.model_fields[step].annotation))
            section = members[0] if members else Section
    return steps, section


def _parts(annotation: Any) -> Iterator[type[Section]]:
    """The parts of the configuration that a type speaks of, through unions, lists and annotations."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts(inner)


def _tags(part: type[Section]) -> tuple[Any, ...]:
    return get_args(part.model_fields["type"].annotation) if "type" in part.model_fields else ()
