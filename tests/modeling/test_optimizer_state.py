"""How the optimizer's state is divided among ranks, by brute force; whole trainings are compared in `test_zero`."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import distributed as dist

from hir_core.errors import StoreError
from hir_core.modeling import optimizer_state


@pytest.fixture(scope="module")
def tensors(tmp_path_factory) -> tuple[Path, dict[str, torch.Tensor]]:
    """Tensors of several shapes, with other values at every place."""
    shapes = [(7,), (1,), (5, 3), (3, 4, 2), (1, 9), ()]
    values = {
        f"master.{n}": torch.arange(torch.Size(shape).numel()).float().view(shape) for n, shape in enumerate(shapes)
    }
    path = tmp_path_factory.mktemp("state") / "optimizer-00001-of-00001.safetensors"
    save_file(values, path, metadata={"steps": "3"})
    return path, values


@pytest.mark.parametrize("ranks", [1, 2, 3, 5, 8])
def test_the_parts_that_ranks_read_are_together_the_whole(tensors, ranks):
    path, values = tensors
    with safe_open(path, framework="pt") as file:
        for key, value in values.items():
            size = -(-value.numel() // ranks)
            for start in range(0, value.numel(), size):
                count = min(size, value.numel() - start)
                part = optimizer_state._read(file, key, optimizer_state.Fragment(value, 0, start, count))
                assert part.tolist() == value.flatten()[start : start + count].tolist()


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_under_zero_3_each_value_is_with_one_rank_and_the_padding_with_none(ranks, monkeypatch):
    """A parameter of 15 values, after another one of 4 in every rank's tensor."""
    size = -(-15 // ranks)
    parameter, owner = SimpleNamespace(ds_id=0, ds_numel=15), torch.zeros(4 + size)
    held: list[int] = []
    for rank in range(ranks):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        optimizer = SimpleNamespace(
            grad_position={0: (1, 4, size)}, get_param_id=lambda _: 0, fp32_partitioned_groups_flat=[None, owner]
        )
        fragment = optimizer_state._fragment(optimizer, parameter, owner)
        if fragment is not None:
            assert fragment.of(owner).data_ptr() == owner[4:].data_ptr()
            held += range(fragment.start, fragment.start + fragment.size)
    assert held == list(range(15))


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"master.weight": torch.zeros(2, 3)}, r"lacks master\.bias"),
        ({"master.weight": torch.zeros(3, 2), "master.bias": torch.zeros(2)}, r"`master\.weight` does not fit"),
        ({"master.other": torch.zeros(2)}, r"`master\.other` does not fit"),
        ({"momentum.bias": torch.zeros(2)}, r"`momentum\.bias` does not fit"),
    ],
)
def test_the_state_of_another_model_is_refused(state, problem, tmp_path):
    model = torch.nn.Linear(3, 2)
    engine = SimpleNamespace(optimizer=torch.optim.AdamW(model.parameters()))
    save_file(state, tmp_path / "optimizer-00001-of-00001.safetensors")
    with pytest.raises(StoreError, match=problem):
        optimizer_state.restore(engine, model, tmp_path)


def test_adamw_goes_on_from_saved_moments_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    """In fp32 without ZeRO, where the parameters are their own masters."""
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    monkeypatch.setattr(dist, "get_world_size", lambda: 1)
    inputs = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def train(model: torch.nn.Module, adamw: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            adamw.zero_grad()
            model(inputs).square().sum().backward()
            adamw.step()

    def new(weights: dict[str, torch.Tensor]) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        model = torch.nn.Linear(3, 2)
        model.load_state_dict(weights)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    start = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    whole, adamw = new(start)
    train(whole, adamw, 5)
    first, adamw = new(start)
    train(first, adamw, 3)
    size = optimizer_state.save(SimpleNamespace(optimizer=adamw), first, tmp_path, moments=True)
    assert size == 2 * 4 * (6 + 2)
    second, adamw = new(first.state_dict())
    optimizer_state.restore(SimpleNamespace(optimizer=adamw), second, tmp_path)
    train(second, adamw, 2)
    assert all(torch.equal(second.state_dict()[name], value) for name, value in whole.state_dict().items())
