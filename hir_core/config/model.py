"""The section `model`: the model to train, from the Hugging Face hub, a folder, a GGUF file or built from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from hir_core.config.section import Section, tagged


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
