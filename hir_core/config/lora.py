"""The section `lora`: training of a LoRA adapter beside frozen weights, in place of the weights themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hir_core.config.section import Section


class LoraConfig(Section):
    """The low-rank adapter that is trained while the weights of the model stay as they are (Hu et al. 2021, arXiv
    2106.09685). Of a layer with weights W it computes W x + (alpha / rank) B A x, and A and B alone are trained: the
    optimizer needs memory for these only, and a model version is a few MB. Needs the extra `lora`, which is `peft`.
    It is for pretrained models, and needs a larger learning rate than training of all weights. What a warm start trains
    is merged into the first model, and the first iteration begins a new adapter. There is no dropout: training would
    see other log-probabilities than sampling."""

    rank: int = Field(16, ge=1)
    """Rows of A and columns of B (peft's `r`). More can learn more, and take more memory."""
    alpha: int = Field(32, ge=1)
    """Scale of the adapter (peft's `lora_alpha`), which is divided by `rank`."""
    target_modules: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """The layers that get an adapter: `all-linear`, which leaves out only the output head, or a list of the ends of
    their names, such as `[q_proj, v_proj]`."""
