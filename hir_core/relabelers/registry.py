"""Registry of relabelers by the `type` of a config's section `relabel`, and the function that builds one."""

from __future__ import annotations

from hir_core.config import Instructions, RelabelConfig
from hir_core.config.model import Thinking
from hir_core.relabelers.attributes import Attributes
from hir_core.relabelers.best_of_k import BestOfK
from hir_core.relabelers.chain import Chain
from hir_core.relabelers.constraints import SatisfiedConstraints
from hir_core.relabelers.demonstrations import Demonstrations
from hir_core.relabelers.exclude_wrong import ExcludeWrong
from hir_core.relabelers.hindsight import Hindsight
from hir_core.relabelers.keep_correct import KeepCorrect
from hir_core.relabelers.learned import Learned
from hir_core.relabelers.python import PythonFunction
from hir_core.relabelers.quantiles import Quantiles
from hir_core.relabelers.relabeler import Relabeler

RELABELERS: dict[str, type[Relabeler]] = {
    "hindsight": Hindsight,
    "exclude_wrong": ExcludeWrong,
    "keep_correct": KeepCorrect,
    "best_of_k": BestOfK,
    "demonstrations": Demonstrations,
    "quantiles": Quantiles,
    "attributes": Attributes,
    "chain": Chain,
    "constraints": SatisfiedConstraints,
    "learned": Learned,
    "python": PythonFunction,
}


def build_relabeler(
    config: RelabelConfig, instructions: Instructions, thinking: Thinking | None = None, *, are_distinct: bool = False
) -> Relabeler:
    """The relabeler that the config names, with the instructions of the run.

    Args:
        thinking: the marks around the model's thinking in its outputs; None: it has none.
        are_distinct: whether the samples of a prompt were drawn without replacement.

    Raises:
        ConfigError: a function of the user's cannot be imported.
    """
    relabeler = RELABELERS[config.type](config, instructions)
    relabeler.thinking, relabeler.are_distinct = thinking, are_distinct
    return relabeler
