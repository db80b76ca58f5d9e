"""Optimizer steps written by hand, for tests that need the log of a training and no training."""

from hir_core.store.training_log import TrainingStep


def optimizer_step(number: int, loss: float) -> TrainingStep:
    """A step with this loss, and the same rest at every step."""
    terms = {"supervised": loss, "contrastive": 0.25, "entropy": -0.5, "exclusion": 0.0}
    took = {"tokens": 3, "target_tokens": 2, "seconds": 0.5, "tokens_per_s": 6.0, "peak_bytes": 10**9}
    return TrainingStep(step=number, learning_rate=0.1, loss=loss, grad_norm=1.0, **terms, **took)
