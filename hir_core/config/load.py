"""What a run is told to do: `RunConfig`, read from YAML with `key=value` changes on top.

Reads YAML and DeepSpeed JSON files, and says everything that is wrong with them at once. The fields are in `sections`;
prompts, rewards and relabelers are left to their own packages, and the model to the launch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from hir_core.config.messages import explain, roots
from hir_core.config.run import P, RunConfig
from hir_core.errors import ConfigError, did_you_mean


def load_config(path: Path, changes: Sequence[str] = ()) -> RunConfig:
    """Reads a run's YAML file, applies `key.sub=value` changes (values in YAML), and checks all of it.

    Raises:
        ConfigError: listing every problem at once, with the near name for an unknown key.
    """
    settings = read_settings(path, changes)
    if "compare" in settings and "run" not in settings:
        raise ConfigError(f"{path} is a comparison and no single run: start it with `hir compare`")
    return parse_config(settings, str(path))


def find_config(name: str, recipes: Path, here: Path = Path(), where: str = "") -> Path:
    """The file that a name means: a path from `here`, or a recipe among the shipped ones, without its ending.

    Args:
        where: what names it, to begin a message with.

    Raises:
        ConfigError: there is none; hints at the nearest and lists the recipes.
    """
    for path in (here / name, recipes / f"{name.removesuffix('.yaml')}.yaml"):
        if path.is_file():
            return path
    shipped = sorted(str(file.relative_to(recipes).with_suffix("")) for file in recipes.rglob("*.yaml"))
    beside = Path(name).parent
    there = sorted(str(beside / file.name) for file in (here / beside).glob("*.yaml"))
    hint = did_you_mean(name, [*there, *shipped])
    expected = f"{' E' if hint else ': e'}xpected a YAML file or a shipped recipe ({', '.join(shipped)})"
    raise ConfigError(f"{where}no such config: {name}{hint}{expected}")


def read_settings(path: Path, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A YAML file's settings with `key.sub=value` changes applied, not checked yet.

    Raises:
        ConfigError: the file cannot be read, or a change has no place in it.
    """
    try:
        raw = _read_yaml(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {_yaml_problem(error)}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold settings as `key: value`, found {type(raw).__name__}")
    for change in changes:
        _apply(raw, change)
    return raw


def parse_config(raw: dict[str, Any], where: str = "config") -> RunConfig:
    """Checks plain settings and returns them as a `RunConfig`.

    Raises:
        ConfigError: listing every problem at once.
    """
    config = checked(RunConfig, raw, where)
    config.deepspeed_settings()
    return config


def checked(kind: type[P], raw: dict[str, Any], where: str) -> P:
    """Plain settings as a part of the configuration.

    Raises:
        ConfigError: listing every problem at once.
    """
    if halves := list(_half_characters(raw)):
        raise ConfigError(f"{where}: {', '.join(halves)}: half a character (a lone surrogate): write the whole one")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        problems = [explain(problem, kind) for problem in roots(error.errors())]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)])) from None


def _half_characters(value: Any, place: str = "") -> Iterator[str]:
    """Where a text stands that no file can hold: YAML and JSON can escape half of a surrogate pair."""
    if isinstance(value, str):
        if value.encode(errors="replace").decode() != value:
            yield place
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _half_characters(below, f"{place}.{name}".removeprefix("."))
    elif isinstance(value, (list, tuple)):
        for number, below in enumerate(value):
            yield from _half_characters(below, f"{place}.{number}")


class _Loader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(problem=f"`{key.value}` twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, _Loader)


def _yaml_problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
    return where + (getattr(error, "problem", None) or str(error))


def _apply(raw: dict[str, Any], change: str) -> None:
    """Sets one `key.sub=value`; a section that is not there yet is made, an item of a list must be there."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected key=value, found `{change}`; for example iterations=12 or training.epochs=2")
    try:
        value = _read_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"`{change}`: the value is not YAML: {_yaml_problem(error)}") from None
    node: Any = raw
    *parents, last = key.split(".")
    for name in parents:
        if isinstance(node, dict) and node.get(name) is None:
            node[name] = {}
        node = node[_place(node, name, change)]
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"`{change}`: `{name}` is {node!r}, so nothing can be set below it")
    node[_place(node, last, change)] = value


def _place(node: dict[str, Any] | list[Any], name: str, change: str) -> Any:
    """The key or, in a list, the position that a name means."""
    if isinstance(node, dict):
        return name
    if not name.isdecimal() or int(name) >= len(node):
        raise ConfigError(f"`{change}`: the list has {len(node)} item(s), counted from 0, so there is no `{name}`")
    return int(name)
