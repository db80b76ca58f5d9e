"""The reward `python`: a function of the user's, named `module:function`.

It is called once with all completions and their rows of the Prompts table, `metadata` decoded, and returns for each one
number, None (cannot judge), or several of them by name: the attributes, with `score` for all together, which is their
mean where it is left out. Whatever else it does ends in a RewardError that says where. Under a time limit it is called
in a process of its own, with one completion at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from hir_core.config import PythonReward
from hir_core.dynamic_imports import UserFunction, is_text
from hir_core.errors import RewardError
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import Reward, Verdict, shortened
from hir_core.rewards.time_limit import Answer, Work, answers

Judged = float | None | dict[str, float | None]
"""What a function says of one completion, as plain values."""
JOINT = "score"


class PythonFunction(Reward):
    """Asks a function of the user's.

    Raises:
        ConfigError: there is no such module or function.
    """

    config: PythonReward

    def __init__(self, config: PythonReward) -> None:
        super().__init__(config)
        self.name = config.function
        self._function = UserFunction(config.function, "reward.function")

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), **self._function.fingerprint()}

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        found = self._answers(completions, prompts, on_rows)
        self._check_attributes([answer.value for answer in found], completions, prompts)
        return [
            Verdict(None, f"{answer.problem}: {shortened(text)}") if answer.problem else _verdict(answer.value)
            for answer, text in zip(found, completions, strict=True)
        ]

    def _answers(self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], on_rows: OnRows) -> list[Answer]:
        if self.config.time_limit_s is None:
            return [Answer(judged) for judged in self.scores(list(completions), list(prompts))]
        pairs = enumerate(zip(completions, prompts, strict=True))
        rows = [{"row": row, "completion": text, "prompt": prompt} for row, (text, prompt) in pairs]
        work = Work("hir_core.rewards.python:make_scorer", {"type": "python", "function": self.name})
        return answers(work, rows, self.config.time_limit_s, on_rows)

    def scores(self, completions: list[str], prompts: list[dict[str, Any]], first: int = 0) -> list[Judged]:
        """The function's scores, as plain numbers; a number too large for one is infinite.

        Args:
            first: the number of the first row, for messages.

        Raises:
            RewardError: the function raised, or returned for a completion neither a number nor None nor attributes.
        """
        rows = f"rows {first} to {first + len(completions) - 1}"
        where = f"on a batch of {len(completions)} completions, {rows}"
        found = self._function(completions, prompts, what="score", where=where)
        for row, judged in enumerate(found):
            if problem := _problem(judged):
                raise RewardError(
                    f"reward {self.name}: expected a number or None for each completion, or several of them by name, "
                    f"found {problem} for row {first + row}, {_place(completions[row], prompts[row])}"
                )
        return [_plain(judged) for judged in found]

    def _check_attributes(
        self, found: Sequence[Judged], completions: Sequence[str], prompts: Sequence[dict[str, Any]]
    ) -> None:
        """Makes sure that all judged completions have the same attributes: another name is a slip of the pen."""
        named = {row: _names(judged) for row, judged in enumerate(found) if judged is not None}
        first = next(iter(named), 0)
        for row, names in named.items():
            if names != named[first]:
                raise RewardError(
                    f"reward {self.name}: expected the same attributes for every completion, found {_told(names)} for "
                    f"row {row}, {_place(completions[row], prompts[row])}, and {_told(named[first])} for row {first}: "
                    f"give None to an attribute that cannot be judged"
                )


def make_scorer(settings: dict[str, Any]) -> Callable[[dict[str, Any]], Judged]:
    """The function as work on one row, for a process under a time limit."""
    reward = PythonFunction(PythonReward(**settings))
    return lambda row: reward.scores([row["completion"]], [row["prompt"]], row["row"])[0]


def _problem(judged: Any) -> str | None:
    """What is wrong with what a function says of one completion; None where nothing is."""
    if not isinstance(judged, Mapping):
        return None if _is_score(judged) else f"{judged!r} of type {type(judged).__name__}"
    if not judged:
        return f"{judged!r}, which names none,"
    if unnamed := [name for name in judged if not (is_text(name) and name.strip())]:
        return f"{unnamed[0]!r} as a name"
    wrong = [(name, score) for name, score in judged.items() if not _is_score(score)]
    return f"{wrong[0][1]!r} of type {type(wrong[0][1]).__name__} as `{wrong[0][0]}`" if wrong else None


def _is_score(given: Any) -> bool:
    return given is None or isinstance(given, Real)


def _place(completion: str, prompt: dict[str, Any]) -> str:
    return f"prompt {prompt.get('prompt_id')}, completion {shortened(completion)}"


def _names(judged: Judged) -> list[str] | None:
    return sorted(judged) if isinstance(judged, dict) else None


def _told(names: Sequence[str] | None) -> str:
    return "one number" if names is None else ", ".join(names)


def _verdict(judged: Judged) -> Verdict:
    if not isinstance(judged, dict):
        return Verdict(judged, "cannot judge" if judged is None else "")
    parts = {name: score for name, score in judged.items() if name != JOINT}
    if JOINT in judged:
        return Verdict(judged[JOINT], "cannot judge" if judged[JOINT] is None else "", parts)
    scores = [score for score in parts.values() if score is not None]
    if len(scores) == len(parts):
        return Verdict(sum(scores) / len(scores), "", parts)
    # A mean of the others would not be on the same scale.
    missing = ", ".join(name for name, score in parts.items() if score is None)
    return Verdict(None, f"cannot judge: {missing}", parts)


def _plain(judged: Any) -> Judged:
    if isinstance(judged, Mapping):
        return {name: _number(score) for name, score in judged.items()}
    return _number(judged)


def _number(score: Real | None) -> float | None:
    try:
        return None if score is None else float(score)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf
