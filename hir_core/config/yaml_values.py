"""YAML as the plain values that settings are made of: texts, numbers, true, false and null, lists, and mappings.

YAML can hold more than JSON: dates, sets, bytes, a value that contains itself, and a few lines of aliases that stand
for billions of values. No setting needs these, and what reads or stores settings later would fail on them. Reads and
writes no files.
"""

from __future__ import annotations

from typing import Any

import yaml

from hir_core.json_values import DEEPEST

MOST_CHARACTERS = 1_000_000
"""How much a text may stand for, with every alias counted as all that it stands for."""
LONGEST_NUMBER = 100
"""Characters of a number."""
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))


def parse_yaml(text: str) -> Any:
    """The value of a YAML text; a date is a text.

    Raises:
        ValueError: says what is wrong and, where it is known, on which line.
    """
    try:
        return yaml.load(text, _PlainLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise ValueError(f"{where}{error.problem or error}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


class _PlainLoader(yaml.SafeLoader):
    """Refuses what is not plain, and a repeated key, of which YAML itself would silently keep the last value."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - pyyaml's own attribute
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.depth > DEEPEST:  # here as well: the scanner takes time that grows with the square of the depth
            raise _too_deep(self.peek_event())  # type: ignore[no-untyped-call]
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_extent(node, 0, {})
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in PLAIN_TAGS:
            raise _problem(node, f"the tag {node.tag} is not plain: leave it out")
        if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")):
            return self._number(node)
        try:
            return super().construct_object(node, deep)
        except (LookupError, ValueError):  # `!!bool maybe`
            raise _problem(node, f"{node.value!r} is no {node.tag.rpartition(':')[2]}") from None

    def _number(self, node: yaml.ScalarNode) -> int | float:
        try:
            if len(node.value) > LONGEST_NUMBER:
                raise ValueError("too long")
            value = super().construct_object(node)
        except (LookupError, ValueError):
            raise _problem(node, f"{node.value!r} is no number that can be read") from None
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise _problem(node, f"{node.value!r} is no finite number")
        number: int | float = value
        return number

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.tag.endswith((":int", ":float", ":bool", ":null")):  # JSON would make another key of it
                raise _problem(key, f"`{key.value}` is no text, as a name must be: write it in quotes")
            if key.value in seen:
                raise _problem(key, f"`{key.value}` twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _check_extent(node: yaml.Node, depth: int, known: dict[yaml.Node, tuple[int, int]]) -> tuple[int, int]:
    """How many characters a node stands for, and how deep its values lie in one another.

    Args:
        depth: how deep the node itself lies.
        known: what was found for other nodes, of which each is looked at once, however often it is named.

    Raises:
        yaml.MarkedYAMLError: it stands for too much, lies too deep, or contains itself.
    """
    if depth <= DEEPEST and node not in known:
        extents = [_check_extent(inner, depth + 1, known) for inner in _inner_nodes(node)]
        own_size = 1 + len(node.value) if isinstance(node, yaml.ScalarNode) else 1
        known[node] = own_size + sum(size for size, _ in extents), max((1 + height for _, height in extents), default=0)
    size, height = known.get(node, (0, 0))
    if depth + height > DEEPEST:
        raise _too_deep(node)
    if size > MOST_CHARACTERS:
        raise _problem(node, f"with its aliases it stands for more than {MOST_CHARACTERS:,} characters: write less")
    return size, height


def _inner_nodes(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _too_deep(place: Any) -> yaml.MarkedYAMLError:
    return _problem(place, f"lists and mappings lie more than {DEEPEST} deep in one another, or contain themselves")


def _problem(place: Any, problem: str) -> yaml.MarkedYAMLError:
    """The error about a node or an event of pyyaml, which both know where they begin."""
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)
