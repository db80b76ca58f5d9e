"""The reward `math`: 1 where the mathematics in a completion equals an accepted answer, else 0, by computer algebra.

Needs math-verify, of hir's extra `math`; it is imported only in the process that compares.
"""

from __future__ import annotations

import logging
import re
import resource
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from hir_core.config import MathReward
from hir_core.errors import ConfigError
from hir_core.progress import OnRows, ignore
from hir_core.rewards.formulas.comparison import same
from hir_core.rewards.formulas.kinds import Doubt
from hir_core.rewards.formulas.reader import FormulaReader
from hir_core.rewards.formulas.structure import read
from hir_core.rewards.reading.decision import final_answer
from hir_core.rewards.reading.reader import Reading
from hir_core.rewards.reward import PromptRow, Reward, Verdict, shortened
from hir_core.time_limit import Work, process_rows

MEMORY_LIMIT_BYTES = 4 << 30
"""Memory limit of the process that compares: an answer like 9^9^9^9 would need more than any machine has."""
NOT_COMPARED = "cannot be compared"
_PERCENTAGE = re.compile(r"percent|per cent|%", re.IGNORECASE)


class Math(Reward):
    """Compares the final formula of each completion with the accepted answers.

    `1/2`, `0.5` and `\\frac{2}{4}` are equal, as are `2 < x <= 5` and `(2, 5]`. A completion without a formula names
    no answer. One that gives several, or a formula that is not understood or is too large to compute, is not judged:
    that is told from the formula's form wherever it can be, so that a slow or busy machine judges the same completions.
    What is left is limited by the processor time that it uses.

    Raises:
        ConfigError: math-verify is not installed.
    """

    name = "math"
    judges_in_slices = True
    config: MathReward

    def __init__(self, config: MathReward) -> None:
        super().__init__(config)
        if find_spec("math_verify") is None:
            raise ConfigError('reward.type=math needs math-verify, which is not installed: pip install "hir[math]"')

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "math_verify": version("math-verify")}

    def unusable(self, prompt: PromptRow) -> str | None:
        if not any(reference.strip() for reference in prompt["references"]):
            return "it has no reference: add `references`, or choose a reward that needs none"
        return None

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[PromptRow], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        rows = [
            {"completion": completion, "references": prompt["references"], "query": prompt["query"]}
            for completion, prompt in zip(completions, prompts, strict=True)
        ]
        settings = {"marker": self.config.marker}
        work = Work("hir_core.rewards.math:make_comparer", settings, only_computes=True)
        results = process_rows(work, rows, self.config.time_limit_s, on_rows)
        verdicts = []
        for completion, prompt, result in zip(completions, prompts, results, strict=True):
            equal, problem, names_none = result.value or (None, result.problem, False)
            if equal is None:
                reading = Reading(problem=problem, has_no_answer=names_none)
                verdicts.append(reading.unscored(completion, "no formula"))
            else:
                reason = f"{'equals' if equal else 'expected'} {shortened(' or '.join(prompt['references']))}"
                verdicts.append(Verdict(float(equal), reason))
        return verdicts


Comparison = tuple[bool | None, str, bool]
"""Whether an answer equals a reference or, where that is not known, why, and whether no answer is named at all."""


def make_comparer(settings: dict[str, Any]) -> Callable[[dict[str, Any]], Comparison]:
    """The function that the process under a time limit runs on each row, `{"completion", "references", "query"}`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off
    marker: str | None = settings["marker"]
    _read_grammar()

    def compare(row: dict[str, Any]) -> Comparison:
        try:
            return compared(row["completion"], tuple(row["references"]), row["query"], marker)
        except Exception:  # noqa: BLE001 - computer algebra on any text: recursion, memory, its own errors
            return None, NOT_COMPARED, False

    return compare


def _read_grammar() -> None:
    """Compares once, because the first formula takes much longer than others, which must not count as a row's time."""
    compared(r"$\frac{x}{2} + \sqrt{y^{2}}$", (r"\sin(x)",), "")


_reader = lru_cache(maxsize=512)(FormulaReader)
"""A prompt's completions follow each other, so that its references are read once for all."""


def compared(completion: str, references: tuple[str, ...], query: str, marker: str | None = None) -> Comparison:
    """Whether the final formula of a completion equals one of the references."""
    found = final_answer(_reader(references, query), completion, marker)
    if found.value is None:
        return None, found.problem, found.has_no_answer
    return _equals_one(found.value, references, query)


@lru_cache(maxsize=4096)
def _equals_one(formula: str, references: tuple[str, ...], query: str) -> Comparison:
    """Whether a formula equals one of the references, worked out once for all completions that end with it."""
    in_percent = _PERCENTAGE.search(query) is not None
    doubt = ""
    for reference in _reader(references, query).expected:
        try:
            if same(reference, read(formula), in_percent=in_percent):
                return True, "", False
        except Doubt as error:
            doubt = str(error)
    return (None, doubt, False) if doubt else (False, "", False)
