"""The reward `constraints`: the share of a prompt's constraints that the completion satisfies; 1 is all of them.

The constraints are in the prompt's metadata: `{"constraints": [{"kind": "words_exactly", "value": 3}, ...]}`.
"""

from __future__ import annotations

from statistics import fmean

from hir_core.errors import ConfigError
from hir_core.prompts.constraints.registry import check, describe_all, read_constraints
from hir_core.rewards.reward import PromptRow, RowReward, Verdict, shortened

REASON_WIDTH = 200


class Constraints(RowReward):
    """Checks every constraint of the prompt: R = satisfied / all; the parts are the same share per kind of constraint.

    Constraints that a program can check, as in HiR (arXiv 2512.23457).
    """

    name = "constraints"

    def unusable(self, prompt: PromptRow) -> str | None:
        if "constraints" not in prompt["metadata"]:
            return "its metadata has no `constraints`: add a list of them, or choose another reward"
        try:
            read_constraints(prompt["metadata"]["constraints"])
        except ConfigError as error:  # reported together with the prompt that it belongs to
            return str(error)
        return None

    def verdict(self, completion: str, prompt: PromptRow) -> Verdict:
        constraints = read_constraints(prompt["metadata"]["constraints"])
        results = [(constraint, check(constraint, completion)) for constraint in constraints]
        parts = {
            kind: fmean(is_met for constraint, is_met in results if constraint.kind == kind)
            for kind in {constraint.kind for constraint in constraints}
        }
        unmet = [constraint for constraint, is_met in results if not is_met]
        if not unmet:
            return Verdict(1.0, f"meets all {len(constraints)}", parts)
        reason = f"unmet: {shortened(describe_all(unmet), REASON_WIDTH)}"
        return Verdict((len(constraints) - len(unmet)) / len(constraints), reason, parts)
