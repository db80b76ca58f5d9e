"""An adapter in one process: a new one changes nothing, a merged one computes the same, and a wrong one is refused."""

import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from hir_core.config import LoraConfig, ScratchModel
from hir_core.errors import ConfigError, StoreError
from hir_core.inspect import model_export
from hir_core.launch.job_spec import Adapter, JobSpec
from hir_core.launch.rank import Rank
from hir_core.modeling import adapters, models, saving, zero
from hir_core.store.manifest import identity
from hir_core.store.store import Store
from hir_core.worker.job import Job

IDS = torch.arange(5, 25).view(2, 10)
ADAPTER = Adapter(lora=LoraConfig(rank=3))
FILE = "adapter_model.safetensors"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            return model.eval()(input_ids=IDS, decoder_input_ids=IDS).logits
        return model.eval()(input_ids=IDS).logits


def build(architecture: str, build_model):
    if architecture != "gpt2":
        return build_model(architecture)
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2))


def disturb(model) -> None:
    """Gives an adapter values as training would."""
    for tensor in adapters.adapter_tensors(dict(model.named_parameters())).values():
        torch.nn.init.normal_(tensor, std=0.2, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft corrects it for GPT-2
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("architecture", ["llama", "t5", "gpt2"])
def test_an_adapter_begins_without_effect_and_is_merged_without_one(architecture, build_model, tmp_path):
    model = build(architecture, build_model)
    before, weights = logits(model), {n: t.clone() for n, t in saving.saved_tensors(model).items()}
    adapters.add(model, ADAPTER, seed=1)
    assert torch.equal(logits(model), before)
    assert adapters.base_tensors(saving.saved_tensors(model)).keys() == weights.keys()
    assert adapters.parameter_count(model) == sum(p.numel() for p in build(architecture, build_model).parameters())
    disturb(model)
    trained = logits(model)
    assert (trained - before).abs().max().item() > 0.01
    saving.save_adapter(model, "../base", tmp_path)
    again = build(architecture, build_model)
    adapters.add(again, ADAPTER.model_copy(update={"folder": tmp_path}), seed=2)
    assert torch.equal(logits(again), trained)
    zero.merge_adapter(model)
    torch.testing.assert_close(logits(model), trained, atol=1e-4, rtol=0)
    merged = adapters.base_tensors(saving.saved_tensors(model))
    changed = {name for name in weights if not torch.equal(merged[name], weights[name])}
    assert changed == {n.removeprefix("base_model.model.").replace("lora_A", "").replace("..", ".")
                       for n in load_file(tmp_path / FILE) if "lora_A" in n}  # fmt: skip


def test_equal_seeds_give_equal_adapters_and_change_no_other_random_numbers(build_model):
    def first(seed: int) -> torch.Tensor:
        model = build_model("llama")
        adapters.add(model, ADAPTER, seed)
        return next(iter(adapters.adapter_tensors(dict(model.named_parameters())).values())).detach()

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))
    model = build_model("llama")
    state = torch.get_rng_state()
    adapters.add(model, ADAPTER, seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("c_fc", r"the model has no `c_fc`: choose from down_proj, gate_proj, k_proj"),
        ("lm_head", r"`lm_head` is no linear layer before the output head"),
        ("embed_tokens", r"`model\.embed_tokens` is no linear layer"),
        ("self_attn", r"`model\.layers\.0\.self_attn` is no linear layer"),
    ],
)
def test_layers_that_can_have_no_adapter_are_refused(target, problem, build_model):
    lora = LoraConfig(target_modules=("q_proj", target))
    with pytest.raises(ConfigError, match=rf"^lora\.target_modules: {problem}"):
        adapters.add(build_model("llama"), Adapter(lora=lora), seed=1)


@pytest.mark.usefixtures("alone")
def test_an_adapter_of_another_model_or_in_a_pickle_is_one_message(build_model, tmp_path):
    model = build_model("llama")
    adapters.add(model, ADAPTER, seed=1)
    saving.save_adapter(model, "../base", tmp_path)
    saved = ADAPTER.model_copy(update={"folder": tmp_path})
    with pytest.raises(
        StoreError, match=r"does not fit the model .* `base_model\.model\.model\.layers\.0\.mlp\.down_proj"
    ):
        adapters.add(build_model("llama", intermediate_size=48), saved, seed=1)
    with pytest.raises(StoreError, match=r"`base_model.*layers\.2.* has the shape of nothing, expected \(3, "):
        adapters.add(build_model("llama", layers=3), saved, seed=1)
    (tmp_path / FILE).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(StoreError, match=r"cannot read the adapter .*adapter_model\.safetensors"):
        adapters.add(build_model("llama"), saved, seed=1)
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(StoreError, match="cannot read the adapter"):
        adapters.add(build_model("llama"), saved, seed=1)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_exported_adapter_is_a_whole_model_with_the_same_logits(dtype, tmp_path, monkeypatch):
    """The launch's only rank is this process."""
    store = Store(tmp_path / "run")
    spec = ScratchModel(type="scratch", hidden_size=16, layers=2, heads=2, intermediate_size=32, context=64)
    draft = store.draft(identity("models", 0, {"bf16": dtype is torch.bfloat16}, []))
    models.materialise(spec, draft.path, ["one two"] * 4, 0)
    whole = draft.commit()
    model = models.load_model(str(whole.path), dtype)
    adapters.add(model, ADAPTER, seed=1)
    disturb(model)
    settings = {"bf16": dtype is torch.bfloat16, "lora": ADAPTER.lora.fingerprint()}
    draft = store.draft(identity("models", 1, settings, [whole]))
    saving.save_adapter(model, f"../{whole.id}", draft.path)
    adapter = draft.commit()

    def launch(job_dir: Path, _: object) -> None:
        spec = JobSpec.read(job_dir)
        Job(Rank(job_dir, 0, 1, 0), spec, torch.device("cpu")).do(spec.steps[0])

    monkeypatch.setattr(model_export, "launch", launch)
    exported = model_export.export_model(store, adapter, tmp_path / "merged")
    assert exported.merged_into == str(whole)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert loaded.dtype is dtype
    tolerance = 1e-4 if dtype is torch.float32 else 0.06
    torch.testing.assert_close(logits(loaded), logits(model), atol=tolerance, rtol=0)
    assert models.load_tokenizer(str(tmp_path / "merged")).eos_token == models.END

    copied = model_export.export_model(store, whole, tmp_path / "copied")
    assert copied.merged_into is None
    names = {path.name for path in (tmp_path / "copied").iterdir()}
    assert names == {part.name for part in store.manifest(whole).parts}
    with pytest.raises(ConfigError, match="exists already"):
        model_export.export_model(store, whole, tmp_path / "copied")
    shutil.rmtree(tmp_path / "copied")
    with pytest.raises(ConfigError, match="lies inside the run"):
        model_export.export_model(store, whole, store.run_dir / "copied")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["merged", "run"]


@pytest.mark.usefixtures("alone")
def test_an_adapter_is_no_whole_model_in_a_folder_or_on_the_hub(build_model, tmp_path, monkeypatch):
    """A folder's names are checked; a repository of the hub is read by `transformers`, which loads adapters as well."""
    model = build_model("llama")
    model.save_pretrained(tmp_path)
    adapters.add(model, ADAPTER, seed=1)
    saving.save_adapter(model, "../base", tmp_path)
    with pytest.raises(
        ConfigError, match=r"adapter_config\.json' makes it an adapter, which is no whole model: merge it"
    ):
        models.load_model(str(tmp_path), torch.float32)
    monkeypatch.setattr(models, "check_folder", lambda *_: None)
    with pytest.raises(ConfigError, match="holds an adapter, which `transformers` has loaded too"):
        models.load_model(str(tmp_path), torch.float32)
