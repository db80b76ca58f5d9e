"""The section `model`: the model to train, from the Hugging Face hub, a folder, a GGUF file or built from scratch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, Tag, model_validator

from hir_core.config.section import DefaultExcludedFromId, ExcludedFromId, Section, tagged
from hir_core.thinking import Mark, outside_thinking

_TAKEN = {"messages", "conversation", "conversations", "chat_template", "add_generation_prompt", "tokenize",
          "continue_final_message", "return_assistant_tokens_mask", "return_dict", "return_tensors"}  # fmt: skip
"""Names that a template, or the function that renders it, gets from elsewhere."""


Attention = Literal["auto", "eager", "sdpa", "flex_attention", "flash_attention_2"]
"""The names that `transformers` has for implementations of attention; with `auto` it chooses."""
TRAINING_ONLY = ("flex_attention", "flash_attention_2")
"""Implementations that only train here: outputs are drawn with another one."""


class Thinking(Section):
    """The marks around the thinking of a model within its output."""

    start: str = Field("<think>", min_length=1)
    """Text at which thinking starts. Where the chat template itself ends with it, an output begins within thinking."""
    end: str = Field("</think>", min_length=1)
    """Text at which thinking ends, and the answer begins."""

    @model_validator(mode="after")
    def _marks_differ(self) -> Thinking:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start!r}: give each its own mark")
        return self

    def answer(self, output: str) -> str:
        """The output without its thinking; empty where the thinking has no end."""
        found = re.finditer(f"{re.escape(self.start)}|{re.escape(self.end)}", output)
        marks = (Mark(*mark.span(), mark[0] == self.end) for mark in found)
        return "\n".join(outside_thinking(output, marks).parts).strip()


class Rendering(NamedTuple):
    """What decides how a model's prompts are rendered, and how its outputs are read."""

    template: str | None
    chat_template_kwargs: Mapping[str, Any]
    thinking: Thinking | None

    def of_prompts(self) -> dict[str, Any]:
        """What decides the tokens of prompts, for version ids."""
        kwargs = {"chat_template_kwargs": dict(self.chat_template_kwargs)} if self.chat_template_kwargs else {}
        return {"template": self.template, **kwargs}

    def of_outputs(self) -> dict[str, Any]:
        """What decides the tokens of prompts and the text of outputs, for version ids."""
        return self.of_prompts() | ({"thinking": self.thinking.fingerprint()} if self.thinking else {})


def _json_without_taken_names(values: dict[str, Any]) -> dict[str, Any]:
    """Field validator: values that a chat template may be given."""
    if taken := sorted(values.keys() & _TAKEN):
        raise ValueError(f"`{taken[0]}` is set where the template is rendered: remove it")
    try:
        json.dumps(values, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("expected JSON values: texts, numbers, true, false, null, lists and objects") from None
    return values


ChatTemplateKwargs = Annotated[dict[str, Any], AfterValidator(_json_without_taken_names)]


class HubModel(Section):
    """A pretrained model from the Hugging Face hub, or from a folder that `transformers` can load."""

    type: Literal["hub"] = "hub"
    """Selects a model from the hub or a folder; the default type."""
    source: str
    """`owner/name` on the hub, or the path of a folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Unset: the hub's default branch."""
    template: str | None = None
    """How an instruction and a query become one prompt: a format string with `{instruction}` and `{query}`, and
    `{history}` for the earlier turns of a conversation (as lines like `User: …`); or `chat` for the tokenizer's chat
    template. Unset: `chat` where the tokenizer has a chat template, else each of them on a line of its own."""
    chat_template_kwargs: Annotated[ChatTemplateKwargs | None, DefaultExcludedFromId] = None
    """Values for the variables that the chat template reads beside the turns, as in `{enable_thinking: false}` for
    Qwen3. A variable that the template does not name is refused."""
    thinking: Annotated[Thinking | None, DefaultExcludedFromId] = None
    """The marks around the model's thinking, such as `{start: <think>, end: </think>}`, which `{}` stands for. What
    stands between them is kept in an output and trained on, and no reward sees it: the answer is what is left. An
    output that is cut off while the model thinks has an empty answer. Unset: rewards that look for an answer in a text
    pass over thinking in common marks, and all others see the whole output."""
    attention: Annotated[Attention, ExcludedFromId] = "auto"
    """Implementation of attention, by its name in transformers. `auto`: what transformers chooses, which is mostly
    `sdpa`. `flex_attention` and `flash_attention_2` train on GPUs only, without padding; outputs are then drawn with
    what `auto` chooses. `flash_attention_2` needs bf16 and the package flash-attn, and trains each output with a prompt
    of its own; with the others a prompt is computed once for several outputs. Changes results by rounding only."""


class GgufModel(Section):
    """A pretrained model in a GGUF file, which is loaded unquantised. The file may lie inside an installed package."""

    type: Literal["gguf"] = "gguf"
    """Selects a GGUF file."""
    path: Path
    """Path of the file; relative to the package's folder where `package` is set."""
    package: str | None = None
    """Name of an installed Python package that contains the file. Unset: `path` is an ordinary path."""
    template: str | None = None
    """How an instruction and a query become one prompt, as for a `hub` model. Unset: as for a `hub` model."""
    chat_template_kwargs: Annotated[ChatTemplateKwargs | None, DefaultExcludedFromId] = None
    """Values for the variables of the chat template, as for a `hub` model."""
    thinking: Annotated[Thinking | None, DefaultExcludedFromId] = None
    """The marks around the model's thinking, as for a `hub` model."""
    attention: Annotated[Attention, ExcludedFromId] = "auto"
    """Implementation of attention, as for a `hub` model."""


class ScratchModel(Section):
    """A small model with random weights and a tokenizer fitted to the prompts: for laptops, demos and tests."""

    type: Literal["scratch"]
    """Selects a model built from scratch."""
    architecture: Literal["llama", "t5"] = "llama"
    """`llama`: a decoder-only model; `t5`: an encoder-decoder model."""
    hidden_size: int = Field(128, ge=8)
    """Width of the hidden states. Must be a multiple of `heads`."""
    layers: int = Field(4, ge=1)
    """Number of transformer layers; with `t5`, of the encoder and of the decoder each."""
    heads: int = Field(4, ge=1)
    """Number of attention heads per layer."""
    intermediate_size: int = Field(512, ge=8)
    """Width of the feed-forward layers."""
    vocab_size: int = Field(512, ge=300)
    """Largest number of tokens in the vocabulary. The tokenizer is byte-level, so every text can be encoded."""
    context: int = Field(256, ge=16)
    """Longest sequence in tokens, prompt and completion together."""
    template: str | None = None
    """How an instruction and a query become one prompt, as for a `hub` model. Unset: each on a line of its own."""
    attention: Annotated[Attention, ExcludedFromId] = "auto"
    """Implementation of attention, as for a `hub` model; a `t5` takes `auto`, `eager` and `sdpa`."""

    @model_validator(mode="after")
    def _t5_is_trained_with_padding(self) -> ScratchModel:
        if self.architecture == "t5" and self.attention in TRAINING_ONLY:
            raise ValueError(f"attention: an encoder-decoder cannot be trained with {self.attention}: set it to auto")
        return self

    @model_validator(mode="after")
    def _heads_divide_the_hidden_size(self) -> ScratchModel:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared by {self.heads} heads: make it a multiple"
            )
        return self


ModelConfig = Annotated[
    Annotated[HubModel, Tag("hub")] | Annotated[GgufModel, Tag("gguf")] | Annotated[ScratchModel, Tag("scratch")],
    tagged("hub"),
]


def rendering(model: ModelConfig) -> Rendering:
    """How a model's prompts are rendered, and how its outputs are read; one from scratch has no chat template."""
    if isinstance(model, ScratchModel):
        return Rendering(model.template, {}, None)
    return Rendering(model.template, model.chat_template_kwargs or {}, model.thinking)
