"""Chat templates, rendered in a process of their own: a template is a program, and whoever made the model wrote it.

The sandbox of jinja2 keeps a template from reaching out, but not from running for ever or filling the memory. Renders
with the function of `transformers`, under limits of time, memory and length. What the turns are is up to `rendering`.
"""

from __future__ import annotations

import atexit
import functools
import resource
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hir_core.errors import ConfigError
from hir_core.time_limit import TIMED_OUT, LimitedProcess, Work

RENDER_S = 10.0
"""Seconds that one rendering may take; ordinary ones take milliseconds."""
RENDER_BYTES = 1024**3
"""Memory that one rendering may take."""
MOST_CHARACTERS = 1_000_000
"""Longest text of a rendering, in which a few characters stand for each turn."""
MOST_OF_A_REFUSAL = 300
"""Characters that are shown of what a template raises."""


def render(
    tokenizer: Any,
    turns: Sequence[Mapping[str, str]],
    *,
    add_generation_prompt: bool,
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """The text that a tokenizer's chat template makes of the turns, as `apply_chat_template` makes it.

    Args:
        kwargs: values of further variables that the template reads, as JSON values.

    Raises:
        ConfigError: the template refuses the turns, takes too long, needs too much memory, or writes too much.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:  # there are several, and none is the default
        raise ConfigError(_one_line(error)) from None
    values = {**tokenizer.special_tokens_map, **kwargs, "add_generation_prompt": add_generation_prompt}
    row = {"chat_template": template, "turns": list(map(dict, turns)), "values": values}
    result = _process().process(row, RENDER_S)
    if result.problem:
        _process().end(0)
        _process.cache_clear()
        raise ConfigError(f"it took longer than {RENDER_S:g} s" if result.problem == TIMED_OUT else "it crashed")
    if "refusal" in result.value:
        raise ConfigError(result.value["refusal"])
    return str(result.value["text"])


@functools.cache
def _process() -> LimitedProcess:
    """The process that renders: one for all templates, because it takes a second to start; it ends with this one."""
    process = LimitedProcess(Work(f"{__name__}:renderer"))
    atexit.register(process.end, 0)
    return process


def renderer(_: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, str]]:
    """The work of the process: renders a row of `render`, or says why it cannot be rendered."""
    from transformers.utils.chat_template_utils import render_jinja_template

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + RENDER_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def rendered(row: dict[str, Any]) -> dict[str, str]:
        try:
            texts, _ = render_jinja_template([row["turns"]], chat_template=row["chat_template"], **row["values"])
        except MemoryError:
            return {"refusal": f"it took more than {RENDER_BYTES / 1e9:.1f} GB of memory"}
        except Exception as error:  # noqa: BLE001 - a template is a program, which can raise anything
            return {"refusal": _one_line(error)}
        if len(texts[0]) > MOST_CHARACTERS:
            return {"refusal": f"it wrote {len(texts[0]):,} characters, more than {MOST_CHARACTERS:,}"}
        return {"text": texts[0]}

    return rendered


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:MOST_OF_A_REFUSAL] or type(error).__name__
