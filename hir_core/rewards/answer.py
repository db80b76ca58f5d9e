"""The reward `answer`: 1 where a completion's final answer is a reference's, 0 where it is another one.

The references say by themselves of which kind the answer is: an option, a number, yes or no, a list, or a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from hir_core.config import AnswerReward
from hir_core.rewards.option_choice import Offered, judge_option, offered
from hir_core.rewards.reading.decision import final_answer
from hir_core.rewards.reading.lists import ListReader, is_list
from hir_core.rewards.reading.numbers import NumberReader, Quantity, is_rounded
from hir_core.rewards.reading.options import options_in
from hir_core.rewards.reading.per_prompt import PerPrompt
from hir_core.rewards.reading.texts import TextReader
from hir_core.rewards.reading.truth import PAIRS, TruthReader, polarity
from hir_core.rewards.reading.units import differ_in_unit
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, shortened

NO_ANSWER = "no answer"
Judge = Callable[[str, str | None], Verdict]
"""Judges a completion, whose answer follows a marker if there is one."""


class Answer(RowReward):
    """Looks for the final answer of a completion, and compares it as the kind of answer that the references are.

    A completion that names several answers, contradicts itself or is not understood cannot be judged, and so is never
    trained on as a wrong one.
    """

    name = "answer"
    config: AnswerReward

    def __init__(self, config: AnswerReward) -> None:
        super().__init__(config)
        self._choices = PerPrompt(choices_of)
        self._judge = PerPrompt(lambda prompt: judge_of(prompt, self._choices(prompt)))

    def unusable(self, prompt: PromptRow) -> str | None:
        if not any(reference.strip() for reference in prompt["references"]):
            return "it has no reference: add `references`, or choose a reward that needs none"
        if prompt["options"] and not self._choices(prompt).right:
            return f"none of its references {prompt['references']!r} is one of its options: correct them"
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        return self._judge(prompt)(completion, self.config.marker)


def choices_of(prompt: PromptRow) -> Offered:
    """The options of a prompt, or those that only its query lists."""
    return offered(prompt, [] if prompt["options"] else options_in(prompt["query"]))


def judge_of(prompt: PromptRow, choices: Offered) -> Judge:
    """What judges the completions of a prompt.

    Args:
        prompt: its references say which kind of answer it takes.
        choices: its options, with the right ones; for most prompts there are none.
    """
    if prompt["options"] or choices.right:
        return lambda completion, marker: judge_option(completion, choices, marker)
    query, references = prompt["query"], [reference for reference in prompt["references"] if reference.strip()]
    by_kind: dict[str, list[str]] = {}
    for reference in references:
        by_kind.setdefault(kind_of(reference, query), []).append(reference)
    judges = [_judge_of_kind(kind, found, query) for kind, found in by_kind.items()]
    return judges[0] if len(judges) == 1 else _any_of(judges)


def kind_of(reference: str, query: str) -> str:
    """The kind of answer that a reference is: `number`, `truth`, `list` or `text`."""
    reader = NumberReader()
    if reader.bare(reader.standard_form(reference)) is not None:
        return "number"
    found = polarity(reference)
    if found and (found[0] in ("yes", "true") or dict(PAIRS)[found[0]] in query.lower()):
        return "truth"
    return "list" if is_list(reference, query) else "text"


def _judge_of_kind(kind: str, references: Sequence[str], query: str) -> Judge:
    if kind == "number":
        return _NumberJudge(references, query)
    if kind == "list":
        return _comparing(ListReader(references), references)
    if kind == "truth":
        known = [found for found in map(polarity, references) if found]
        if len({value for _, value in known}) == 1:
            return _truth_judge(TruthReader(known[0][0], query), known[0][1], references)
    return _comparing(TextReader(references, query), references)


def _any_of(judges: Sequence[Judge]) -> Judge:
    """The best verdict of several judges; wrong only where all of them say so."""

    def judge(completion: str, marker: str | None) -> Verdict:
        verdicts = [judge(completion, marker) for judge in judges]
        right = [verdict for verdict in verdicts if verdict.score]
        unknown = [verdict for verdict in verdicts if verdict.score is None]
        return (right or unknown or verdicts)[0]

    return judge


def _comparing(reader: ListReader | TextReader, references: Sequence[str]) -> Judge:
    def judge(completion: str, marker: str | None) -> Verdict:
        reading = reader.read(completion, marker)
        return reading.unscored(completion, NO_ANSWER) if reading.value is None else _verdict(reading.value, references)

    return judge


def _truth_judge(reader: TruthReader, expected: bool, references: Sequence[str]) -> Judge:
    def judge(completion: str, marker: str | None) -> Verdict:
        reading = final_answer(reader, completion, marker)
        return (
            reading.unscored(completion, NO_ANSWER)
            if reading.value is None
            else _verdict(reading.value == expected, references)
        )

    return judge


class _NumberJudge:
    """Compares numbers, whose units and percent signs may be left out."""

    def __init__(self, references: Sequence[str], query: str) -> None:
        plain = NumberReader()
        self.references = references
        self.accepted = [
            quantity for reference in references if (quantity := plain.bare(plain.standard_form(reference))) is not None
        ]
        has_decimals = bool(self.accepted) and all(quantity.number.denominator > 1 for quantity in self.accepted)
        self.reader = NumberReader(query=query, decimal_comma=has_decimals)
        self.asks_percent = "percent" in query.lower() or "%" in query
        self.query_words = frozenset(query.lower().split())

    def __call__(self, completion: str, marker: str | None) -> Verdict:
        reading = final_answer(self.reader, completion, marker)
        if reading.value is None:
            return reading.unscored(completion, NO_ANSWER)
        answer: Quantity = reading.value
        if any(_are_equal(answer.number, accepted.number) for accepted in self.accepted):
            is_other_unit = all(differ_in_unit(answer, accepted) for accepted in self.accepted)
            return (
                Verdict(None, f"another unit: {shortened(completion)}")
                if is_other_unit
                else _verdict(True, self.references)
            )
        for accepted in self.accepted:
            if answer.is_percent != accepted.is_percent and _are_equal(_written(answer), _written(accepted)):
                if self.asks_percent or accepted.is_percent:
                    return _verdict(True, self.references)
                return Verdict(None, f"percent or not: {shortened(completion)}")
            if is_rounded(answer, accepted.number) or is_rounded(accepted, answer.number):
                return Verdict(None, f"rounded: {shortened(completion)}")
            if differ_in_unit(answer, accepted):
                return Verdict(None, f"another unit: {shortened(completion)}")
        return _verdict(False, self.references)


def _written(quantity: Quantity) -> Fraction:
    """The number before the percent sign."""
    return quantity.number * 100 if quantity.is_percent else quantity.number


def _are_equal(one: Fraction, other: Fraction) -> bool:
    if one == other:
        return True
    are_small_integers = one.denominator == other.denominator == 1 and abs(other.numerator) < 10**9
    return not are_small_integers and abs(one - other) * 10**9 <= abs(other)


def _verdict(is_right: bool, references: Sequence[str]) -> Verdict:
    relation = "equals" if is_right else "expected"
    return Verdict(float(is_right), f"{relation} {shortened(' or '.join(references))}")
