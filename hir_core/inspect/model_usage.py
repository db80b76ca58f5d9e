"""How a model version is asked: the prompt format, the instruction and the limits that its run used, and its files.

For `hir chat`, `hir serve` and `hir export`. All of it is in the manifests of the model and of its evaluation, so it is
known whatever became of the config. Reads manifests, and checks the digests of the weights; writes nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hir_core.config import HubModel, LoraConfig
from hir_core.errors import VersionNotFound
from hir_core.launch.job_spec import Adapter
from hir_core.store.adapters import base_of
from hir_core.store.manifest import Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


class ModelUsage(NamedTuple):
    """A model version, and how its run asks it for a correct answer."""

    model: HubModel
    """The whole model, with what decides how its prompts are rendered."""
    adapter: Adapter | None
    """The adapter beside it, where the version is one."""
    bf16: bool
    """The number format in which it was trained; otherwise fp32."""
    instruction: str
    """Empty where the query stands alone."""
    stop: tuple[str, ...]
    """Texts that end an output."""
    max_new_tokens: int
    """Longest answer of an evaluation, in tokens."""
    has_conversations: bool
    """Whether prompts of the run have turns before their query."""


def model_usage(store: Store, ref: VersionRef) -> ModelUsage:
    """How a model version is asked, as it was for its evaluation.

    Raises:
        VersionNotFound: there is no such version, or it was not evaluated yet.
        VersionCorrupt: its files are not what their manifest says.
        StoreError: its weights were deleted.
    """
    asked, trained, base = _evaluation(store, ref), store.manifest(ref).config, base_of(store, ref)
    adapter = None
    if base != ref:
        lora = LoraConfig.model_validate(trained["lora"])
        adapter = Adapter(lora=lora, folder=store.folder(ref).resolve())
    rendering: dict[str, Any] = {
        name: asked.config[name] for name in ("template", "chat_template_kwargs", "thinking") if name in asked.config
    }
    prompts = store.parents(store.resolve(f"evaluations/{asked.id}"), "prompts")
    return ModelUsage(
        model=HubModel(source=str(store.folder(base).resolve()), **rendering),
        adapter=adapter,
        bf16=bool(trained["bf16"]),
        instruction=asked.config["instruction"],
        stop=tuple(asked.config.get("stop", ())),
        max_new_tokens=asked.config["max_new_tokens"],
        has_conversations=any(version.metrics.get("conversations") for version in prompts),
    )


def _evaluation(store: Store, ref: VersionRef) -> Manifest:
    """The last evaluation of a model."""
    evaluations = [store.manifest(found) for found in store.versions("evaluations") if found.iteration == ref.iteration]
    own = [evaluation for evaluation in evaluations if str(ref) in evaluation.parents]
    if not own:
        raise VersionNotFound(
            f"{ref} has no evaluation yet, whose settings say how it is asked: run its config again, which makes one"
        )
    return max(own, key=lambda evaluation: evaluation.created)
