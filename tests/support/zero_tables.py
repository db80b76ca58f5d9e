"""Jobs for `zero_cases` and the tables that they read, for the tests of ZeRO on the CPU and on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from cli_run import PATIENCE_S
from safetensors.torch import load_file

from hir_core.config import HubModel, LaunchConfig, LoraConfig, ScratchModel, TrainingConfig
from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
from hir_core.launch.job_spec import Adapter, JobSpec, SampleStep, SaveStep, TrainStep
from hir_core.launch.launcher import launch
from hir_core.modeling import models
from hir_core.store.files import read_json, read_parts, write_part

INSTRUCTIONS = ("Add up.", "Do not add up.")
PROMPTS, K, NEW_TOKENS = 251, 4, 8
TRAINING = TrainingConfig(batch_size=8, micro_batch_tokens=120, epochs=2, learning_rate=1e-3, logits_chunk=5)
"""21 triples: a remainder of 5 in each epoch, and ranks whose targets need different numbers of chunks."""
ARCHITECTURES = ("llama", "t5", "flan")


def stage(number: int, **settings: Any) -> dict[str, Any]:
    return {"zero_optimization": {"stage": number, **settings}}


SHARDED = {"stage3_param_persistence_threshold": 0, "reduce_bucket_size": 5000, "stage3_prefetch_bucket_size": 2000}
OFFLOAD = {"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
STAGES = {
    "zero0": stage(0),
    "zero1": stage(1, reduce_bucket_size=5000),
    "zero2": stage(2, reduce_bucket_size=5000),
    "zero3": stage(3, **SHARDED),
    "zero3-offload": {**stage(3, **SHARDED, **OFFLOAD), "zero_force_ds_cpu_optimizer": False},
}


def in_bf16(name: str) -> dict[str, Any]:
    """A stage in bf16, with gradients accumulated as in the file of that stage in `ds_configs`."""
    shipped = read_deepspeed(SHIPPED_DS_CONFIGS / f"{name}.json")
    return {**STAGES[name], **{key: shipped[key] for key in ("bf16", "data_types") if key in shipped}}


def make_model(folder: Path, architecture: str) -> None:
    """Writes a random model; `flan` is a T5 with a separate head."""
    kind = "llama" if architecture == "llama" else "t5"
    spec = ScratchModel(
        type="scratch", architecture=kind, hidden_size=32, layers=2, heads=2, intermediate_size=64, context=64
    )
    models.materialise(spec, folder, ["two figs and three plums Add up. Do not add up."] * 4, seed=1)
    model = models.load_model(str(folder), torch.float32)
    if architecture == "flan":
        model.config.scale_decoder_outputs = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape) / 4)
    elif architecture == "llama":
        for parameter in model.parameters():
            parameter.data *= 3  # distributions that are far from flat
    model.save_pretrained(folder)


def make_requests(path: Path, count: int) -> None:
    """Writes prompts as a file for sample steps, and without its suffix as a folder for train steps."""
    fruits = ("figs", "plums", "two figs and three plums")
    queries = [f"{n} {fruits[n % 3]}" for n in range(count)]
    prompts = {"prompt_id": [f"p{n:03}" for n in range(count)], "query": queries, "history": [None] * count}
    pl.DataFrame(prompts).write_parquet(path)
    path.with_suffix("").mkdir()
    write_part(path.with_suffix(""), "0", pl.DataFrame(prompts))


def make_triples(
    samples: Path, requests: Path, folder: Path, every: int = 48, *, with_exclusions: bool = False
) -> None:
    """Writes some of the samples as triples: with and without a contrast, and some with a prefix.

    Args:
        with_exclusions: whether every output is there once for its prompt, and most of them are excluded, a part of
            these taught under the other instruction as well.
    """
    joined = (
        read_parts(samples).sort("sample_id").join(pl.read_parquet(requests), on="prompt_id", maintain_order="left")
    )
    if with_exclusions:
        joined = joined.unique(["prompt_id", "completion_ids"], keep="first", maintain_order=True)
    rows = []
    for n, row in enumerate(joined.gather_every(every).to_dicts()):
        ids = row["completion_ids"]
        is_excluded = with_exclusions and n % 3 > 0
        cut = 1 if n % 5 == 0 and len(ids) > 1 and not is_excluded else 0
        rows.append(
            {
                "triple_id": f"t{n:03}",
                "sample_id": row["sample_id"],
                "instruction": INSTRUCTIONS[n % 2],
                "contrast": [INSTRUCTIONS[1 - n % 2]] if n % 3 else [],
                "query": row["query"],
                "history": None,
                "output": row["completion"],
                "prefix_ids": ids[:cut],
                "target_ids": ids[cut:],
                "ends": row["finish_reason"] == "eos",
                "weight": n % 2 if is_excluded else 1.0 + n % 2,
                "excluded_from": INSTRUCTIONS[1 - n % 2] if is_excluded else None,
                "removed": (0.5, 1.0)[n % 2] if is_excluded else 0.0,
            }
        )
    folder.mkdir()
    types = {"prefix_ids": pl.List(pl.Int32), "target_ids": pl.List(pl.Int32), "contrast": pl.List(pl.String)}
    types |= {"excluded_from": pl.String, "weight": pl.Float64}
    write_part(folder, "0", pl.DataFrame(rows, schema_overrides=types))


def make_equal_triples(folder: Path, count: int) -> None:
    """Writes a table of one triple, so many times: a batch of them is the same in whatever order the rows come."""
    row = {
        "triple_id": "t", "sample_id": None, "instruction": INSTRUCTIONS[0], "contrast": [INSTRUCTIONS[1]],
        "query": "3 figs", "history": None, "output": "", "prefix_ids": [], "target_ids": [9, 17, 30, 12],
        "ends": False, "weight": 1.0, "excluded_from": None, "removed": 0.0,
    }  # fmt: skip
    folder.mkdir()
    types = {"prefix_ids": pl.List(pl.Int32), "target_ids": pl.List(pl.Int32), "contrast": pl.List(pl.String)}
    rows = [row | {"triple_id": f"t{n:03}"} for n in range(count)]
    write_part(folder, "0", pl.DataFrame(rows, schema_overrides=types | {"excluded_from": pl.String}))


def launch_cases(root: Path, ranks: int, launcher: str = "deepspeed", module: str = "zero_cases") -> None:
    """Does every job below `root/cases` in one launch; ranks must find `zero_cases` on their path."""
    (root / "job.json").write_text('{"steps": [{"type": "cases"}]}')
    config = LaunchConfig(processes=ranks, launcher=launcher, timeout_s=PATIENCE_S)
    launch(root, config, module=module)


@contextmanager
def cpu_ranks() -> Iterator[None]:
    """Ranks on the CPU that find `zero_cases`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        yield


class LaunchCases:
    """Cases of one launch, and the files that they wrote."""

    def __init__(self, root: Path, ranks: int, data: Path) -> None:
        self.root, self.ranks, self.data = root, ranks, data

    def add(
        self,
        name: str,
        architecture: str,
        settings: dict[str, Any],
        *steps: Any,
        adapter: Adapter | None = None,
        attention: str = "auto",
    ) -> None:
        folder = self.root / "cases" / name
        folder.mkdir(parents=True)
        model = HubModel(source=str(self.data / architecture), attention=attention)
        JobSpec(model=model, adapter=adapter, seed=3, deepspeed=settings, steps=steps).write(folder)

    def train(
        self,
        name: str,
        architecture: str,
        settings: dict[str, Any],
        *,
        triples: str = "",
        checkpoints: Path | None = None,
        adapter: Adapter | None = None,
        zero3_weights: str = "auto",
        **changes: Any,
    ) -> None:
        """Trains, saves, and samples greedily with the weights in memory.

        Args:
            triples: the folder's name; that of the architecture where it is empty.
            checkpoints: where those of this training lie.
            adapter: what is trained and saved in place of the whole model.
            zero3_weights: how it samples, as in a SampleStep.
        """
        samples = None if self.ranks == 1 or "bf16" in settings else self.data / f"samples-{architecture}"
        training = TRAINING.model_copy(update=changes)
        prompts = self.data / "requests-many"
        folder = self.data / (triples or f"triples-{architecture}")
        train = TrainStep(
            triples=folder,
            samples=samples,
            prompts=prompts,
            training=training,
            iteration=1,
            checkpoints=checkpoints,
        )
        steps: list[Any] = [train]
        base = None if adapter is None else f"../{architecture}"
        steps += [SaveStep(output=self.out(name, "model"), base=base)]
        steps += [self.sampling(name, "few", temperature=0.0, k=1, zero3_weights=zero3_weights)]
        self.add(name, architecture, settings, *steps, adapter=adapter)

    def continue_training(
        self,
        name: str,
        previous: Path,
        settings: dict[str, Any],
        state: str,
        *,
        table: str = "triples-single",
        checkpoints: Path | None = None,
        lora: LoraConfig | None = None,
        **changes: Any,
    ) -> Path:
        """Trains a saved model from the state of its optimizer, if there is one; returns the folder of the new model.

        Args:
            previous: the model's folder, which an earlier case may still have to write; with `lora` the adapter's.
            state: what of the optimizer's state to save.
            checkpoints: where those of this training lie.
            lora: an adapter is trained, and saved in place of the whole model.
        """
        training, triples = TRAINING.model_copy(update=changes), self.data / table
        is_made = previous.parent.name == "out"
        adapter = lora and Adapter(lora=lora, folder=previous if is_made else None)
        steps = [
            TrainStep(
                triples=triples,
                samples=None,
                prompts=triples,
                training=training,
                optimizer_state=previous if state != "none" and is_made else None,
                iteration=1,
                checkpoints=checkpoints,
            ),
            SaveStep(output=self.out(name, "model"), base=lora and "../llama", optimizer_state=state),
        ]
        self.add(name, "llama" if lora else str(previous), settings, *steps, adapter=adapter)
        return self.out(name, "model")

    def change(self, name: str, file: str, number: int) -> None:
        """Changes what `zero_cases` does with a case."""
        (self.root / "cases" / name / file).write_text(str(number))

    def sampling(self, name: str, requests: str = "many", **changes: Any) -> SampleStep:
        values = {"temperature": 1.0, "k": K, "max_new_tokens": NEW_TOKENS, "batch_tokens": 1500} | changes
        values = {
            "zero3_weights": "auto",
            "version": "samples@1",
            "model": "m",
            "iteration": 1,
            "write_every_s": 5,
        } | values
        output, path = self.out(name, "samples"), self.data / f"requests-{requests}.parquet"
        return SampleStep(name="sample", requests=path, output=output, instruction=INSTRUCTIONS[0], **values)

    def out(self, case: str, kind: str) -> Path:
        folder = self.root / "out" / f"{case}-{kind}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def launch(self) -> None:
        launch_cases(self.root, self.ranks)

    def losses(self, case: str) -> list[float]:
        return read_json(self.root / "cases" / case / "losses.json")

    def facts(self, case: str) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for facts in reversed(read_json(self.root / "cases" / case / "facts.json")):
            merged |= facts
        return merged

    def alive_bytes(self, case: str) -> int:
        return read_json(self.root / "cases" / case / "alive.json")

    def logits(self, case: str) -> torch.Tensor:
        return torch.load(self.root / "cases" / case / "logits.pt", weights_only=True)

    def samples(self, case: str) -> pl.DataFrame:
        return read_parts(self.out(case, "samples")).sort("sample_id")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights in a model's folder, or those of the adapter that it holds."""
    tensors: dict[str, torch.Tensor] = {}
    for shard in folder.glob("*model*.safetensors"):
        tensors |= load_file(shard)
    return tensors


def saved_state(folder: Path) -> dict[str, torch.Tensor]:
    """The optimizer's state beside a model, by kind and parameter."""
    tensors: dict[str, torch.Tensor] = {}
    for shard in folder.glob("optimizer-*.safetensors"):
        tensors |= load_file(shard)
    return tensors


def plain_logprobs(model, prompt: tuple[int, ...], output: tuple[int, ...]) -> torch.Tensor:
    if model.config.is_encoder_decoder:
        decoder_ids = torch.tensor([[model.config.decoder_start_token_id, *output[:-1]]])
        logits = model(input_ids=torch.tensor([prompt]), decoder_input_ids=decoder_ids).logits[0]
    else:
        logits = model(input_ids=torch.tensor([[*prompt, *output[:-1]]])).logits[0, len(prompt) - 1 :]
    return logits.log_softmax(-1).gather(-1, torch.tensor(output)[:, None])[:, 0]
