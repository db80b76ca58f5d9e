"""Imports by name at run time: functions of the user's, named `module:function`, and packages of hir's extras.

Serves the types `python` of rewards and relabelers, and every part that needs an extra. An error in a user's function
is a ConfigError where it is imported and a RewardError where it is called, with its place in the user's code. Reads the
source of a function's module, whose digest is part of version ids. What the values mean is left to the callers.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hir_core.errors import ConfigError, RewardError, did_you_mean


class UserFunction:
    """A function of the user's, imported.

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
        self.source_sha256 = _source_digest(module, self._function)

    def fingerprint(self) -> dict[str, str]:
        """What decides the values that it returns."""
        return {"function": self.spec, "source_sha256": self.source_sha256}

    def __call__(self, *columns: list[Any], what: str, where: str = "") -> list[Any]:
        """The values that it returns, one for each row of the columns.

        Args:
            what: what a value is, for messages, as in `number`.
            where: which rows these are, for messages.

        Raises:
            RewardError: it raised, or returned something other than a list of one value per row.
        """
        name = f"{self.setting.partition('.')[0]} {self.spec}"
        count = len(columns[0])
        try:
            values: Any = self._function(*columns)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            frames = traceback.extract_tb(error.__traceback__)
            place = f"at {frames[-1].filename} line {frames[-1].lineno}" if frames else "at an unknown place"
            raise RewardError(
                f"{name} raised {type(error).__name__}: {error}, {place}, {where or f'on {count} rows'}: "
                "correct the function"
            ) from error
        if not isinstance(values, (list, tuple)):
            raise RewardError(
                f"{name}: expected a list of {count} {what}s, found {type(values).__name__}: "
                f"return one {what} or None per row, in a list"
            )
        if len(values) != count:
            raise RewardError(
                f"{name}: expected {count} {what}s, one per row, found {len(values)}; "
                f"the first row without its own is {min(len(values), count)}"
            )
        return list(values)

    def _import(self, module_name: str) -> ModuleType:
        folder = str(Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            return importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # importing runs the user's code
            raise ConfigError(
                f"{self.setting} {self.spec}: `{module_name}` cannot be imported: {type(error).__name__}: {error}; "
                f"expected {module_name.replace('.', '/')}.py in {folder} or an installed package"
            ) from error

    def _find(self, module: ModuleType, function_name: str) -> Callable[..., Any]:
        value = getattr(module, function_name, None)
        if callable(value):
            function: Callable[..., Any] = value
            return function
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        hint = did_you_mean(function_name, functions) or f"; it has {', '.join(functions) or 'no function'}"
        raise ConfigError(f"{self.setting} {self.spec}: `{module.__name__}` has no function `{function_name}`{hint}")


def _source_digest(module: ModuleType, function: Callable[..., Any]) -> str:
    """A digest of the whole module, because the function may use anything in it."""
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):  # compiled code has no source
        source = f"{module.__name__}:{getattr(function, '__qualname__', function)} {getattr(module, '__version__', '')}"
    return hashlib.sha256(source.encode()).hexdigest()


def is_text(value: Any) -> bool:
    """Whether a value from a user's function is a text that can be written to a file: one without lone surrogates."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def import_extra(module: str, package: str, needed_by: str, extra: str | None = None) -> Any:
    """An imported module of one of hir's extras.

    Args:
        module: its name in Python.
        package: its name for pip.
        needed_by: the setting that needs it, for messages.
        extra: hir's extra that installs it; None where it has the name of the package.

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
        raise _missing(package, needed_by, extra) from None
    except ImportError as error:
        raise ConfigError(f"{needed_by}: `{module}` cannot be imported: {error}: reinstall {package}") from error


def check_extra(module: str, package: str, needed_by: str, extra: str | None = None) -> None:
    """Checks that a module of one of hir's extras is there, without importing it; arguments as for `import_extra`.

    Raises:
        ConfigError: it is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(package, needed_by, extra)


def _missing(package: str, needed_by: str, extra: str | None) -> ConfigError:
    return ConfigError(
        f"{needed_by} needs the package `{package}`, which is not installed: pip install {package} (hir's extra "
        f"`{extra or package}` installs the release that hir was tested with)"
    )
