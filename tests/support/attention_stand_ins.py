"""Attention that needs a GPU, computed on the CPU: transformers' own way to its kernels is real, the kernels are not.

`flash_attention_2` gets functions with the arguments of the package flash-attn. `flex_attention` is torch's, not
compiled, and its check that there is no gradient on CPUs is left out: only its compiled form has none.
"""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention
from transformers import masking_utils, modeling_flash_attention_utils
from transformers.integrations import flex_attention as of_transformers


def attend_within_sequences(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """`flash_attn_varlen_func`: states [tokens, heads, head size] of sequences that begin at `cu_seqlens`."""
    assert cu_seqlens_q.tolist() == cu_seqlens_k.tolist()
    starts = cu_seqlens_q.tolist()
    assert starts[0] == 0
    assert starts[-1] == len(q)
    assert max_seqlen_q == max(end - start for start, end in itertools.pairwise(starts))
    parts = [
        attend(*(states[None, start:end] for states in (q, k, v)), softmax_scale=softmax_scale, causal=causal)[0]
        for start, end in itertools.pairwise(starts)
    ]
    return torch.cat(parts)


def attend(
    q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float | None = None, causal: bool = False
) -> Tensor:
    """`flash_attn_func`: states [rows, tokens, heads, head size]."""
    states = (value.transpose(1, 2) for value in (q, k, v))
    attended = torch.nn.functional.scaled_dot_product_attention(
        *states, scale=softmax_scale, is_causal=causal, enable_gqa=True
    )
    return attended.transpose(1, 2)


def stand_in_for_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    utils = modeling_flash_attention_utils
    functions = (attend, attend_within_sequences, None, utils._pad_input, utils._unpad_input)
    process = utils._lazy_define_process_function(attend_within_sequences)
    monkeypatch.setattr(utils, "lazy_import_flash_attention", lambda *_, **__: (functions, (process, dict)))


def stand_in_for_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_compiled(*states: Tensor, training: bool = False, **options: Any) -> Any:
        return flex_attention.flex_attention(*states, **options)

    def mask_not_compiled(*arguments: Any, **options: Any) -> Any:
        return flex_attention.create_block_mask(*arguments, **options | {"_compile": False})

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex_attention, "_warn_once", lambda *_, **__: None)  # that it is slow
    monkeypatch.setattr(of_transformers, "compile_friendly_flex_attention", not_compiled)
    monkeypatch.setattr(masking_utils, "create_block_mask", mask_not_compiled)


STAND_INS = {"flash_attention_2": stand_in_for_flash, "flex_attention": stand_in_for_flex}
