"""What a model's tokenizer makes of prompts and references, for `hir check`: their lengths, and examples with marks.

Runs in a process of `time_limit`, because it imports torch. Reads the tokenizer and the config of the model, never its
weights, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter

from hir_core.config.model import ModelConfig
from hir_core.errors import ConfigError
from hir_core.modeling.models import load_tokenizer_and_shape
from hir_core.modeling.rendering import SafeTokenizer, renderer_of

Asked = dict[str, Any]
"""A prompt: `prompt_id`, `query`, `history`, `references`, and whether to return its text, `is_shown`."""


def make_counter(settings: dict[str, Any]) -> Callable[[list[Asked] | None], Any]:
    """The function that counts the tokens of some prompts; of None it returns the model's context in tokens.

    For each prompt it returns `prompt_tokens`, `reference_tokens` (of the longest reference, its end included; None
    without references), `problem` (why the prompt cannot be rendered, or empty), and `text` (pieces of the rendered
    prompt, each with whether it is of control tokens; None where it was not asked for).

    Args:
        settings: `model`, the config's section; `texts`, what a scratch model's tokenizer is fitted to; `instruction`.
    """
    spec: Any = TypeAdapter[Any](ModelConfig).validate_python(settings["model"])
    tokenizer, is_encoder_decoder, context = load_tokenizer_and_shape(spec, settings["texts"])
    renderer = renderer_of(spec, tokenizer, ends_prompt=is_encoder_decoder)
    control_ids = SafeTokenizer(tokenizer).control_ids

    def tokens_of(prompt: Asked) -> dict[str, Any]:
        references = [len(renderer.target_ids(reference)) for reference in prompt["references"]]
        longest, of = max(references, default=None), f"prompt {prompt['prompt_id']}"
        try:
            ids = renderer.prompt_ids(settings["instruction"], prompt["query"], prompt["history"], of=of)
        except ConfigError as error:
            return {"prompt_tokens": None, "reference_tokens": longest, "problem": str(error), "text": None}
        text = None
        if prompt["is_shown"]:
            pieces = groupby(ids, control_ids.__contains__)
            text = [[tokenizer.decode(list(piece)), is_control] for is_control, piece in pieces]
        return {"prompt_tokens": len(ids), "reference_tokens": longest, "problem": "", "text": text}

    def count(prompts: list[Asked] | None) -> Any:
        return context if prompts is None else [tokens_of(prompt) for prompt in prompts]

    return count
