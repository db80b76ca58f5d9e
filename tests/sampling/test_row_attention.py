"""The attention of one new token per row: equal to that of torch, from the columns that a group of rows has."""

from types import SimpleNamespace

import pytest
import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hir_core.sampling.row_attention import TOGETHER, reads_used_columns

ROWS, HEADS, KEY_HEADS, SIZE = 2 * TOGETHER + 5, 6, 2, 8
MODULE = SimpleNamespace(num_key_value_groups=HEADS // KEY_HEADS, is_causal=True)


def states():
    """Queries, keys, values, lengths and mask of a batch whose longer rows stand first."""
    torch.manual_seed(3)
    lengths = torch.randint(1, 50, (ROWS,)).sort(descending=True).values
    columns = int(lengths.max())
    query = torch.randn(ROWS, HEADS, 1, SIZE)
    key, value = torch.randn(2, ROWS, KEY_HEADS, columns, SIZE)
    mask = torch.arange(columns, 0, -1) <= lengths[:, None]
    return query, key, value, lengths.tolist(), mask[:, None, None]


def attention(query, key, value, mask, **options):
    return ALL_ATTENTION_FUNCTIONS["sdpa"](MODULE, query, key, value, mask, **options)[0]


@pytest.mark.parametrize("scaling", [None, 0.3])
def test_it_is_the_attention_of_torch(scaling):
    query, key, value, lengths, mask = states()
    expected = attention(query, key, value, mask, scaling=scaling)
    with reads_used_columns(lengths):
        found = attention(query, key, value, mask, scaling=scaling)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)


def test_in_bf16_it_is_as_exact_as_that_of_torch():
    *exact, lengths, mask = states()
    rounded = [tensor.bfloat16() for tensor in exact]
    expected = attention(*(tensor.float() for tensor in rounded), mask)
    error = (attention(*rounded, mask).float() - expected).abs().mean()
    with reads_used_columns(lengths):
        found = attention(*rounded, mask)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().mean() < 1.2 * error


def test_columns_that_a_group_does_not_have_are_not_read():
    query, key, value, lengths, mask = states()
    expected = attention(query, key, value, mask)
    unused = slice(0, key.shape[2] - lengths[-5])  # of the last group
    key[-5:, :, unused] = value[-5:, :, unused] = torch.nan
    with reads_used_columns(lengths):
        assert torch.allclose(attention(query, key, value, mask), expected, atol=1e-6)


def test_rows_without_a_mask():
    query, key, value, *_ = states()
    with reads_used_columns([key.shape[2]] * ROWS):
        found = attention(query, key, value, None)
    assert torch.allclose(found, attention(query, key, value, None), atol=1e-6)


@pytest.mark.parametrize("tokens", [1, 3])
def test_what_it_does_not_compute_is_left_to_torch(tokens):
    query, key, value, lengths, _ = states()
    query = query.expand(ROWS, HEADS, tokens, SIZE)
    bias = torch.randn(1, HEADS, tokens, key.shape[2])
    options = {"position_bias": bias, "is_causal": False}
    expected = attention(query, key, value, None, **options)
    with reads_used_columns(lengths):
        assert torch.equal(attention(query, key, value, None, **options), expected)


def test_afterwards_models_attend_as_before_even_after_an_error():
    standard = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def fail():
        with reads_used_columns([1]):
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is not standard
            raise ValueError("in between")

    with pytest.raises(ValueError, match="in between"):
        fail()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is standard
