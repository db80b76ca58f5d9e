"""The settings reference: it is up to date, and says what the sections say."""

import re

import pytest
import yaml

from hir_core.config import JudgeReward, RunConfig, TrainingConfig
from hir_core.config.reference import BEGIN, END, LONG, README, render, replaced, types_of
from hir_core.prompts.load import READERS
from hir_core.relabelers.registry import RELABELERS
from hir_core.rewards.registry import REWARDS


def rows_below(heading: str) -> dict[str, list[str]]:
    """The cells of the tables below a heading, by their first cell."""
    text = f"\n{render()}".split(f"\n{heading}\n")[1].split("\n#")[0]
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in text.splitlines() if line.startswith("| `")]
    return {first.strip(" `"): [cell.strip() for cell in rest] for first, *rest in cells}


def test_the_page_is_up_to_date():
    """Where this fails: `python -m hir_core.config.reference`."""
    assert replaced(README.read_text()) == README.read_text()


def test_every_key_of_a_run_stands_in_the_first_table():
    text = render().split("\n### `model`\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(RunConfig.model_fields)


@pytest.mark.parametrize(
    ("key", "known"),
    [("prompts", [*READERS]), ("reward", [*REWARDS, "combined", "reward_model"]), ("relabel", [*RELABELERS])],
)
def test_every_type_is_listed(key, known):
    assert set(types_of(key)) == set(known)
    assert set(types_of(key)) <= set(rows_below(f"### `{key}`"))


def test_a_key_without_types_has_none():
    with pytest.raises(KeyError):
        types_of("training")


def test_a_setting_has_its_type_bounds_default_and_description():
    rows = rows_below("### `training`")
    assert set(rows) == set(TrainingConfig.model_fields)
    description = TrainingConfig.model_fields["batch_size"].description
    assert rows["batch_size"] == ["whole number, at least 1", "`64`", description]
    assert rows["label_smoothing"][:2] == ["number, at least 0, less than 1", "`0.0`"]
    assert rows["schedule"][:2] == ["`constant` or `linear` or `cosine`", "`constant`"]
    assert rows["steps"][:2] == ["whole number, at least 1", "none"]
    assert rows["micro_batch_tokens"][2].endswith("*Not in version ids.*")


def test_types_of_lists_and_mappings_are_in_plain_words():
    assert rows_below("### All keys of a run")["prompts"][:2] == ["list of [settings](#prompts), not empty", "required"]
    assert rows_below("### `sampling`")["mix"][:2] == ["for each name: number, at least 0", "none"]
    assert rows_below("### `select`")["drop_prompts"][:2] == ["list of `all_wrong` or `all_right`", "`[]`"]
    assert rows_below("### All keys of a comparison")["seeds"][:2] == ["list of whole numbers, not empty", "required"]


def test_the_warm_start_has_only_what_differs_from_training():
    assert rows_below("### `warm_start`").keys() == {"demonstrations", "label_smoothing", "contrastive", "entropy"}


def test_a_part_of_a_combined_reward_stands_below_it():
    assert {"name", "weight", "reward"} <= rows_below("#### `reward` of `type: combined`").keys()


def test_every_default_in_a_table_is_what_yaml_reads_as_the_default():
    for name, (_, default, _) in rows_below("### `training`").items():
        value = TrainingConfig.model_fields[name].default
        assert default == "none" if value is None else type(value)(yaml.safe_load(default.strip("`"))) == value


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{END}{END}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_the_two_comments_is_refused(text):
    with pytest.raises(ValueError, match="once each, in this order"):
        replaced(text)


def test_what_stands_around_the_comments_stays():
    text = replaced(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert text.startswith(f"before\n{BEGIN}\n\n### All keys of a run\n")
    assert text.endswith(f"\n{END}\nafter\n")
    assert "old" not in text.split(BEGIN)[0]
    assert replaced(text) == text


def test_a_long_default_stands_below_its_table():
    default = JudgeReward.model_fields["template"].default
    assert len(default) > LONG
    assert f"```text\n{default.rstrip()}\n```" in render()
