"""What decides each version of a run, and nothing else: the settings that change its content, and its parents.

    prompts@0 -> triples@0 (demonstrations) -> models@0 -> evaluations@0, samples@1
    samples@i -> rewards@i [-> instructions@i] -> triples@i -> models@i -> evaluations@i, samples@(i+1)

A setting that is missing here changes a result under an old name; one too many makes work be done again. Where a run
lies, on how many ranks it runs and how fast must not be here. Reads configs; leaves looking versions up to the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import RunConfig, ScratchModel
from hir_core.config.model_files import model_fingerprint
from hir_core.relabelers.relabeler import Relabeler
from hir_core.rewards.reward import Reward
from hir_core.schemas import Prompts, as_written
from hir_core.store.manifest import Identity, canonical_json, identity
from hir_core.store.version import VersionRef


class Scored(NamedTuple):
    """The samples of one iteration, and what was said of them."""

    samples: VersionRef
    rewards: VersionRef
    instructions: VersionRef | None = None
    """Written for them, where the relabeler is a model."""


class Identities:
    """The identity of every version that one run makes."""

    def __init__(self, config: RunConfig, reward: Reward, relabeler: Relabeler) -> None:
        self.config, self.reward, self.relabeler = config, reward, relabeler
        self.is_bf16 = config.is_bf16

    def prompts(self, rows: pl.DataFrame) -> Identity:
        """Prompts are their rows, wherever these were read from: an edited file makes another version, a moved none."""
        return identity("prompts", 0, {"rows": table_digest(as_written(Prompts, rows))}, ())

    def demonstrations(self, prompts: VersionRef, count: int) -> Identity:
        """Triples for the warm start; where a model relabels, also those that show it how."""
        fingerprint = {
            "relabeler": "demonstrations",
            "count": count,
            "instruction": self.config.instructions.correct,
            "seed": self.config.seed,
        }
        return identity("triples", 0, fingerprint | self._shown(), [str(prompts)])

    def rewards(self, prompts: VersionRef, samples: VersionRef) -> Identity:
        """The threshold decides the share of correct samples in the manifest."""
        fingerprint = {**self._reward(), "threshold": self.config.relabel.threshold}
        return identity("rewards", samples.iteration, fingerprint, [str(prompts), str(samples)])

    def instructions(self, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> Identity:
        """What a model writes of samples, and what is verified of it; the policy is the one that drew them."""
        config, learned = self.config, self.relabeler.instruction_model
        assert learned is not None
        fingerprint = {
            **{
                name: value
                for name, value in learned.fingerprint().items()
                if name not in ("writer", "fallback", "shown")
            },
            **({"writer": model_fingerprint(learned.writer), "bf16": self.is_bf16} if learned.writer else {}),
            "writer_template": (learned.writer or config.model).template,
            "template": config.model.template,
            "instructions": config.instructions.fingerprint(),
            "seed": config.seed,
        }
        return identity("instructions", samples.iteration, fingerprint, [str(prompts), str(samples), str(rewards)])

    def triples(self, prompts: VersionRef, scored: Sequence[Scored]) -> Identity:
        """Triples made from the samples of one iteration, or of the last few."""
        fingerprint = {"relabel": self.relabeler.fingerprint(), "select": self.config.select.fingerprint()}
        parents = [str(ref) for one in scored for ref in one if ref is not None]
        return identity("triples", scored[-1].samples.iteration, fingerprint, [str(prompts), *parents])

    def model(self, prompts: VersionRef, triples: VersionRef | None, previous_model: VersionRef | None) -> Identity:
        """How a model is trained, on what, from which weights; for the seed model, where it comes from."""
        config = self.config
        fingerprint: dict[str, Any] = {"bf16": self.is_bf16}
        parents = [previous_model, triples]
        training = config.warm_start if previous_model is None else config.training
        if triples is not None and training is not None:
            fingerprint |= {"training": training.fingerprint(), "template": config.model.template, "seed": config.seed}
        if previous_model is None:
            fingerprint["model"] = model_fingerprint(config.model)
            if isinstance(config.model, ScratchModel):  # its tokenizer is fitted to the prompts and the instructions
                parents.insert(0, prompts)
                fingerprint |= {"instructions": config.instructions.fingerprint(), "seed": config.seed, **self._shown()}
        iteration = 0 if previous_model is None else previous_model.iteration + 1
        return identity("models", iteration, fingerprint, [str(ref) for ref in parents if ref is not None])

    def evaluation(self, prompts: VersionRef, model: str, iteration: int) -> Identity:
        """Greedy answers and their scores."""
        fingerprint = {
            "instruction": self.config.instructions.correct,
            "template": self.config.model.template,
            "max_new_tokens": self.config.evaluation_tokens,
            **self._guidance(self.config.evaluation_guidance),
            **self._reward(),
            "threshold": self.config.relabel.threshold,
        }
        return identity("evaluations", iteration, fingerprint, [str(prompts), model])

    def samples(self, prompts: VersionRef, model: str, iteration: int) -> Identity:
        """What an iteration draws; `model` is that of the iteration before."""
        fingerprint = {
            "sampling": self.config.sampling.fingerprint(),
            **self._guidance(self.config.sampling.guidance),
            "instruction": self.config.instructions.correct,
            "template": self.config.model.template,
            "seed": self.config.seed,
        }
        return identity("samples", iteration, fingerprint, [str(prompts), model])

    def _shown(self) -> dict[str, Any]:
        """What decides the demonstrations of writing instructions, where there are any."""
        shown = self.relabeler.writing_fingerprint()
        return {"shown": shown} if shown else {}

    def _reward(self) -> dict[str, Any]:
        """A reward that is a model scores otherwise in bf16; any other one does not know of it."""
        fingerprint: dict[str, Any] = {"reward": self.reward.fingerprint()}
        return fingerprint | {"bf16": True} if self.reward.launches and self.is_bf16 else fingerprint

    def _guidance(self, weight: float) -> dict[str, Any]:
        """The wrong instruction decides what is written only where guidance pushes away from it."""
        return {"guidance": weight, "against": self.config.instructions.wrong} if weight else {}


def table_digest(rows: pl.DataFrame) -> str:
    """Digest of a table's values in their order; the same whatever release of polars holds them."""
    digest = hashlib.sha256(canonical_json(rows.columns).encode())
    for row in rows.iter_rows():
        digest.update(canonical_json(row).encode())
    return digest.hexdigest()[:16]
