"""`hir plan`: which DeepSpeed file fits, for models of known shapes on 8, 16 and 32 GPUs; its text and refusals."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.cli.app import app
from hir_core.config.load import parse_config
from hir_core.inspect.machines import Machines
from hir_core.inspect.plan import LaunchPlan, make_plan
from tests.benchmarks import memory_by_size

GB = 10**9
SHAPES = {
    "7B": {"model_type": "llama", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008,
           "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32},
    "32B": {"model_type": "qwen2", "vocab_size": 152064, "hidden_size": 5120, "intermediate_size": 27648,
            "num_hidden_layers": 64, "num_attention_heads": 40, "num_key_value_heads": 8},
    "70B": {"model_type": "llama", "vocab_size": 32000, "hidden_size": 8192, "intermediate_size": 28672,
            "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
}  # fmt: skip
SETTINGS = {
    "run": "planned",
    "iterations": 2,
    "prompts": [{"path": "rows.jsonl"}],
    "reward": {"type": "exact_match"},
    "relabel": {"type": "hindsight"},
    "sampling": {"prompts": 1000, "k": 8, "max_new_tokens": 512},
    "training": {"micro_batch_tokens": 8192, "activation_checkpointing": True},
    "deepspeed": "ds_configs/zero3.json",
}


@pytest.fixture
def planned(tmp_path):
    """The plan of a model on so many machines, each with 8 GPUs of 80 GB and 1 TB of main memory."""

    def plan(model: str, machines: int, **changes) -> LaunchPlan:
        (tmp_path / "config.json").write_text(json.dumps(SHAPES[model]))
        config = parse_config({**SETTINGS, "model": {"source": str(tmp_path)}, **changes})
        return make_plan(config, Machines(machines, 8, 80 * GB, 1000 * GB, has_gpus=True))

    return plan


def files(plan: LaunchPlan) -> dict[str, bool]:
    """Whether each file fits."""
    return {Path(file.file).stem: not file.problem for file in plan.files}


@pytest.mark.parametrize(
    ("model", "machines", "fitting"),
    [
        ("7B", 1, {"zero1", "zero2", "zero3", "zero3_offload"}),
        ("32B", 1, {"zero3_offload"}),
        ("32B", 2, {"zero3", "zero3_offload"}),
        ("70B", 1, set()),
        ("70B", 2, {"zero3_offload"}),
        ("70B", 4, {"zero3", "zero3_offload"}),
    ],
)
def test_the_files_that_fit(model, machines, fitting, planned):
    """Model states alone take 16 bytes a parameter: 65.5 GB of a 32B on each of 8 GPUs, 69 GB of a 70B on 16."""
    bf16 = {file: fits for file, fits in files(planned(model, machines)).items() if file != "laptop"}
    assert {file for file, fits in bf16.items() if fits} == fitting


def test_the_table_of_model_sizes_is_up_to_date():
    """Where this fails: `python -m tests.benchmarks.memory_by_size`."""
    readme = memory_by_size.README.read_text()
    assert "| Qwen3-32B | 2 × 8 |" in readme
    assert readme == memory_by_size.filled(readme)


@pytest.mark.parametrize(
    ("model", "billions"),
    [("Qwen3-0.6B", 0.596), ("Qwen3-1.7B", 1.72), ("Qwen3-8B", 8.19), ("Qwen3-32B", 32.76), ("Llama-3.3-70B", 70.55)],
)
def test_the_models_of_that_table_have_the_parameters_of_their_names(model, billions):
    parameters = memory_by_size.planned(model, 1, 8, memory_by_size.CHANGES).parameters
    assert parameters / 1e9 == pytest.approx(billions, rel=5e-3)


def test_more_devices_never_need_more_memory_each(planned):
    for file in range(6):
        totals = [planned("32B", machines).files[file].training.total for machines in (1, 2, 4)]
        assert totals == sorted(totals, reverse=True)


def test_parts_add_up_to_the_total(planned):
    for file in planned("7B", 1).files:
        training = file.training
        parts = training.weights + training.gradients + training.optimizer + training.activations + training.logits
        assert training.total >= parts
        assert training.total == parts or training.activations + training.logits < 4 * 6.8 * GB


def test_the_configs_file_is_advised_where_it_fits_else_one_of_its_format(planned):
    assert planned("7B", 1).advised.endswith("ds_configs/zero3.json")
    assert planned("7B", 1, deepspeed="ds_configs/zero0.json").advised.endswith("ds_configs/zero1.json")
    assert planned("32B", 1).advised.endswith("ds_configs/zero3_offload.json")
    none = planned("70B", 1)
    assert none.advised == ""
    assert none.smaller == ("training.micro_batch_tokens=4096",)
    alike = planned("7B", 1, deepspeed="ds_configs/laptop.json")
    assert alike.advised.endswith("laptop.json") == (not next(f for f in alike.files if f.is_current).problem)


def test_a_file_of_ones_own_is_planned_too(planned, tmp_path):
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"bf16": {"enabled": True}, "zero_optimization": {"stage": 2, "reduce_bucket_size": 5}}))
    plan = planned("7B", 1, deepspeed=str(own))
    assert [file.file for file in plan.files if file.is_current] == [str(own)]
    assert len(plan.files) == 7
    assert plan.files[0].training.total < next(f for f in plan.files if "zero2" in f.file).training.total


def test_settings_that_save_memory_do_so_in_the_plan(planned):
    usual = planned("7B", 1).files[-2].training
    assert (
        planned("7B", 1, training={"micro_batch_tokens": 8192}).files[-2].training.activations > 3 * usual.activations
    )
    small = planned("7B", 1, training={"micro_batch_tokens": 4096, "activation_checkpointing": True}).files[-2].training
    assert small.activations == pytest.approx(usual.activations / 2, rel=0.01)
    warm = {"demonstrations": 9, "batch_size": 600, "micro_batch_tokens": 65536}
    assert planned("7B", 1, warm_start=warm).files[-2].training.activations > 10 * usual.activations


def test_sampling_streams_weights_where_no_batch_fits_beside_whole_ones(planned):
    """A 70B has 138 GB of weights."""
    sampling = {file.file[-10:-5]: file.sampling for file in planned("70B", 4).files}["zero3"]
    assert sampling.is_streamed
    assert sampling.rows > 100
    whole = next(file.sampling for file in planned("7B", 1).files if file.stage == 2)
    assert (whole.is_streamed, whole.weights) == (False, 2 * 6_738_415_616)
    assert 90 < whole.rows < 130  # 58 GB for rows of 0.5 GB: 1,024 tokens of 0.5 MB
    asked = {**SETTINGS["sampling"], "batch_tokens": 10240}
    assert next(file.sampling.rows for file in planned("7B", 1, sampling=asked).files if file.stage == 2) == 10


@pytest.mark.parametrize(
    ("changes", "rows"),
    [
        ({}, 8),
        ({"training": {"micro_batch_tokens": 7000}}, 6),
        ({"training": {"micro_batch_tokens": 1}}, 2),
        ({"training": {"batch_size": 17, "micro_batch_tokens": 8192}}, 6),
        ({"training": {"contrastive": 0, "batch_size": 41, "micro_batch_tokens": 8192}}, 6),
        ({"training": {"micro_batch_tokens": 16384, "contrast": "batch", "contrast_ways": 5}}, 15),
        ({"relabel": {"type": "keep_correct"}, "training": {"batch_size": 24}}, 3),
        ({"relabel": {"type": "exclude_wrong"}}, 8),
        ({"relabel": {"type": "exclude_wrong", "relabel_weight": 0.3}}, 8),
    ],
)
def test_a_micro_batch_has_whole_triples_with_a_sequence_for_every_instruction(planned, changes, rows):
    """Each of 1,024 tokens; a batch of 64 is divided among 8 ranks."""
    assert planned("7B", 1, **changes).rows == rows


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `hir plan` in a folder with a config of the 7B model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(SHAPES["7B"]))
    Path("mine.yaml").write_text(json.dumps({**SETTINGS, "model": {"source": "./model"}}))
    return lambda *arguments: CliRunner().invoke(app, ["plan", *arguments])


def test_the_text_names_each_file_and_the_command(run):
    done = run("mine.yaml", "--gpus", "8", "--gpu-memory", "80", "--nodes", "2", "--tokens-per-second", "4096")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "6.74 billion parameters · 2 machines, each with 8 GPUs of 80.0 GB (72.0 usable)"
    assert lines[1].startswith("micro-batches of 8 sequences, each of 512 prompt and 512 new tokens")
    assert max(map(len, lines[2:11])) <= 80
    assert [line.split()[0] for line in lines[5:11]] == [
        "zero0", "laptop", "zero1", "zero2", "zero3*", "zero3_offload",
    ]  # fmt: skip
    assert any(line.startswith("zero0.json: training needs ") for line in lines)
    assert "disk    13.5 GB for the model of each iteration, 27.0 GB beside the first and the newest" in lines
    assert "        up to 161.7 GB more while one is trained, for two checkpoints" in lines
    assert "time    17 min for at most 4,096,000 sampled tokens of each iteration" in lines
    assert "hosts   write `NAME slots=8` for each machine into hosts.txt" in lines
    assert lines[-1] == "next    hir run mine.yaml launch.hostfile=hosts.txt"
    assert not Path("runs").exists()


def test_a_change_is_planned_with_and_kept_in_the_command(run):
    done = run("mine.yaml", "deepspeed=ds_configs/zero0.json", "seed=3", "--gpus", "8", "--gpu-memory", "80")
    assert done.output.splitlines()[-1].startswith(
        "next    hir run mine.yaml deepspeed=ds_configs/zero0.json seed=3 dee"
    )
    assert done.output.splitlines()[-1].endswith("deepspeed=ds_configs/zero1.json")
    done = run("mine.yaml", "--gpus", "1", "--gpu-memory", "16", "--host-memory", "100")
    assert "zero3_offload.json: a machine needs 148 GB of main memory, and has 100" in done.output
    assert done.output.splitlines()[-1] == ("no file fits: set training.micro_batch_tokens=4096, or take more devices")


def test_json_has_every_part(run):
    done = run("mine.yaml", "--gpus", "8", "--gpu-memory", "80", "--json")
    plan = json.loads(done.output)
    assert plan["parameters"] == 6_738_415_616
    assert set(plan["files"][0]["training"]) == {
        "weights", "gradients", "optimizer", "activations", "logits", "process", "total",
    }  # fmt: skip


def test_without_gpus_the_processes_of_this_machine_share_its_memory(run):
    done = run("quickstart", "launch.processes=2")
    assert done.exit_code == 0, done.output
    assert "2 processes on CPU" in done.output.splitlines()[0]
    assert done.output.splitlines()[-1] == "next    hir run quickstart launch.processes=2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine.yaml", "--gpus", "8"], "--gpu-memory: this machine does not tell"),
        (["zero3", "model.source=nobody-xyz/none", "--gpus", "1", "--gpu-memory", "8"], "not in the hub's cache"),
        (["mine.yaml", "model.source=./none"], "model.source: ./none is no model folder"),
        (["no-such-config"], "no such config"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_message(arguments, message, run):
    done = run(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_an_unknown_architecture_is_planned_by_its_number_of_parameters(run):
    Path("model/config.json").write_text(json.dumps({**SHAPES["7B"], "model_type": "new"}))
    here = ("mine.yaml", "--gpus", "8", "--gpu-memory", "80")
    assert "--parameters" in run(*here).output
    assert run(*here, "--parameters", "7000000000").output.startswith("7.00 billion parameters")
