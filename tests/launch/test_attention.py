"""An attention that cannot be used where the ranks run is told before a launch, with what to do."""

import importlib.metadata

import pytest

from hir_core.config import RunConfig, ScratchModel
from hir_core.errors import ConfigError
from hir_core.inspect.doctor import check_needs
from hir_core.launch.attention import check_attention
from hir_core.launch.devices import Devices, Place

CPU, GPU = Devices((), 2), Devices(("0",), 2)


def model(attention: str) -> ScratchModel:
    return ScratchModel(type="scratch", attention=attention)


def with_flash_attn(release: str | None, monkeypatch) -> None:
    def version(name: str) -> str:
        if release is None or name != "flash-attn":
            raise importlib.metadata.PackageNotFoundError(name)
        return release

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
def test_training_without_a_gpu_is_refused_here_and_left_to_other_machines(attention):
    message = f"^model.attention: {attention} trains on GPUs only, and ranks run on CPU cores here: set it to sdpa$"
    with pytest.raises(ConfigError, match=message):
        check_attention(model(attention), Place(1, CPU))
    check_attention(model(attention), Place(2, CPU, ("elsewhere",)))


@pytest.mark.parametrize("attention", ["auto", "eager", "sdpa"])
def test_what_every_machine_has_is_allowed(attention):
    check_attention(model(attention), Place(1, CPU))


@pytest.mark.parametrize(("release", "is_allowed"), [(None, False), ("2.3.2", False), ("2.3.3", True), ("2.8.1", True)])
def test_flash_attention_needs_its_package(release, is_allowed, monkeypatch):
    with_flash_attn(release, monkeypatch)
    check_attention(model("flex_attention"), Place(1, GPU))
    if is_allowed:
        check_attention(model("flash_attention_2"), Place(1, GPU))
    else:
        with pytest.raises(ConfigError, match=r"needs the package flash-attn 2\.3\.3 or later, which is not installed"):
            check_attention(model("flash_attention_2"), Place(1, GPU))


def test_doctor_says_what_the_attention_of_a_config_lacks(monkeypatch):
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    prompts = [{"path": "rows.jsonl"}]
    config = RunConfig(run="a", iterations=1, model=model("flex_attention"), prompts=prompts)
    [found] = check_needs(config)
    assert (found.where, found.do) == ("model.attention", "set it to sdpa")
    assert found.what.startswith("model.attention: flex_attention trains on GPUs only")
