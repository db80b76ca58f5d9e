"""Whether a model tells the correct and the wrong instruction apart, which is what learning from wrong outputs needs.

Where it does not, an output that is taught under one instruction becomes as likely under the other. Reads the manifests
of a model and of the triples that it was trained on.
"""

from __future__ import annotations

import math

from hir_core.store.manifest import Manifest

NEARLY = 0.95
FROM_ITERATION = 2
"""In the first one a model only begins to learn what the instructions mean."""


def distinguishes_instructions(model: Manifest, triples: Manifest) -> bool | None:
    """Whether the contrast of a model's last pass is well below log 2; None where that says nothing.

    It says something where two instructions were contrasted, from the second iteration on.

    The contrastive term of an output is log 2 where its probability under both instructions is the same, summed or per
    token, smoothed or not: logsumexp(P, P) - P, see `losses.contrastive`.

    Args:
        model: the manifest of a model.
        triples: that of the triples it was trained on.
    """
    training, contrast = model.config.get("training", {}), model.metrics.get("contrastive")
    are_contrasted = training.get("contrastive", 0) > 0 and training.get("contrast") == "instructions"
    if model.iteration < FROM_ITERATION or contrast is None or not are_contrasted:
        return None
    if len(triples.metrics.get("instructions", {})) != 2:
        return None
    return bool(contrast < NEARLY * math.log(2))
