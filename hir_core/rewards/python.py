"""The reward `python`: scores from a function of the user's, which the config names as `module:function`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

from hir_core.config import PythonReward
from hir_core.dynamic_imports import UserFunction, is_text
from hir_core.errors import RewardError
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import PromptRow, Reward, Verdict, shortened
from hir_core.time_limit import RowResult, Work, process_rows

Judged = float | None | dict[str, float | None]
"""What a function returns for one completion, as plain values: a score, None, or scores by attribute."""
OVERALL = "score"
"""The name under which a function returns the overall score among its attributes."""


class PythonFunction(Reward):
    """Calls a function of the user's once, with all completions and their rows of the Prompts table.

    The function returns for each completion a number, None (cannot judge), or several numbers by name: the attributes,
    with the overall score as `score`, which is their mean where it is left out. Anything else is a RewardError that
    names the row. With a time limit, the function is called in a separate process, with one completion at a time.

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
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        if self.config.time_limit_s is None:
            results = [RowResult(judged) for judged in self.scores(list(completions), list(prompts))]
        else:
            pairs = enumerate(zip(completions, prompts, strict=True))
            rows = [{"row": row, "completion": text, "prompt": prompt} for row, (text, prompt) in pairs]
            work = Work("hir_core.rewards.python:make_scorer", {"type": "python", "function": self.name})
            results = process_rows(work, rows, self.config.time_limit_s, on_rows)
        self._check_attributes([result.value for result in results], completions, prompts)
        return [
            Verdict(None, f"{result.problem}: {shortened(text)}") if result.problem else _verdict(result.value)
            for result, text in zip(results, completions, strict=True)
        ]

    def scores(self, completions: list[str], prompts: list[PromptRow], first: int = 0) -> list[Judged]:
        """The function's scores as plain numbers; a number that is too large for a float is infinite.

        Args:
            first: the number of the first row, for messages.

        Raises:
            RewardError: the function raised, or returned something else than a number, None or attributes.
        """
        rows = f"rows {first} to {first + len(completions) - 1}"
        where = f"on a batch of {len(completions)} completions, {rows}"
        returned = self._function(completions, prompts, what="score", where=where)
        for row, judged in enumerate(returned):
            if problem := _problem(judged):
                raise RewardError(
                    f"reward {self.name}: expected a number or None for each completion, or several numbers by name, "
                    f"found {problem} for row {first + row}, {_location(completions[row], prompts[row])}"
                )
        return [
            {name: _float(score) for name, score in judged.items()} if isinstance(judged, Mapping) else _float(judged)
            for judged in returned
        ]

    def _check_attributes(
        self, results: Sequence[Judged], completions: Sequence[str], prompts: Sequence[PromptRow]
    ) -> None:
        """Makes sure that all judged completions have the same attributes: another name is most likely a typo."""
        names_by_row = {
            row: sorted(judged) if isinstance(judged, dict) else None
            for row, judged in enumerate(results)
            if judged is not None
        }
        first = next(iter(names_by_row), 0)
        for row, names in names_by_row.items():
            if names != names_by_row[first]:
                found, first_found = (
                    "one number" if names is None else ", ".join(names) for names in (names, names_by_row[first])
                )
                raise RewardError(
                    f"reward {self.name}: expected the same attributes for every completion, found {found} for row "
                    f"{row}, {_location(completions[row], prompts[row])}, and {first_found} for row {first}: "
                    f"give None to an attribute that cannot be judged"
                )


def make_scorer(settings: dict[str, Any]) -> Callable[[dict[str, Any]], Judged]:
    """The function that the process under a time limit runs on each row, made from the reward's settings."""
    reward = PythonFunction(PythonReward(**settings))
    return lambda row: reward.scores([row["completion"]], [row["prompt"]], row["row"])[0]


def _problem(judged: Any) -> str | None:
    """What is wrong with a value that the function returned for one completion; None where it is valid."""
    if not isinstance(judged, Mapping):
        return None if _is_score(judged) else f"{judged!r} of type {type(judged).__name__}"
    if not judged:
        return f"{judged!r}, which names no attribute,"
    if invalid_names := [name for name in judged if not (is_text(name) and name.strip())]:
        return f"{invalid_names[0]!r} as a name"
    for name, score in judged.items():
        if not _is_score(score):
            return f"{score!r} of type {type(score).__name__} as `{name}`"
    return None


def _is_score(value: Any) -> bool:
    return value is None or isinstance(value, Real)


def _location(completion: str, prompt: PromptRow) -> str:
    return f"prompt {prompt.get('prompt_id')}, completion {shortened(completion)}"


def _verdict(judged: Judged) -> Verdict:
    if not isinstance(judged, dict):
        return Verdict(judged, "cannot judge" if judged is None else "")
    parts = {name: score for name, score in judged.items() if name != OVERALL}
    if OVERALL in judged:
        return Verdict(judged[OVERALL], "cannot judge" if judged[OVERALL] is None else "", parts)
    scores = [score for score in parts.values() if score is not None]
    if len(scores) == len(parts):
        return Verdict(sum(scores) / len(scores), "", parts)
    # The mean of the other attributes would not be on the same scale.
    missing = ", ".join(name for name, score in parts.items() if score is None)
    return Verdict(None, f"cannot judge: {missing}", parts)


def _float(score: Real | None) -> float | None:
    try:
        return None if score is None else float(score)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf
