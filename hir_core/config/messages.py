"""Error messages for a wrong configuration: pydantic's validation errors in the words of a config file.

Reads pydantic's errors and the fields of the sections. `config.load` collects the messages and raises ConfigError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from pydantic_core import ErrorDetails

from hir_core.config.deepspeed import FILE_PROBLEM
from hir_core.config.section import Section, sections_within
from hir_core.errors import did_you_mean

EXPECTED = {
    "missing": "required, but missing",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "finite_number": "expected a finite number",
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
"""Our text for each of pydantic's error types; other types keep pydantic's text."""

_PRECISION = "the precision is that of the file that `deepspeed` names (`bf16`)"
_ELSEWHERE = {
    "dtype": _PRECISION,
    "torch_dtype": _PRECISION,
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "micro_batch_size": "micro-batches are limited by their tokens: set `micro_batch_tokens`",
    "per_device_train_batch_size": "micro-batches are limited by their tokens: set `micro_batch_tokens`",
    "gradient_accumulation_steps": "it follows from `batch_size` and `micro_batch_tokens`",
    "trust_remote_code": "code of a model's folder is never run",
}
"""What is said of keys that are usual in other trainers, and that no section has."""


def root_problems(problems: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """The problems without consequences of others: pydantic calls a list too short, too, when all items are wrong."""
    places = [problem["loc"] for problem in problems]

    def has_wrong_items(place: tuple[int | str, ...]) -> bool:
        return any(len(other) > len(place) and other[: len(place)] == place for other in places)

    return [problem for problem in problems if problem["type"] != "too_short" or not has_wrong_items(problem["loc"])]


def explain(problem: ErrorDetails, root: type[Section]) -> str:
    """The message for one of pydantic's problems with a `root` section: key, what was expected, what was found."""
    *above, last = problem["loc"] or ("config",)
    steps, section = _walk(above, root)
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        return f"{'.'.join([*steps, str(last)])}: unknown key{_known_keys(section, str(last), root)}"
    place = ".".join(_walk([*above, last], root)[0])  # of a whole union member: the key of its section
    if problem["type"] == "union_tag_invalid":
        kinds = context["expected_tags"].replace("'", "").split(", ")
        hint = did_you_mean(context["tag"], kinds)
        return f"{place}.type: expected one of {', '.join(kinds)} (found {context['tag']!r}){hint}"
    expected = EXPECTED.get(problem["type"])
    text = expected.format(**context) if expected else problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    is_section = isinstance(value, dict) and value  # too long for a message
    found = "" if problem["type"] in ("missing", FILE_PROBLEM) or is_section else f" (found {value!r})"
    return f"{place}: {text}{found}"


def _known_keys(section: type[Section], name: str, root: type[Section]) -> str:
    """A hint for an unknown key: a similar key of its section, the same key of other sections, or all known keys."""
    if name in _ELSEWHERE:
        return f"; {_ELSEWHERE[name]}"
    if hint := did_you_mean(name, section.model_fields):
        return hint
    elsewhere = [f"{key}.{name}" for key in root.model_fields if name in _walk([key], root)[1].model_fields]
    if elsewhere and section is root:
        return f"; did you mean {' or '.join(f'`{place}`' for place in elsewhere)}?"
    return f"; expected one of {', '.join(section.model_fields)}"


def _walk(place: Sequence[Any], root: type[Section]) -> tuple[list[str], type[Section]]:
    """The keys of a place in pydantic's notation, without the tags of unions, and the type of the section there."""
    steps: list[str] = []
    section, members = root, list[type[Section]]()
    for step in place:
        if tagged := [member for member in members if step in _tags(member)]:
            section, members = tagged[0], []
            continue
        steps.append(str(step))
        if step in section.model_fields:
            members = sections_within(section.model_fields[step].annotation)
            section = members[0] if members else Section
    return steps, section


def _tags(section: type[Section]) -> tuple[Any, ...]:
    return get_args(section.model_fields["type"].annotation) if "type" in section.model_fields else ()
