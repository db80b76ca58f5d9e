"""The reward `math`: 1 where the mathematics in a completion equals an accepted answer, else 0, as math-verify sees it.

`1/2`, `0.5` and `\\frac{2}{4}` are equal. A completion without anything that can be read as mathematics is a slip of
form and not a wrong answer: it cannot be judged, nor can one that takes too long or too much memory to compare.
math-verify is an extra, and is imported in the process that does the work only.
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
from hir_core.rewards.reward import Reward, Verdict, after_marker, shortened
from hir_core.rewards.time_limit import Work, answers

MEMORY_LIMIT_BYTES = 4 << 30
"""A short power tower asks for more than any machine has."""
NO_MATHS, NO_REFERENCE, NOT_COMPARED = "no maths", "reference is no maths", "cannot be compared"
_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed|\\begin")
_LONGEST_WHOLE = 200
"""Characters of a completion that may be a formula as a whole, without delimiters around it."""


class Math(Reward):
    """Compares by computer algebra, each completion under a time limit.

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

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        if not any(reference.strip() for reference in prompt["references"]):
            return "it has no reference: add `references`, or choose a reward that needs none"
        return None

    def verdicts(
        self, completions: Sequence[str], prompts: Sequence[dict[str, Any]], *, on_rows: OnRows = ignore
    ) -> list[Verdict]:
        texts = [after_marker(completion, self.config.marker) for completion in completions]
        pairs = zip(texts, prompts, strict=True)
        rows = [{"text": text, "references": prompt["references"]} for text, prompt in pairs if text is not None]
        work = Work("hir_core.rewards.math:make_comparer")
        found = iter(answers(work, rows, self.config.time_limit_s, on_rows))
        return [
            Verdict(None, f"no {self.config.marker!r}: {shortened(completion)}")
            if text is None
            else _verdict(next(found), completion, prompt["references"])
            for text, completion, prompt in zip(texts, completions, prompts, strict=True)
        ]


def _verdict(found: Any, completion: str, references: Sequence[str]) -> Verdict:
    if found.problem or isinstance(found.value, str):
        return Verdict(None, f"{found.problem or found.value}: {shortened(completion)}")
    if found.value:
        return Verdict(1.0, f"equals {shortened(' or '.join(references))}")
    return Verdict(0.0, f"expected {shortened(' or '.join(references))}")


def make_comparer(settings: dict[str, Any]) -> Callable[[dict[str, Any]], bool | str]:
    """The comparison as work on one row, for a process under a time limit: whether it is equal, or why nobody knows."""
    del settings
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    import math_verify

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own time limit is off

    def read(text: str) -> list[Any]:
        return list(math_verify.parse(text, fallback_mode="no_fallback", parsing_timeout=0, raise_on_error=True))

    def is_equal(row: dict[str, Any]) -> bool | str:
        readings = [read(text) for text in readings_of(row["text"])]
        accepted = [
            read(reference if _DELIMITED.search(reference) else f"${reference}$") for reference in row["references"]
        ]
        if not any(readings):
            return NO_MATHS
        if not any(accepted):
            return NO_REFERENCE
        pairs = ((gold, given) for gold in accepted for given in readings if gold and given)
        return any(math_verify.verify(gold, given, timeout_seconds=0, raise_on_error=True) for gold, given in pairs)

    def comparer(row: dict[str, Any]) -> bool | str:
        try:
            return is_equal(row)
        except Exception:  # noqa: BLE001 - computer algebra on any text: recursion, memory, its own faults
            return NOT_COMPARED

    return comparer


def readings_of(text: str) -> list[str]:
    """The text, and where it may be a formula without delimiters, also as a formula as a whole."""
    plain = text.strip()
    if not plain or len(plain) > _LONGEST_WHOLE or "\n" in plain or _DELIMITED.search(plain):
        return [text]
    return [text, f"${plain}$"]
