"""The optimizer's state beside a model: fp32 master weights and AdamW's moments, saved and taken over by a training.

Writes and reads `optimizer-*.safetensors`. A tensor there is that of a whole parameter that is trained, in its shape
and in fp32, under `master.<name>`, `exp_avg.<name>` or `exp_avg_sq.<name>`; the number of AdamW's steps is in the
files' metadata. So any ZeRO stage on any number of ranks reads what any other wrote. Shards are written by `shards`;
which states are kept, and for how long, is left to the driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch import distributed as dist

from hir_core.config.model_folder import OPTIMIZER_STATE
from hir_core.errors import StoreError
from hir_core.modeling import zero
from hir_core.modeling.shards import SHARD_BYTES, write_shards

PREFIX = "optimizer"
MASTER, MOMENTS = "master", ("exp_avg", "exp_avg_sq")
STEPS = "steps"
"""Key of the number of AdamW's steps: in a file's metadata."""


class Fragment(NamedTuple):
    """The values of a parameter that this rank's optimizer works on: a range of the flattened parameter."""

    owner: Tensor
    """The fp32 tensor that AdamW steps on, of one parameter or of many; the key of its moments."""
    offset: int
    """Place of the first value in the flattened owner."""
    start: int
    """Place of the first value in the flattened parameter."""
    size: int

    def of(self, tensor: Tensor) -> Tensor:
        """The values in the owner, or in a tensor of its size, as a view."""
        return tensor.detach().view(-1).narrow(0, self.offset, self.size)


def save(
    engine: Any,
    model: nn.Module,
    folder: Path,
    *,
    moments: bool,
    masters_of_fp32: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> int:
    """Writes the state of a DeepSpeed engine that has trained; returns its bytes. All ranks must call it together.

    Args:
        model: the model inside the engine's module; its parameters' names are those of the tensors.
        moments: whether to write AdamW's moments, and not the master weights only.
        masters_of_fp32: whether to write the master weights of a model in fp32 too, which are the weights themselves.

    Raises:
        StoreError: a shard cannot be written.
    """
    trained = trained_parameters(model)
    has_masters = masters_of_fp32 or any(parameter.dtype != torch.float32 for parameter in trained.values())
    kinds = ((MASTER,) if has_masters else ()) + (MOMENTS if moments else ())
    fragments = _fragments(engine.optimizer, model)
    state = _adamw(engine.optimizer).state
    steps = max((int(own["step"].item()) for own in state.values()), default=0)
    sizes = {f"{kind}.{name}": 4 * _shape(p).numel() for name, p in trained.items() for kind in kinds}
    tensors = _whole_tensors(trained, fragments, state, kinds)
    # One key only: safetensors writes several in any order, and equal states would be different files.
    write_shards(tensors, sizes, folder, PREFIX, shard_bytes, {STEPS: str(steps)})
    return sum(sizes.values())


def restore(engine: Any, model: nn.Module, folder: Path) -> None:
    """Gives an engine that has not stepped yet the state in a folder; each rank reads what it holds of it.

    Where the folder holds no moments, AdamW begins with none.

    Raises:
        StoreError: the state is not one of this model.
    """
    fragments = _fragments(engine.optimizer, model)
    shapes = {name: _shape(parameter) for name, parameter in trained_parameters(model).items()}
    missing: dict[str, set[str]] = {}
    for path in _files(folder):
        with safe_open(path, framework="pt") as file:
            steps = float((file.metadata() or {}).get(STEPS, 0))
            for key in file.keys():  # noqa: SIM118 - not a dict
                kind, _, name = key.partition(".")
                if kind not in (MASTER, *MOMENTS) or torch.Size(file.get_slice(key).get_shape()) != shapes.get(name):
                    raise StoreError(f"{path}: `{key}` does not fit the model beside it: copy the model's folder again")
                missing.setdefault(kind, set(shapes)).discard(name)
                if (fragment := fragments[name]) is not None:
                    target = fragment.owner if kind == MASTER else _moments(engine.optimizer, fragment, steps)[kind]
                    fragment.of(target).copy_(_read(file, key, fragment))
    if lacking := sorted(f"{kind}.{name}" for kind, names in missing.items() for name in names):
        raise StoreError(
            f"{folder}: the optimizer's state lacks {', '.join(lacking[:4])}: copy the model's folder again"
        )


def set_weights(model: nn.Module, folder: Path) -> None:
    """Gives a model the weights of which the folder holds the masters, in the model's own number format.

    All ranks must call it together, after `restore`, which changes the masters alone.
    """
    masters: dict[str, Path] = {}
    for path in _files(folder):
        with safe_open(path, framework="pt") as file:
            masters |= dict.fromkeys(file.keys(), path)
    for name, parameter in trained_parameters(model).items():
        key = f"{MASTER}.{name}"

        def read(key: str = key) -> Tensor:
            with safe_open(masters[key], framework="pt") as file:
                return torch.as_tensor(file.get_tensor(key))

        zero.set_weight(parameter, read)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if OPTIMIZER_STATE.fullmatch(path.name))


def _read(file: Any, key: str, fragment: Fragment) -> Tensor:
    """A fragment's values from a file: no more than the rows in which they lie is read."""
    shape = torch.Size(file.get_slice(key).get_shape())
    if not shape:
        return torch.as_tensor(file.get_tensor(key)).view(-1)[: fragment.size]
    row = shape[1:].numel()
    first, end = fragment.start // row, -(-(fragment.start + fragment.size) // row)
    rows: Tensor = file.get_slice(key)[first:end]
    return rows.reshape(-1).narrow(0, fragment.start - first * row, fragment.size)


def _moments(optimizer: Any, fragment: Fragment, steps: float) -> dict[str, Tensor]:
    """AdamW's state for the owner of a fragment after so many steps, made as AdamW makes it before its first step."""
    owner, state = fragment.owner, _adamw(optimizer).state
    if owner not in state:
        # A fused AdamW wants the count where the values are.
        state[owner] = {"step": torch.zeros((), dtype=torch.float32, device=owner.device)}
        state[owner] |= {kind: torch.zeros_like(owner, memory_format=torch.preserve_format) for kind in MOMENTS}
    own: dict[str, Tensor] = state[owner]
    own["step"].fill_(steps)
    return own


def _whole_tensors(
    trained: Mapping[str, nn.Parameter], fragments: dict[str, Fragment | None], state: Any, kinds: Sequence[str]
) -> Iterator[tuple[str, Tensor]]:
    """Name and whole tensor of each kind of every parameter, one at a time; all ranks must iterate together."""
    for name, parameter in trained.items():
        shape, fragment = _shape(parameter), fragments[name]
        # Of integers, because the sum of -0.0 and 0.0 is 0.0.
        for kind in kinds:
            whole = torch.zeros(shape.numel(), dtype=torch.int32, device=parameter.device)
            if fragment is not None:
                values = fragment.of(fragment.owner if kind == MASTER else state[fragment.owner][kind])
                whole[fragment.start : fragment.start + fragment.size] = values.float().view(torch.int32)
            if _is_divided(parameter):
                dist.all_reduce(whole)
            yield f"{kind}.{name}", whole.view(torch.float32).view(shape)


# --- where DeepSpeed keeps the state ---------------------------------------------------------------------------------


def _fragments(optimizer: Any, model: nn.Module) -> dict[str, Fragment | None]:
    """What this rank's optimizer works on of every parameter; None of a parameter that is with other ranks."""
    pairs = zip(getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", []), strict=False)
    masters = {weight: master for weights, own in pairs for weight, master in zip(weights, own, strict=True)}
    return {name: _fragment(optimizer, p, masters.get(p, p)) for name, p in trained_parameters(model).items()}


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a training changes, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _fragment(optimizer: Any, parameter: Any, owner: Tensor) -> Fragment | None:
    """What this rank's optimizer works on of a parameter.

    Args:
        owner: of a parameter that is not divided: its master, or in fp32 the parameter itself.
    """
    if hasattr(parameter, "ds_id"):  # ZeRO-3: each rank has an equal share of every parameter, the last one padded
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = dist.get_rank() * size
        count = max(0, min(size, parameter.ds_numel - start))
        return Fragment(optimizer.fp32_partitioned_groups_flat[group], offset, start, count) if count else None
    if not _is_divided(parameter):
        return Fragment(owner, 0, 0, owner.numel())
    mapping = parameter._hp_mapping  # ZeRO-1 and 2: all parameters one after another, cut into equal shares
    if mapping is None:
        return None
    own, place = mapping.hp_fragment_address, mapping.lp_fragment_address
    flat = _adamw(optimizer).param_groups[mapping.param_group_index]["params"][0]
    return Fragment(flat, own.start, place.start, own.numel)


def _is_divided(parameter: nn.Parameter) -> bool:
    """Whether the optimizer's state of a parameter is divided among the ranks."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _adamw(optimizer: Any) -> Any:
    """The AdamW that DeepSpeed's optimizer steps; without ZeRO in fp32 there is no other."""
    return getattr(optimizer, "optimizer", optimizer)


def _shape(parameter: Any) -> torch.Size:
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))
