"""Libraries that hir needs only for some settings: imported when a configuration asks for them."""

from __future__ import annotations

import importlib
from typing import Any

from hir_core.errors import ConfigError


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
