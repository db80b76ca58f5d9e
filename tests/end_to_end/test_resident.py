"""Ranks that stay for a run's next job make the very files that ranks make which end with their job."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_run import TINY, TWO_RANKS, digests, hir, left_alive, manifest, write_config
from transformers import LlamaConfig, LlamaForSequenceClassification

from hir_core.modeling.models import fit_tokenizer

pytestmark = pytest.mark.slow

CASES: dict[str, dict[str, Any]] = {
    "one rank": {},
    "two ranks, an encoder-decoder in bf16": {
        "iterations": 1,
        "launch": TWO_RANKS,
        "model": TINY["model"] | {"architecture": "t5"},
        "training": TINY["training"] | {"activation_checkpointing": True},
        "deepspeed": {"zero_optimization": {"stage": 2, "reduce_bucket_size": 5000}, "bf16": {"enabled": True}},
    },
    "without ZeRO, other models in between": {
        "iterations": 1,
        "model": TINY["model"] | {"context": 256},
        "reward": {"type": "reward_model", "source": "classifier", "label": 0},
        "relabel": {"type": "learned", "threshold": 0.0},
        "deepspeed": {"zero_optimization": {"stage": 0}},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_every_file_is_the_same_to_the_byte(case, tmp_path, prefect_home):
    changes = {"iterations": 2} | CASES[case]
    launch = TINY["launch"] | changes.pop("launch", {})
    if settings := changes.pop("deepspeed", None):
        (tmp_path / "deepspeed.json").write_text(json.dumps(settings))
        changes["deepspeed"] = "deepspeed.json"
    if "reward" in changes:
        make_classifier(tmp_path / "classifier")
    for name, resident in (("ending", False), ("staying", True)):
        write_config(tmp_path, name, launch=launch | {"resident": resident}, **changes)
        hir(tmp_path, prefect_home, "run", f"{name}.yaml")
    ending, staying = (tmp_path / "runs" / name for name in ("ending", "staying"))
    assert len(pids(staying)) == 1 < len(pids(ending))
    assert contents(staying) == contents(ending)
    for model in ("models@0", "models@1"):
        losses = [manifest(run, model)["metrics"]["loss"] for run in (ending, staying)]
        assert losses[0] == losses[1]
    assert not [line for line in left_alive(str(prefect_home)) if "hir_core.worker" in line]


def make_classifier(folder: Path) -> None:
    """Writes a random reward model."""
    tokenizer = fit_tokenizer(["how many plums figs and pears one two three"] * 4, 320)
    torch.manual_seed(3)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def contents(run_dir: Path) -> dict[str, str]:
    """A digest of every file of every version but the manifests, which hold times."""
    return {name: digest for name, digest in digests(run_dir).items() if not name.endswith("manifest.json")}


def pids(run_dir: Path) -> set[int]:
    """The processes that were rank 0 of the run's jobs."""
    reports = run_dir.glob("launches/**/rank-0.started.json")
    return {json.loads(report.read_text())["pid"] for report in reports}
