"""What `hir plan` expects of models of public sizes on GPUs of 80 GB, as a table of the README of `ds_configs`.

    python -m tests.benchmarks.memory_by_size

makes everything between `<!-- memory -->` and `<!-- end of memory -->` there anew. It is the arithmetic of
`hir_core/launch/memory_estimate.py` for the recipe `zero3` with other models; nothing is started or measured.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from flows.start import CONFIGS
from hir_core.config.load import load_config
from hir_core.inspect.machines import Machines
from hir_core.inspect.plan import FilePlan, LaunchPlan, make_plan

README = Path(__file__).resolve().parents[2] / "ds_configs" / "README.md"
_BLOCK = re.compile(r"(<!-- memory -->\n).*?(<!-- end of memory -->)", re.DOTALL)
QWEN3 = {"model_type": "qwen3", "vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128}
MODELS = {
    "Qwen3-0.6B": QWEN3
    | {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16}
    | {"tie_word_embeddings": True},
    "Qwen3-1.7B": QWEN3
    | {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
    | {"tie_word_embeddings": True},
    "Qwen3-8B": QWEN3
    | {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
    "Qwen3-32B": QWEN3
    | {"hidden_size": 5120, "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64},
    "Llama-3.3-70B": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8,
    },
}  # fmt: skip
"""What counts here of each model's public config.json."""
MACHINES = (1, 1), (1, 8), (2, 8)
"""Machines, and GPUs of each."""
GPU_BYTES = 80 * 10**9
FILES = ("zero1", "zero2", "zero3", "zero3_offload")
ADAPTER_FILES = ("zero2", "zero3")
CHANGES = ("sampling.max_new_tokens=512",)
ADAPTER = ("lora.rank=16",)


def filled(readme: str) -> str:
    """The text of the README with its table made anew."""
    return _BLOCK.sub(lambda match: match[1] + "\n".join(lines()) + "\n" + match[2], readme)


def lines() -> Iterator[str]:
    """The table as lines of Markdown: GB of a GPU in training; brackets: does not fit; s: sampling streams weights."""
    header = [
        *("model", "GPUs", *(f"`{name}.json`" for name in FILES), "main memory with offload"),
        *(f"LoRA, `{name}.json`" for name in ADAPTER_FILES),
    ]
    yield from ["", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for model in MODELS:
        for machines, gpus in MACHINES:
            files = by_name(planned(model, machines, gpus, CHANGES))
            adapted = by_name(planned(model, machines, gpus, (*CHANGES, *ADAPTER)))
            cells = [
                *(model, f"{machines} × {gpus}" if machines > 1 else str(gpus)),
                *(_cell(files[name]) for name in FILES),
                f"{files['zero3_offload'].host / 1e9:,.0f}",
                *(_cell(adapted[name]) for name in ADAPTER_FILES),
            ]
            yield f"| {' | '.join(cells)} |"
    yield ""


def planned(model: str, machines: int, gpus: int, changes: Sequence[str]) -> LaunchPlan:
    """The plan of the recipe `zero3` with another model and other settings, on so many machines with so many GPUs."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(MODELS[model]))
        config = load_config(CONFIGS / "zero3.yaml", [f"model.source={folder}", *changes])
        return make_plan(config, Machines(machines, gpus, GPU_BYTES, None, has_gpus=True))


def by_name(plan: LaunchPlan) -> dict[str, FilePlan]:
    """The files of a plan by their names without folder and ending."""
    return {Path(file.file).stem: file for file in plan.files}


def _cell(file: FilePlan) -> str:
    size = f"{file.training.total / 1e9:,.1f}"
    return f"({size})" if file.problem else size + " s" * file.sampling.is_streamed


if __name__ == "__main__":
    README.write_text(filled(README.read_text()))
