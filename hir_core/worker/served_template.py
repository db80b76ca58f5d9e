"""The chat template with which any server asks a model as its run did, for `hir export --with-instruction`.

It puts the instruction before the last turn of the user, and gives the run's chat template its values; a model that is
asked with a format string gets a template that writes the same text. Runs in a process of `time_limit`, because it
imports torch. Reads the tokenizer of a model; the file is written by `inspect.model_export`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from hir_core.config import HubModel
from hir_core.errors import ConfigError
from hir_core.modeling import chat_templates, models
from hir_core.modeling.rendering import Renderer, renderer_of

WITH_INSTRUCTION = """\
{%- set asked = namespace(turns=[]) -%}
{%- for turn in messages -%}
{%- if loop.last and turn['role'] == 'user' -%}
{%- set instruction = INSTRUCTION -%}
{%- set text = turn['content'] -%}
{%- if text is string -%}
{%- set text = instruction ~ text -%}
{%- else -%}
{%- set text = [{'type': 'text', 'text': instruction}] + text -%}
{%- endif -%}
{%- set turn = dict(turn, content=text) -%}
{%- endif -%}
{%- set asked.turns = asked.turns + [turn] -%}
{%- endfor -%}
{%- set messages = asked.turns -%}
"""
"""What stands before a run's own chat template. A turn's content is a text, or a list of parts."""
TEXT_OF = """\
{%- macro text_of(turn) -%}
{%- set text = turn['content'] -%}
{{- text if text is string else text | map(attribute='text') | join -}}
{%- endmacro -%}
"""
_PLACE = re.compile(r"(\{(?:instruction|query|history)\})")
_INSTRUCTION = re.compile(r"\{instruction\}\s*")
_TRIED = (
    [{"role": "user", "content": "What is 17 + 25?"}],
    [
        {"role": "user", "content": "What is 1 + 2?"},
        {"role": "assistant", "content": "It is 3."},
        {"role": "user", "content": "And 4 more?"},
    ],
)
"""Conversations for which the template must write what the run would have asked."""


def make_template(settings: dict[str, Any]) -> Callable[[None], str]:
    """The function that returns the template.

    Args:
        settings: `model`, a model's folder as a config's section, with what decides how its prompts are rendered;
            `instruction`, empty for none.
    """

    def template(_: None) -> str:
        spec = HubModel.model_validate(settings["model"])
        tokenizer, is_encoder_decoder, _context = models.load_tokenizer_and_shape(spec, ())
        if is_encoder_decoder:
            raise ConfigError(
                "an encoder-decoder has no chat template: use `hir chat`, or put the instruction yourself"
            )
        renderer = renderer_of(spec, tokenizer, ends_prompt=False)
        return served_template(tokenizer, renderer, settings["instruction"])

    return template


def served_template(tokenizer: Any, renderer: Renderer, instruction: str) -> str:
    """A chat template that makes of turns the text that a renderer makes of them, with the instruction.

    Raises:
        ConfigError: it makes another text of a conversation, because the run's own template does something unusual.
    """
    if renderer.template == "chat":
        values = [_default(name, value) for name, value in renderer.template_kwargs.items()]
        text = json.dumps(f"{instruction}\n\n", ensure_ascii=False)
        asked = WITH_INSTRUCTION.replace("INSTRUCTION", text) if instruction else ""
        template = "".join(values) + asked + str(tokenizer.get_chat_template())
    else:
        template = _of_format_string(tokenizer, renderer.template, instruction)
    _check(tokenizer, renderer, instruction, template)
    return template


def _default(name: str, value: Any) -> str:
    """Sets a variable of the template that the server was given no value for."""
    return f"{{%- if {name} is not defined -%}}{{%- set {name} = {_literal(value)} -%}}{{%- endif -%}}\n"


def _literal(value: Any) -> str:
    """A JSON value in jinja's notation."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_literal(key)}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def _of_format_string(tokenizer: Any, form: str, instruction: str) -> str:
    """The template that writes what a format string of `model.template` stands for."""
    places = {
        "{instruction}": "{{- " + _literal(instruction) + " -}}",
        "{query}": "{{- text_of(messages[-1]) -}}",
        "{history}": "{%- for turn in messages[:-1] -%}{{- turn['role'] | capitalize ~ ': ' ~ text_of(turn) ~ '\\n' -}}"
        "{%- endfor -%}",
    }
    form = form if instruction else _INSTRUCTION.sub("", form)
    pieces = [places.get(piece) or "{{- " + _literal(piece) + " -}}" for piece in _PLACE.split(form) if piece]
    if "{history}" not in form:
        pieces.insert(0, "{%- if messages | length > 1 -%}{{- raise_exception('it is asked one question at a time') -}}"
                         "{%- endif -%}")  # fmt: skip
    begins = list(tokenizer.encode("", add_special_tokens=True))[:1] == [tokenizer.bos_token_id]
    return TEXT_OF + ("{{- bos_token -}}" if begins else "") + "".join(pieces)


def _check(tokenizer: Any, renderer: Renderer, instruction: str, template: str) -> None:
    is_single = renderer.template != "chat" and "{history}" not in renderer.template
    tried = [turns for turns in _TRIED if len(turns) == 1 or not is_single]
    # First what the run asked: a renderer reads the template of its tokenizer.
    expected = [renderer.prompt_ids(instruction, turns[-1]["content"], turns[:-1]) for turns in tried]
    own, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        texts = [chat_templates.render(tokenizer, turns, add_generation_prompt=True) for turns in tried]
    finally:
        tokenizer.chat_template = own
    for text, ids in zip(texts, expected, strict=True):
        found = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
        if found != tokenizer.decode(ids):
            raise ConfigError(
                f"the chat template with the instruction writes {found!r}, and the run asked "
                f"{tokenizer.decode(ids)!r}: leave the instruction out, and put it before each question"
            )
