"""The reward `constraints`: the share of a prompt's constraints that the completion satisfies; all of them is 1.

They stand in the prompt's metadata: `{"constraints": [{"kind": "words_exactly", "value": 3}, ...]}`.
"""

from __future__ import annotations

import json
from statistics import fmean
from typing import Any

from hir_core.errors import ConfigError
from hir_core.prompts.constraints.registry import check, described, read_constraints
from hir_core.rewards.reward import RowReward, Verdict, shortened

REASON_WIDTH = 200


class Constraints(RowReward):
    """Checks every constraint that a prompt asks for; the parts are the shares by kind."""

    name = "constraints"

    def unusable(self, prompt: dict[str, Any]) -> str | None:
        metadata = json.loads(prompt["metadata"] or "{}")
        if "constraints" not in metadata:
            return "its metadata has no `constraints`: add a list of them, or choose another reward"
        try:
            read_constraints(metadata["constraints"])
        except ConfigError as error:  # told with the prompt that it belongs to
            return str(error)
        return None

    def verdict(self, completion: str, prompt: dict[str, Any]) -> Verdict:
        asked = read_constraints(prompt["metadata"]["constraints"])
        met = [(constraint, check(constraint, completion)) for constraint in asked]
        unmet = [constraint for constraint, is_met in met if not is_met]
        parts = {kind: fmean(is_met for one, is_met in met if one.kind == kind) for kind in {c.kind for c in asked}}
        if not unmet:
            return Verdict(1.0, f"meets all {len(asked)}", parts)
        reason = f"unmet: {shortened(described(unmet), REASON_WIDTH)}"
        return Verdict((len(asked) - len(unmet)) / len(asked), reason, parts)
