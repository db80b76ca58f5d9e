"""The configuration: shipped files load, fingerprints hold what decides a result, and all problems are reported at
once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hir_core.config import HubModel, RunConfig, Section, load_config
from hir_core.config.comparison import CompareConfig
from hir_core.config.deepspeed import SHIPPED_DS_CONFIGS, read_deepspeed
from hir_core.config.load import parse_config
from hir_core.errors import ConfigError

RECIPES = sorted((Path(__file__).parents[2] / "flows" / "configs").glob("*.yaml"))
TINY: dict[str, Any] = {
    "run": "tiny",
    "iterations": 1,
    "model": {"type": "scratch", "hidden_size": 32, "heads": 2},
    "prompts": [{"type": "synthetic", "task": "object_counting", "size": 40}],
}


def changed(*changes: str, tmp_path: Path) -> RunConfig:
    """The tiny run, loaded from a YAML file with these changes."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return load_config(path, changes)


# --- what is shipped ---


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path: Path) -> None:
    assert load_config(path).iterations >= 0


@pytest.mark.parametrize("path", sorted(SHIPPED_DS_CONFIGS.glob("*.json")), ids=lambda path: path.stem)
def test_every_shipped_deepspeed_file_loads(path: Path) -> None:
    assert read_deepspeed(path)["zero_optimization"]["stage"] in (0, 1, 2, 3)


def test_a_shipped_deepspeed_file_is_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ds_configs/zero3.json", "zero3.json"):
        assert parse_config({**TINY, "deepspeed": name}).deepspeed_settings()["zero_optimization"]["stage"] == 3


def test_the_default_deepspeed_file_is_found_from_any_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_config(TINY).deepspeed_settings()["zero_optimization"]["stage"] == 2


def sections_of(section: type[Section]) -> set[type[Section]]:
    """The section and its subclasses in `hir_core.config`; jobs and generators have further ones."""
    subclasses = (kind for kind in section.__subclasses__() if kind.__module__.startswith("hir_core.config."))
    return {section}.union(*map(sections_of, subclasses))


@pytest.mark.parametrize("section", sorted(sections_of(Section) - {Section}, key=lambda section: section.__name__))
def test_every_section_and_every_setting_has_a_docstring(section: type[Section]) -> None:
    assert {RunConfig, CompareConfig} <= sections_of(Section)
    assert section.__doc__
    assert [name for name, field in section.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", ["zero3", "zero3.json", "ds_configs/zero3", "ds_configs/zero3.json"])
def test_a_shipped_deepspeed_file_is_found_by_its_name(name: str) -> None:
    assert parse_config({**TINY, "deepspeed": name}).zero_stage == 3


def test_what_a_deepspeed_file_leaves_to_the_trainer_is_no_setting(tmp_path: Path) -> None:
    adamw = {"type": "AdamW", "params": {"lr": "auto", "betas": "auto"}}
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"train_batch_size": "auto", "optimizer": adamw, "bf16": {"enabled": True}}))
    assert read_deepspeed(path) == {"bf16": {"enabled": True}}


def test_a_missing_deepspeed_file_elsewhere_is_not_replaced_by_a_shipped_one() -> None:
    with pytest.raises(ConfigError, match=r"no such file mine/zero3\.json"):
        parse_config({**TINY, "deepspeed": "mine/zero3.json"})


# --- a config is a value ---


BF16, FP32 = '{"bf16": {"enabled": true}}', '{"zero_optimization": {"stage": 1}}'


@pytest.mark.parametrize("edit", [lambda path: path.write_text(FP32), Path.unlink], ids=["rewritten", "deleted"])
def test_the_deepspeed_file_is_read_once_so_an_edit_changes_no_loaded_config(edit: Any, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(BF16)
    config = parse_config({**TINY, "deepspeed": str(path)})
    edit(path)
    for loaded in (config, config.model_copy(update={"iterations": 7}), RunConfig.model_validate(dict(config))):
        assert loaded.is_bf16
        assert loaded.deepspeed_settings() == {"bf16": {"enabled": True}}
        assert loaded.deepspeed == config.deepspeed


def test_who_changes_the_deepspeed_settings_of_a_config_changes_a_copy() -> None:
    config = parse_config(TINY)
    config.deepspeed_settings()["bf16"]["enabled"] = False
    assert config.is_bf16


def test_what_is_on_nvme_is_not_saved_and_a_config_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{"zero_optimization": {"stage": 3, "offload_optimizer": {"device": "nvme"}}}')
    config = {**TINY, "deepspeed": str(path)}
    assert parse_config(config).training.saved_state(is_bf16=False) == "none"
    with pytest.raises(ConfigError, match=r"training\.optimizer_state: .* NVMe is not saved: set it to none"):
        parse_config({**config, "training": {"optimizer_state": "all"}})


@pytest.mark.parametrize("mode", ["python", "json"])
def test_a_dumped_config_names_the_deepspeed_file_and_loads_again(mode: Any, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(BF16)
    config = parse_config({**TINY, "deepspeed": str(path)})
    settings = config.model_dump(mode=mode, exclude_unset=True)
    assert settings["deepspeed"] == (path if mode == "python" else str(path))
    assert parse_config(settings) == config
    path.write_text(FP32)
    assert not parse_config(settings).is_bf16


# --- what decides a result ---


@pytest.mark.parametrize(
    "change",
    [
        "runs_dir=elsewhere",
        "iterations=9",
        "deepspeed=ds_configs/zero3.json",
        "model.attention=eager",
        "training.micro_batch_tokens=1",
        "training.logits_chunk=8",
        "training.activation_checkpointing=true",
        "sampling.batch_tokens=1",
        "sampling.zero3_weights=stream",
        "launch.processes=2",
        "launch.launcher=torchrun",
    ],
)
def test_what_changes_speed_only_is_not_in_the_fingerprint(change: str, tmp_path: Path) -> None:
    assert changed(change, tmp_path=tmp_path).fingerprint() == parse_config(TINY).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "training.epochs=3",
        "training.batch_size=32",
        "sampling.k=2",
        "model.layers=2",
        "prompts.0.seed=5",
        "instructions.wrong=Lie.",
        "relabel.type=keep_correct",
        "relabel.threshold=0.5",
        "warm_start.demonstrations=8",
        "evaluation.max_new_tokens=8",
    ],
)
def test_what_changes_a_result_is_in_the_fingerprint(change: str, tmp_path: Path) -> None:
    assert changed(change, tmp_path=tmp_path).fingerprint() != parse_config(TINY).fingerprint()


def test_a_fingerprint_is_plain_json() -> None:
    fingerprint = parse_config({**TINY, "prompts": [{"path": "a.jsonl"}]}).fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    columns = {"columns": {}, "duplicates": "refuse", "task": None}
    assert fingerprint["prompts"] == [{"type": "file", "path": "a.jsonl", **columns, "test_share": 0.2, "seed": 0}]


# --- changes on the command line ---


def test_a_change_reaches_sections_lists_and_sections_that_are_not_there_yet(tmp_path: Path) -> None:
    config = changed("training.epochs=7", "prompts.0.size=10", "warm_start.demonstrations=5", tmp_path=tmp_path)
    assert (config.training.epochs, config.prompts[0].size, config.warm_start.demonstrations) == (7, 10, 5)


def test_a_change_is_read_as_yaml(tmp_path: Path) -> None:
    changes = ("training.learning_rate=5e-5", "sampling.prompts=null", "model={source: a/b}", "launch={processes: 2}")
    config = changed(*changes, tmp_path=tmp_path)
    assert (config.training.learning_rate, config.sampling.prompts, config.launch.processes) == (5e-5, None, 2)
    assert config.model == HubModel(source="a/b")


def test_the_last_of_two_changes_holds(tmp_path: Path) -> None:
    assert changed("iterations=2", "iterations=3", tmp_path=tmp_path).iterations == 3


# --- what is wrong ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("iteratons=3", "iteratons: unknown key; did you mean `iterations`?"),
        ("training.epoch=3", "training.epoch: unknown key; did you mean `epochs`?"),
        ("training.k=3", "training.k: unknown key; expected one of epochs, steps, batch_size,"),
        ("max_new_tokens=3", "did you mean `sampling.max_new_tokens` or `evaluation.max_new_tokens`?"),
        ("model.hiden_size=3", "model.hiden_size: unknown key; did you mean `hidden_size`?"),
        ("model={source: x, layers: 3}", "model.layers: unknown key; expected one of type, source, revision, template"),
        ("model.type=skratch", "model.type: expected one of hub, gguf, scratch (found 'skratch'); did you mean `scrat"),
        (
            "prompts.0.type=jsonl",
            "prompts.0.type: expected one of synthetic, file, bbh, bigbench, datasets, reasoning_gym, "
            "ifeval (found 'jsonl')",
        ),
        ("model=foo", "model: expected settings as `key: value` (found 'foo')"),
        ("model={}", "model.source: required, but missing"),
        ("model.heads=5", "model: hidden_size 32 cannot be shared by 5 heads: make it a multiple"),
        ("iterations=abc", "iterations: expected a whole number (found 'abc')"),
        ("iterations=-1", "iterations: expected at least 0 (found -1)"),
        ("training.epochs=2.5", "training.epochs: expected a whole number (found 2.5)"),
        ("training.schedule=step", "training.schedule: expected 'constant', 'linear' or 'cosine' (found 'step')"),
        ("sampling.temperature=0", "sampling.temperature: expected more than 0"),
        ("prompts=[]", "prompts: expected at least 1 (found [])"),
        ("prompts=foo", "prompts: expected a list (found 'foo')"),
        ("run=../up", "run: expected a folder's name of up to 100 letters"),
        ("deepspeed=3", "deepspeed: expected a path (found 3)"),
        ("launch.processes=0", "launch.processes: expected auto or a whole number of at least 1 (found 0)"),
        ("reward={type: python, function: f}", "reward.function: expected module:function, as in my_rewards:score"),
        ("relabel.type=attributes", "relabel: attributes come from a reward that scores several: set reward.type to"),
        (
            "relabel={type: attributes, instruction: Be good.}",
            "relabel.instruction: expected a text with {attributes}, and {correct} if you like (found 'Be good.')",
        ),
        ("warm_start.epochs=3", "warm_start.demonstrations: required, but missing"),
        ("iterations", "expected key=value, found `iterations`"),
        ("=3", "expected key=value, found `=3`"),
        ("iterations=[1", "`iterations=[1`: the value is not YAML that can be read: line 1, column 3"),
        ("run.x=3", "`run.x=3`: `run` is 'tiny', so nothing can be set below it"),
        ("prompts.3.size=1", "the list has 1 item(s), counted from 0, so there is no `3`"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(change, tmp_path=tmp_path)
    assert message in str(caught.value)


def test_all_problems_are_reported_at_once_and_none_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(
            "iteratons=3",
            "training.epochs=0",
            "prompts.0.size=0",
            "model.type=x",
            "deepspeed=no.json",
            tmp_path=tmp_path,
        )
    count, *problems = str(caught.value).splitlines()
    assert count.endswith("tiny.yaml: 5 problems")
    assert sorted(problem.split(":")[0].strip() for problem in problems) == [
        "deepspeed",
        "iteratons",
        "model.type",
        "prompts.0.size",
        "training.epochs",
    ]


def test_equal_instructions_are_refused() -> None:
    with pytest.raises(ConfigError, match="are the same text"):
        parse_config({**TINY, "instructions": {"correct": "Answer.", "wrong": "Answer."}})


def test_only_the_correct_instruction_may_be_none() -> None:
    for none in (None, "", " \n"):
        assert parse_config({**TINY, "instructions": {"correct": none}}).instructions.correct == ""
    with pytest.raises(ConfigError, match=r"instructions\.wrong is empty: only instructions\.correct may be"):
        parse_config({**TINY, "instructions": {"wrong": " "}})
    with pytest.raises(ConfigError, match=r"which relabel\.type=learned cannot learn to write: give it a text"):
        parse_config({**TINY, "instructions": {"correct": None}, "relabel": {"type": "learned"}})


def test_a_hostfile_needs_the_deepspeed_launcher() -> None:
    with pytest.raises(ConfigError, match=r"set launch\.launcher to deepspeed"):
        parse_config({**TINY, "launch": {"hostfile": "hosts", "launcher": "torchrun"}})


def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("run: a\nseed: 1\nrun: b\n")
    with pytest.raises(ConfigError, match=r"line 3, column 1: `run` twice"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "must hold settings as `key: value`, found list"),
        ("run: [\n", "is not YAML that can be read: line 2"),
        ("", "must hold settings as `key: value`, found NoneType"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_folder_is_not_a_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_batch_size": 8}, "sets `train_batch_size`, which training.batch_size decides: remove it"),
        ({"optimizer": {"type": "Adam"}}, "sets `optimizer`, which training.learning_rate and training.weight_decay"),
        (
            {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}},
            'contains "auto" in `zero_optimization`, which hir does not replace',
        ),
        ({"fp16": {"enabled": True}}, "enables fp16, whose loss scaling is not supported: use bf16"),
        ({"bf16": True}, "`bf16` must be an object, found True"),
        ({"zero_optimization": {"stage": 4}}, "`zero_optimization.stage` must be 0, 1, 2 or 3"),
        ([], "must hold a JSON object, found list"),
    ],
)
def test_a_deepspeed_file_holds_strategy_only(settings: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(ConfigError) as caught:
        read_deepspeed(path)
    assert message in str(caught.value)
    with pytest.raises(ConfigError) as in_a_config:
        parse_config({**TINY, "deepspeed": str(path)})
    assert str(in_a_config.value) == f"config: 1 problem\n  {caught.value}"


def test_a_deepspeed_file_that_is_not_json_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text('{\n"bf16": }')
    with pytest.raises(ConfigError, match=r"deepspeed: .*ds\.json is not JSON: line 2"):
        parse_config({**TINY, "deepspeed": str(path)})


@pytest.mark.parametrize(
    ("change", "message"),
    [("exclusion=0", r"relabel\.type=keep_correct"), ("contrast=batch", r"set training\.contrastive=0")],
)
def test_excluded_outputs_need_their_term_and_no_contrast_within_the_batch(change: str, message: str, tmp_path) -> None:
    changed("relabel.type=exclude_wrong", tmp_path=tmp_path)
    changed("relabel.type=hindsight", f"training.{change}", tmp_path=tmp_path)
    with pytest.raises(ConfigError, match=message):
        changed(f"training.{change}", tmp_path=tmp_path)  # it is the default
