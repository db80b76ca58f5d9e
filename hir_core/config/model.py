"""Where the model comes from: a hub name or folder, a GGUF file, or nothing at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag, model_validator

from hir_core.config.section import Section, tagged


class HubModel(Section):
    """A pretrained model by hub name, or a folder that `transformers` can load."""

    type: Literal["hub"] = "hub"
    source: str
    """`owner/name` on the hub, or a folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    template: str | None = None
    """How instruction and query become one text: a format string with `{instruction}` and `{query}`, and `{history}`
    for the turns before the query, as lines like `User: …`; or `chat` for the tokenizer's own chat template. Left out:
    `chat` where the tokenizer has one, else all of them on lines of their own."""


class GgufModel(Section):
    """A pretrained model in a GGUF file, loaded dense; the file may lie inside an installed Python package."""

    type: Literal["gguf"] = "gguf"
    path: Path
    """The file; relative to the package where one is named."""
    package: str | None = None
    """An installed package that holds the file."""
    template: str | None = None
    """As for a hub model."""


class ScratchModel(Section):
    """A small model made from nothing, its tokenizer fitted to the prompts: for laptops, demos and tests."""

    type: Literal["scratch"]
    architecture: Literal["llama", "t5"] = "llama"
    hidden_size: int = Field(128, ge=8)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    intermediate_size: int = Field(512, ge=8)
    vocab_size: int = Field(512, ge=300)
    """At most this many tokens; byte-level, so every text can be written."""
    context: int = Field(256, ge=16)
    """Tokens that a sequence may have."""
    template: str | None = None
    """As for a hub model."""

    @model_validator(mode="after")
    def _heads_divide(self) -> ScratchModel:
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} cannot be shared by {self.heads} heads: make it a multiple"
            )
        return self


ModelConfig = Annotated[
    Annotated[HubModel, Tag("hub")] | Annotated[GgufModel, Tag("gguf")] | Annotated[ScratchModel, Tag("scratch")],
    tagged("hub"),
]
