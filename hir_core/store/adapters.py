"""Models that are stored as an adapter: which version is the whole model that such a one belongs to.

With LoRA, the model of iteration 0 is stored whole, and each later one as its adapter only. That model is a parent of
each, the last one of its stage. Reads manifests. Raises VersionNotFound and VersionCorrupt.
"""

from __future__ import annotations

from hir_core.store.manifest import Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


def is_adapter(model: Manifest) -> bool:
    """Whether a model is stored as an adapter only."""
    from hir_core.config.model_folder import ADAPTER_WEIGHTS  # its package takes long to import

    return any(part.name == ADAPTER_WEIGHTS for part in model.parts)


def base_name(model: Manifest) -> str | None:
    """The whole model that an adapter belongs to, as `models/id`; None of a model that is itself whole."""
    return model.parents_of("models")[-1] if is_adapter(model) else None


def base_of(store: Store, ref: VersionRef) -> VersionRef:
    """The whole model that a version belongs to: itself where it is no adapter.

    Raises:
        VersionNotFound: it, or the whole model, is not there.
        VersionCorrupt: its manifest is damaged.
    """
    name = base_name(store.manifest(ref))
    return ref if name is None else store.resolve(name)
