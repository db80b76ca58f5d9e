"""Functions of the user's, named `module:function`: found, called with lists, and told apart by their source.

Whatever goes wrong in one ends in a ConfigError where it is found and in a RewardError where it is called, with the
place in the user's code. Leaves what the lists mean to the rewards and relabelers.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hir_core.errors import ConfigError, RewardError, did_you_mean


class UserFunction:
    """A function of the user's.

    Args:
        spec: `module:function`, importable from the working directory.
        setting: the setting that names it, for messages, as in `reward.function`.

    Raises:
        ConfigError: there is no such module or function.
    """

    def __init__(self, spec: str, setting: str) -> None:
        self.spec, self.setting = spec, setting
        module_name, _, function_name = spec.partition(":")
        module = self._import(module_name)
        self._function = self._find(module, function_name)
        self.source_sha256 = _fingerprint(module, self._function)

    def fingerprint(self) -> dict[str, str]:
        """What decides its answers."""
        return {"function": self.spec, "source_sha256": self.source_sha256}

    def __call__(self, *columns: list[Any], what: str, where: str = "") -> list[Any]:
        """Its answers, one for each row of the columns.

        Args:
            what: what an answer is, for messages, as in `number`.
            where: which rows these are, for messages.

        Raises:
            RewardError: it raised, or returned something other than a list of one answer per row.
        """
        name = f"{self.setting.partition('.')[0]} {self.spec}"
        count = len(columns[0])
        where = where or f"on {count} rows"
        try:
            found: Any = self._function(*columns)
        except (Exception, SystemExit) as error:  # code of the user's: anything may come
            raise RewardError(
                f"{name} raised {type(error).__name__}: {error}, {_where(error)}, {where}: correct the function"
            ) from error
        if not isinstance(found, (list, tuple)):
            raise RewardError(
                f"{name}: expected a list of {count} {what}s, found {type(found).__name__}: "
                f"return one {what} or None per row, in a list"
            )
        if len(found) != count:
            raise RewardError(
                f"{name}: expected {count} {what}s, one per row, found {len(found)}; "
                f"the first row without its own is {min(len(found), count)}"
            )
        return list(found)

    def _import(self, name: str) -> ModuleType:
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        importlib.invalidate_caches()
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:  # importing runs code of the user's
            raise ConfigError(
                f"{self.setting} {self.spec}: `{name}` cannot be imported: {type(error).__name__}: {error}; "
                f"expected {name.replace('.', '/')}.py in {here} or an installed package"
            ) from error

    def _find(self, module: ModuleType, name: str) -> Callable[..., Any]:
        found = getattr(module, name, None)
        if callable(found):
            function: Callable[..., Any] = found
            return function
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        hint = did_you_mean(name, functions) or f"; it has {', '.join(functions) or 'no function'}"
        raise ConfigError(f"{self.setting} {self.spec}: `{module.__name__}` has no function `{name}`{hint}")


def _fingerprint(module: ModuleType, function: Callable[..., Any]) -> str:
    """A digest of the whole module, because a function is also decided by what stands beside it."""
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):  # compiled code has no source
        source = f"{module.__name__}:{getattr(function, '__qualname__', function)} {getattr(module, '__version__', '')}"
    return hashlib.sha256(source.encode()).hexdigest()


def is_text(value: Any) -> bool:
    """Whether a value that a function of the user's gave is a text that a file can hold: no half characters."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"at {frames[-1].filename} line {frames[-1].lineno}" if frames else "at an unknown place"


def import_extra(module: str, package: str, needed_by: str, extra: str | None = None) -> Any:
    """The module, imported.

    Args:
        module: its name in Python.
        package: its name for pip.
        needed_by: the setting that needs it, for the message.
        extra: hir's extra that brings it; None where it is named as the package is.

    Raises:
        ConfigError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise ConfigError(
                f"{needed_by}: `{module}` cannot be imported: {error}: pip install {error.name}"
            ) from None
        raise ConfigError(
            f"{needed_by} needs the package `{package}`, which is not installed: pip install {package} (hir's extra "
            f"`{extra or package}` brings the release that was tried)"
        ) from None
    except ImportError as error:
        raise ConfigError(f"{needed_by}: `{module}` cannot be imported: {error}: reinstall {package}") from error
