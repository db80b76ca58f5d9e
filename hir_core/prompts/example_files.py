"""Benchmark files that hold `examples` in one JSON object, and what every prompt made from one keeps: its canary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hir_core.errors import ConfigError


def read_examples(path: Path, shape: str) -> dict[str, Any]:
    """The object in a benchmark's file, its `examples` a list.

    Args:
        path: the file.
        shape: what it should hold, for messages.

    Raises:
        ConfigError: the file is missing or has another shape.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ConfigError(f"prompts: no such file {path} (looked in {Path.cwd()})") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"prompts: {path} is not JSON: {error}") from None
    if not isinstance(data, dict) or not isinstance(data.get("examples"), list):
        raise ConfigError(f"prompts: {path}: expected {shape}")
    return data


def canary(data: dict[str, Any]) -> dict[str, Any]:
    """The mark by which a benchmark can be recognised wherever its items go; nothing where the file has none."""
    return {"canary": data["canary"]} if "canary" in data else {}
