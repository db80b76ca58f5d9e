"""LoRA adapters: small trained matrices beside the frozen weights of a model's linear layers, made by `peft`.

An adapter is added to a model in place, so the model is called, trained and sampled from as it is without one. Reads
and writes adapters in peft's own format, `adapter_config.json` and `adapter_model.safetensors`. Weights that are
partitioned over ranks are gathered by `zero`. Imports peft only where there is an adapter. Raises ConfigError and
StoreError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hir_core.config import LoraConfig
from hir_core.config.model_folder import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from hir_core.errors import ConfigError, StoreError
from hir_core.launch.job_spec import Adapter
from hir_core.store.files import write_json

NAME = "default"
"""peft's name of the only adapter of a model."""
_TRAINED, _FROZEN = (f".lora_A.{NAME}.", f".lora_B.{NAME}."), ".base_layer."
"""What peft puts into the names of an adapter's matrices, and of the layer beside which they are."""


def add(model: Any, adapter: Adapter, seed: int) -> None:
    """Freezes a model's weights and adds an adapter: a new one, which changes no output yet, or a saved one.

    Args:
        seed: for the weights of a new adapter; equal seeds give equal weights on every rank.

    Raises:
        ConfigError: the model has no such layers, or layers of a kind that can have no adapter.
        StoreError: the saved adapter is not one of this model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _inject(model, adapter.lora)
    if adapter.folder is not None:
        _read(model, adapter.folder)


def _inject(model: Any, lora: LoraConfig) -> None:
    import peft

    names = lora.target_modules
    if not isinstance(names, str):
        _check_targets(model, names)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=names if isinstance(names, str) else list(names),
        task_type="SEQ_2_SEQ_LM" if model.config.is_encoder_decoder else "CAUSAL_LM",
    )
    peft.inject_adapter_in_model(config, model, NAME)


def _check_targets(model: Any, names: tuple[str, ...]) -> None:
    """Raises ConfigError where a name is of no layer, or of one that can have no adapter."""
    head = model.get_output_embeddings()
    for target in names:
        found = {name: module for name, module in model.named_modules() if f".{name}".endswith(f".{target}")}
        if not found:
            linear = {n.rpartition(".")[2] for n, m in model.named_modules() if _is_linear(m) and m is not head}
            raise ConfigError(
                f"lora.target_modules: the model has no `{target}`: choose from {', '.join(sorted(linear))}"
            )
        if wrong := [name for name, module in found.items() if not _is_linear(module) or module is head]:
            raise ConfigError(
                f"lora.target_modules: `{wrong[0]}` is no linear layer before the output head: leave it out"
            )


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


def add_equal(model: Any, copy: Any) -> None:
    """Adds the matrices of a model's adapter, if it has one, to a copy of the model without weights."""
    if is_adapted(model):
        import peft

        peft.inject_adapter_in_model(model.peft_config[NAME], copy, NAME, low_cpu_mem_usage=True)


def is_adapted(model: Any) -> bool:
    """Whether a model has an adapter."""
    return hasattr(model, "peft_config")


def layers(model: nn.Module) -> Iterator[Any]:
    """The layers of a model that have an adapter, as peft's `LoraLayer`."""
    return (module for module in model.modules() if hasattr(module, "lora_A"))


def product(layer: Any) -> Tensor:
    """What the adapter of a layer adds to its weights, in their shape and in fp32: (alpha / rank) B A."""
    a, b = layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    added: Tensor = layer.scaling[NAME] * (b.float() @ a.float())
    return added.T if layer.fan_in_fan_out else added


def adapter_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's tensors that are its adapter's, by their names in peft's files."""
    own = {name: tensor for name, tensor in tensors.items() if any(part in name for part in _TRAINED)}
    return {f"base_model.model.{name.replace(f'.{NAME}.', '.')}": tensor for name, tensor in own.items()}


def base_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a model's tensors that it has without its adapter, by their names there."""
    own = {name: tensor for name, tensor in tensors.items() if not any(part in name for part in _TRAINED)}
    return {name.replace(_FROZEN, "."): tensor for name, tensor in own.items()}


def parameter_count(model: nn.Module) -> int:
    """Parameters of a model without its adapter, over however many ranks they are partitioned."""
    own = base_tensors(dict(model.named_parameters()))
    return sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in own.values())


def write_config(model: Any, base: str, path: Path) -> None:
    """Writes peft's `adapter_config.json`.

    Args:
        base: where the model without the adapter is; a path is relative to the adapter's folder, so that equal
            adapters are equal files wherever they lie.
    """
    config = model.peft_config[NAME].to_dict() | {"base_model_name_or_path": base, "inference_mode": True}
    plain = {name: sorted(value) if isinstance(value, set) else value for name, value in config.items()}
    write_json(path / ADAPTER_CONFIG, plain)


def _read(model: Any, folder: Path) -> None:
    """Gives a model's adapter, whose matrices are not partitioned yet, the values in a folder."""
    path, own = folder / ADAPTER_WEIGHTS, adapter_tensors(dict(model.named_parameters()))
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict
            expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
            if found != expected:
                name = next(name for name in sorted({**found, **expected}) if found.get(name) != expected.get(name))
                raise StoreError(
                    f"{path} does not fit the model that it is an adapter of: `{name}` has the shape "
                    f"{found.get(name, 'of nothing')}, expected {expected.get(name, 'nothing')}"
                )
            for name, tensor in own.items():
                tensor.copy_(file.get_tensor(name))
    except (OSError, SafetensorError) as error:
        raise StoreError(f"cannot read the adapter {path}: {error}") from None
