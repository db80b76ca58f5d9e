"""An output that only a letter can answer: it is read once for many prompts, as it is read for each of them."""

from pathlib import Path

import pytest
import yaml

from hir_core.rewards.reading import letters
from hir_core.rewards.reading.decision import final_answer
from hir_core.rewards.reading.letters import named_option
from hir_core.rewards.reading.options import OptionReader

SUITE = Path(__file__).parent / "verdicts" / "option_choice.yaml"
OPTIONS = [
    ["the red book", "a book", "Land"], ["is land", "red. book", "land"], ["blue", "B", "C."],
    ["Is it red?", "blue", "+"],
    ["7", "ten", "12 plums"], ["3/4", "7 plums"], ["yes", "no"], ["invalid", "valid"],
    ["é", "", "answer"], ["1/2", "3"],
    ["blue", "not enough information"], ["red", "I do not know"],
]  # fmt: skip
ANSWERS = [
    "B", "(b)", "C.", "(A) land", "the red book", "A  BOOK", "land", "island", "red. Book", "blue", "seven", "often",
    "½", "7", "ten plums", "3/4", "yes", "correct", "not valid", "I do not know", "", "is it red", "+", "é",
    "bo<b>ok</b>", "bo```ok```", "la[THINK]x[/THINK]nd", "\\text{la}nd", "B\t",
]  # fmt: skip
FRAMES = [
    "{}", "{}.", "{}?", "**{}**", "The answer is {}.", "Answer: {}\n", "I choose {}", "It is (A), not {}",
    "{} – “naïve”", "{}, because (B) is wrong", "Maybe {}.", "(A). Wait, no, {}", '"answer": "{}"',
    "assistantfinal{}", "x" * 90 + " {}",
]  # fmt: skip


def shown(options):
    return "\n".join(f"({letter}) {option}" for letter, option in zip("ABCDE", options, strict=False))


@pytest.mark.parametrize("marker", [None, "answer"])
@pytest.mark.parametrize("has_letters", [True, False])
def test_an_output_is_read_as_if_for_its_prompt_alone(has_letters, marker):
    readers = [OptionReader(options, shown(options) if has_letters else "") for options in OPTIONS]
    for output in [frame.format(answer) for frame in FRAMES for answer in ANSWERS]:
        expected = [final_answer(reader, output, marker) for reader in readers]
        assert [named_option(reader, output, marker) for reader in readers] == expected, output


def test_the_outputs_of_the_verdict_suite_are_read_as_if_for_each_prompt_alone():
    entries = yaml.safe_load(SUITE.read_text(encoding="utf-8"))
    readers = [OptionReader(entry["options"], entry["query"]) for entry in entries if entry.get("options")]
    outputs = [
        output for entry in entries for group in ("right", "wrong", "unclear") for output in entry.get(group, [])
    ]
    pairs = [pair for n, output in enumerate(outputs) for pair in ((reader, output) for reader in readers[n % 7 :: 7])]
    alike = [(reader, output) for reader, output in pairs if letters._can_only_name_letters(reader, output)]
    assert len(alike) > len(pairs) / 5
    assert [output for reader, output in alike if named_option(reader, output) != final_answer(reader, output)] == []


@pytest.mark.parametrize(
    ("options", "completion"),
    [
        (["the red book", "a fig"], "the red book"),
        (["the red book", "a fig"], "A RED  BOOK, not (B)"),
        (["land", "sea"], "I choose island (A)"),
        (["7", "8"], "(A) since 3 + 4"),
        (["7", "8"], "seven, (A)"),
        (["red", "blue"], "(A) r<b>e</b>d"),
        (["yes", "no"], "(A)"),
        (["red", "it cannot be determined"], "(A)"),
    ],
)
def test_an_output_that_may_name_an_option_otherwise_is_read_for_its_prompt(options, completion):
    assert not letters._can_only_name_letters(OptionReader(options, shown(options)), completion)
