"""Loading of a run's configuration: a YAML file with `key=value` changes on top, checked into a `RunConfig`.

Reads YAML files and, through `RunConfig`, the DeepSpeed file. Raises ConfigError with every problem at once. Whether
the prompts, the reward and the model can be used is checked later, by the stages.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hir_core.config.messages import explain, root_problems
from hir_core.config.run import RunConfig
from hir_core.config.section import Section
from hir_core.config.yaml_values import parse_yaml
from hir_core.errors import ConfigError, did_you_mean
from hir_core.json_values import DEEPEST

S = TypeVar("S", bound=Section)
Changes = Sequence[str] | Mapping[str, Any]
"""Settings to change: `key.sub=value` with the value in YAML, as in a command, or values by `key.sub`, as in Python."""


def load_config(path: Path, changes: Changes = ()) -> RunConfig:
    """The run that a YAML file configures, after changes.

    Raises:
        ConfigError: lists every problem at once, with the nearest name for an unknown key.
    """
    settings = read_settings(path, changes)
    if "compare" in settings and "run" not in settings:
        raise ConfigError(f"{path} is a comparison and no single run: start it with `hir compare`")
    return parse_config(settings, str(path))


def find_config(name: str, recipes: Path, here: Path = Path(), where: str = "") -> Path:
    """The file of a config: a path relative to `here`, or the name of a shipped recipe.

    Args:
        name: the path, or the recipe's name without `.yaml`.
        recipes: the folder of the shipped recipes.
        here: the folder that paths are relative to.
        where: beginning of the error message: what names this config.

    Raises:
        ConfigError: there is no such file; suggests the nearest name and lists the recipes.
    """
    is_folder = False
    for path in (here / name, recipes / f"{name.removesuffix('.yaml')}.yaml"):
        with suppress(OSError):  # a name that is too long for the file system
            if path.is_file():
                return path
            is_folder = is_folder or path.is_dir()
    shipped = sorted(str(file.relative_to(recipes).with_suffix("")) for file in recipes.rglob("*.yaml"))
    folder = Path(name).parent
    nearby = sorted(str(folder / file.name) for file in (here / folder).glob("*.yaml"))
    hint = did_you_mean(name, [*nearby, *shipped])
    expected = f"{' E' if hint else ': e'}xpected a YAML file or a shipped recipe ({', '.join(shipped)})"
    problem = f"{name} is a folder, and no config" if is_folder else f"no such config: {name}"
    raise ConfigError(f"{where}{problem}{hint}{expected}")


def read_settings(path: Path, changes: Changes = ()) -> dict[str, Any]:
    """The settings in a YAML file after changes, not checked yet.

    Raises:
        ConfigError: the file cannot be read, or a change cannot be applied to it.
    """
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no such config file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    except ValueError as error:
        raise ConfigError(f"{path} is not YAML that can be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold settings as `key: value`, found {type(raw).__name__}")
    if isinstance(changes, Mapping):
        for key, value in changes.items():
            _apply_change(raw, key, copy.deepcopy(value), f"{key}={value!r}")
    else:
        for change in changes:
            _apply_change(raw, *_parse_change(change), change)
    return raw


def parse_config(raw: dict[str, Any], where: str = "config") -> RunConfig:
    """The run that plain settings configure.

    Args:
        raw: settings as read from YAML, or as dumped by `RunConfig.model_dump`.
        where: where the settings come from, for the error message.

    Raises:
        ConfigError: lists every problem at once.
    """
    return parse_section(RunConfig, raw, where)


def parse_section(section: type[S], raw: dict[str, Any], where: str) -> S:
    """Plain settings as a section of this type.

    Raises:
        ConfigError: lists every problem at once.
    """
    if places := list(_lone_surrogates(raw)):
        raise ConfigError(f"{where}: {', '.join(places)}: contains a lone surrogate: write a whole character")
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        problems = [explain(problem, section) for problem in root_problems(error.errors())]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ConfigError(f"{where}: {count}", *(f"  {problem}" for problem in problems)) from None


def _lone_surrogates(value: Any, place: str = "") -> Iterator[str]:
    """The keys of texts that cannot be written as UTF-8: escapes in YAML and JSON can produce half a surrogate pair."""
    if isinstance(value, str):
        if value.encode(errors="replace").decode() != value:
            yield place
    elif isinstance(value, dict):
        for name, item in value.items():
            inner = f"{place}.{name}".removeprefix(".")
            yield from _lone_surrogates(name, inner)
            yield from _lone_surrogates(item, inner)
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from _lone_surrogates(item, f"{place}.{number}")


def _parse_change(change: str) -> tuple[str, Any]:
    """The key and the value of one `key.sub=value`."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise ConfigError(f"expected key=value, found `{change}`; for example iterations=12 or training.epochs=2")
    try:
        return key, parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"`{change}`: the value is not YAML that can be read: {error}") from None


def _apply_change(raw: dict[str, Any], key: str, value: Any, change: str) -> None:
    """Sets the value of a `key.sub`: a missing section is created, a list item must exist.

    Args:
        change: key and value, for error messages.
    """
    *parents, last = key.split(".")
    if len(parents) >= DEEPEST:
        raise ConfigError(f"`{change}`: expected a key of at most {DEEPEST} parts, found {len(parents) + 1}")
    node: Any = raw
    for name in parents:
        if isinstance(node, dict) and node.get(name) is None:
            node[name] = {}
        node = node[_key_or_index(node, name, change)]
        if not isinstance(node, (dict, list)):
            raise ConfigError(f"`{change}`: `{name}` is {node!r}, so nothing can be set below it")
    node[_key_or_index(node, last, change)] = value


def _key_or_index(node: dict[str, Any] | list[Any], name: str, change: str) -> Any:
    """The name itself as the key of a dict, or as the index of a list."""
    if isinstance(node, dict):
        return name
    if not name.isdecimal() or len(name) > 9 or int(name) >= len(node):
        raise ConfigError(f"`{change}`: the list has {len(node)} item(s), counted from 0, so there is no `{name}`")
    return int(name)
