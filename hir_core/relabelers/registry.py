"""Which relabeler a config's `type` means."""

from __future__ import annotations

from hir_core.relabelers.hindsight import Hindsight
from hir_core.relabelers.keep_correct import KeepCorrect
from hir_core.relabelers.relabeler import Relabeler
from hir_core.sections import Instructions, RelabelConfig

RELABELERS: dict[str, type[Relabeler]] = {"hindsight": Hindsight, "keep_correct": KeepCorrect}


def build_relabeler(config: RelabelConfig, instructions: Instructions) -> Relabeler:
    """The relabeler that the config names, with the instructions of the run."""
    return RELABELERS[config.type](config.threshold, instructions)
