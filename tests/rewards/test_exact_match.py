"""`exact_match` by joins gives what a comparison of each completion with each reference gives, on any texts."""

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st
from reward_tables import prompts, samples

from hir_core.config import ExactMatchReward
from hir_core.rewards.exact_match import normalised
from hir_core.rewards.registry import build_reward
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, shortened
from hir_core.schemas import Rewards

# Letters whose lower case has another length or depends on the place, all kinds of blanks, digits, stops, quotes.
TEXTS = st.text("aAbİıßẞΣςσéÉ １1203.。, \t\n\r\x0b\x1c\x1f\x85\xa0\u2003\u3000'\"\\\0😀", max_size=6) | st.text(
    max_size=6
)
ANSWERS = TEXTS.filter(normalised)


def plain_verdict(completion, references):
    """The rule of the reward for one completion, as its docstring says it."""
    answer = normalised(completion)
    for reference in references:
        if answer and answer == normalised(reference):
            return "scored", 1.0, f"equals {shortened(reference)}"
    return "scored", 0.0, f"expected {shortened(' or '.join(references))}"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_verdicts_by_joins_are_those_of_each_row(data):
    # Few lists for more prompts, so that prompts share them; completions are often a reference, changed or not.
    lists = data.draw(st.lists(st.tuples(ANSWERS, st.lists(TEXTS, max_size=3)), min_size=1, max_size=3))
    asked = [[first, *rest] for first, rest in data.draw(st.lists(st.sampled_from(lists), min_size=1, max_size=5))]
    references = [text for listed in asked for text in listed]
    completion = TEXTS | st.sampled_from(references) | st.sampled_from(references).map(lambda text: f" {text.upper()}.")
    rows = data.draw(st.lists(st.tuples(st.integers(0, len(asked) - 1), completion), max_size=12))
    answers = pl.DataFrame(
        [(f"p{number}", text) for number, text in rows], schema=["prompt_id", "completion"], orient="row"
    ).cast(pl.String)
    table = prompts(*({"references": listed} for listed in asked))
    reward = build_reward(ExactMatchReward())
    expected = [plain_verdict(text, asked[number]) for number, text in rows]
    judged = reward.judge(answers, table)
    assert judged.select("prompt_id", "completion").equals(answers)
    assert judged.select("outcome", "score", "reason").rows() == expected
    assert judged["parts"].to_list() == [[]] * len(rows)
    one_by_one = reward.verdicts([text for _, text in rows], [{"references": asked[number]} for number, _ in rows])
    assert [(verdict.outcome, verdict.score, verdict.reason) for verdict in one_by_one] == expected


def test_progress_is_counted_in_completions():
    told = []
    answers = samples(*["1"] * 3)
    build_reward(ExactMatchReward()).score(
        answers, prompts({"references": ["1"]}), on_rows=lambda *rows: told.append(rows)
    )
    assert all(done <= total == 3 for done, total in told)


class Length(RowReward):
    """A reward that notes what it judges."""

    name = "length"

    def __init__(self) -> None:
        super().__init__(ExactMatchReward())
        self.judged: list[tuple[str, str]] = []

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        self.judged.append((prompt["prompt_id"], completion))
        return Verdict(float(len(completion)), f"{prompt['prompt_id']} {completion}")


def test_a_row_reward_judges_prompt_by_prompt_and_equal_completions_once():
    rows = [("p0", "a"), ("p1", "bb"), ("p0", "ccc"), ("p1", "a"), ("p0", "a")]
    answers = pl.DataFrame(rows, schema=["prompt_id", "completion"], orient="row")
    reward = Length()
    judged = reward.judge(answers, prompts({"references": ["x"]}, {"references": ["y"]}))
    assert judged.select("reason").rows() == [(f"{prompt} {text}",) for prompt, text in rows]
    assert judged["score"].to_list() == [len(text) for _, text in rows]
    assert reward.judged == [("p0", "a"), ("p0", "ccc"), ("p1", "bb"), ("p1", "a")]
    assert judged["parts"].dtype == Rewards.create_empty().schema["parts"]
