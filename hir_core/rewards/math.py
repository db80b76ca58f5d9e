"""The reward `math`: 1 where the mathematics in a completion equals an accepted answer, else 0, by computer algebra.

Needs math-verify, of hir's extra `math`; it is imported only in the process that compares.
"""

from __future__ import annotations

import logging
import re
import resource
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from hir_core.config import MathReward
from hir_core.errors import ConfigError
from hir_core.progress import OnRows, ignore
from hir_core.rewards.reward import PromptRow, Reward, Verdict, after_marker, shortened
from hir_core.time_limit import Work, process_rows

MEMORY_LIMIT_BYTES = 4 << 30
"""Memory limit of the process that compares: an answer like 9^9^9^9 would need more than any machine has."""
NO_MATHS, NO_REFERENCE, NOT_COMPARED = "no maths", "reference is no maths", "cannot be compared"
_DELIMITER = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")
_LONGEST_FORMULA = 200
"""Characters of a completion that may be one formula without delimiters around it."""


class Math(Reward):
    """Compares each completion with the accepted answers by computer algebra, under a time and a memory limit.

    `1/2`, `0.5` and `\\frac{2}{4}` are equal. A completion without mathematics is not an answer, and cannot be judged;
    neither can one that takes too long or too much memory to compare.

    Raises:
        ConfigError: math-verify is not installed.
    """

    name = "math"
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
        answers = [after_marker(completion, self.config.marker) for completion in completions]
        pairs = zip(answers, prompts, strict=True)
        rows = [{"text": text, "references": prompt["references"]} for text, prompt in pairs if text is not None]
        work = Work("hir_core.rewards.math:make_comparer")
        results = iter(process_rows(work, rows, self.config.time_limit_s, on_rows))
        verdicts = []
        for completion, text, prompt in zip(completions, answers, prompts, strict=True):
            if text is None:
                verdicts.append(Verdict(None, f"no {self.config.marker!r}: {shortened(completion)}"))
                continue
            result = next(results)
            if result.problem or isinstance(result.value, str):
                verdicts.append(Verdict(None, f"{result.problem or result.value}: {shortened(completion)}"))
            else:
                relation = "equals" if result.value else "expected"
                reason = f"{relation} {shortened(' or '.join(prompt['references']))}"
                verdicts.append(Verdict(float(bool(result.value)), reason))
        return verdicts


def make_comparer(settings: dict[str, Any]) -> Callable[[dict[str, Any]], bool | str]:
    """The function that the process under a time limit runs on each row.

    It takes `{"text": ..., "references": [...]}` and returns whether they are equal, or why that is not known.
    """
    del settings
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off

    def read(text: str) -> list[Any]:
        return list(math_verify.parse(text, fallback_mode="no_fallback", parsing_timeout=0, raise_on_error=True))

    def is_equal(row: dict[str, Any]) -> bool | str:
        answers = [read(text) for text in readings_of(row["text"])]
        accepted = [
            read(reference if _DELIMITER.search(reference) else f"${reference}$") for reference in row["references"]
        ]
        if not any(answers):
            return NO_MATHS
        if not any(accepted):
            return NO_REFERENCE
        pairs = ((gold, answer) for gold in accepted for answer in answers if gold and answer)
        return any(math_verify.verify(gold, answer, timeout_seconds=0, raise_on_error=True) for gold, answer in pairs)

    def compare(row: dict[str, Any]) -> bool | str:
        try:
            return is_equal(row)
        except Exception:  # noqa: BLE001 - computer algebra on any text: recursion, memory, its own errors
            return NOT_COMPARED

    return compare


def readings_of(text: str) -> list[str]:
    """The texts to parse: the text itself and, where it may be a formula without delimiters, it between delimiters."""
    plain = text.strip()
    if not plain or len(plain) > _LONGEST_FORMULA or "\n" in plain or _DELIMITER.search(plain):
        return [text]
    return [text, f"${plain}$"]
