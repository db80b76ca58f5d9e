"""The sides of the case `head` compute the same loss and the same gradients."""

import pytest
import torch

from tests.benchmarks.head import loss_of_hir, loss_of_transformers, make_batch, make_model


@pytest.mark.parametrize("chunk", [5, 16])
def test_the_sides_compute_the_same(chunk):
    model, batch = make_model(300, 16), make_batch(300, 2, 8)
    losses, gradients = [], []
    for loss_of in (lambda: loss_of_hir(model, batch, chunk), lambda: loss_of_transformers(model, batch)):
        loss = loss_of()
        loss.backward()
        losses.append(loss.detach())
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
        model.zero_grad()
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)
