"""Relabelers: which instruction a scored sample is a correct demonstration of (the paper's phi).

Reads Samples, Rewards and Prompts, returns Triples and counts of what was left out; writes nothing. Losses and batches
are left to the launch, as is a model that
writes instructions: what it wrote comes as a table.
"""

from hir_core.relabelers.believing import believed, shares
from hir_core.relabelers.demonstrations import demonstrations
from hir_core.relabelers.learned import composed, shown_law, writing_demonstrations
from hir_core.relabelers.registry import RELABELERS, build_relabeler
from hir_core.relabelers.relabeler import Relabeler

__all__ = [
    "RELABELERS",
    "Relabeler",
    "believed",
    "build_relabeler",
    "composed",
    "demonstrations",
    "shares",
    "shown_law",
    "writing_demonstrations",
]
