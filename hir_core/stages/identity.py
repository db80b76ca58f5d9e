"""The identity of every version that a run makes: the settings that decide its content, and its parents.

    prompts@0 -> triples@0 (demonstrations) -> models@0 -> evaluations@0, samples@1
    samples@i -> rewards@i [-> instructions@i] -> triples@i -> models@i -> evaluations@i, samples@(i+1)

A setting that is missing here would let a changed result keep an old id; a setting too many would repeat work. Where a
run lies, how many ranks it has and how fast it works must not be in here. Reads configs; looking versions up is left to
the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import polars as pl

from hir_core.config import RunConfig, ScratchModel
from hir_core.config.model import rendering
from hir_core.config.model_files import model_fingerprint
from hir_core.config.relabel import ExcludeWrongRelabel
from hir_core.relabelers.relabeler import Relabeler
from hir_core.rewards.reward import Reward
from hir_core.store.manifest import Identity, canonical_json, identity
from hir_core.store.version import VersionRef


class Scored(NamedTuple):
    """The samples of one iteration with their rewards."""

    samples: VersionRef
    rewards: VersionRef
    instructions: VersionRef | None = None
    """Instructions that a model wrote for the samples; None where rules relabel."""


class Identities:
    """The identity of every version that one run makes."""

    def __init__(self, config: RunConfig, reward: Reward, relabeler: Relabeler) -> None:
        self.config, self.reward, self.relabeler = config, reward, relabeler
        self.is_bf16 = config.is_bf16

    def prompts(self, rows: pl.DataFrame) -> Identity:
        """Prompts: decided by their rows, wherever these were read from, so an edited file makes a new version."""
        return identity("prompts", 0, {"rows": table_digest(rows)}, ())

    def demonstrations(self, prompts: VersionRef, count: int) -> Identity:
        """Triples of the warm start, including those that show how to write instructions."""
        settings = {
            "relabeler": "demonstrations",
            "count": count,
            "instruction": self.config.instructions.correct,
            "seed": self.config.seed,
        }
        return identity("triples", 0, settings | self._writing(), [str(prompts)])

    def rewards(self, prompts: VersionRef, samples: VersionRef) -> Identity:
        """Rewards: the threshold counts because it decides the share of correct samples in the manifest."""
        settings = {**self._reward(), "threshold": self.config.relabel.threshold}
        return identity("rewards", samples.iteration, settings, [str(prompts), str(samples)])

    def instructions(self, prompts: VersionRef, samples: VersionRef, rewards: VersionRef) -> Identity:
        """Instructions that a model writes for samples, and whether they are verified by the model that drew these."""
        config, learned = self.config, self.relabeler.instruction_model
        assert learned is not None
        writer = rendering(learned.writer or config.model)
        # These two belong to relabeling and training, the writer is named by its files.
        not_here = ("writer", "fallback", "shown")
        settings = {
            **{name: value for name, value in learned.fingerprint().items() if name not in not_here},
            **({"writer": model_fingerprint(learned.writer), "bf16": self.is_bf16} if learned.writer else {}),
            **{f"writer_{name}": value for name, value in writer.of_outputs().items()},
            **rendering(config.model).of_prompts(),
            "instructions": config.instructions.fingerprint(),
            "seed": config.seed,
        }
        return identity("instructions", samples.iteration, settings, [str(prompts), str(samples), str(rewards)])

    def triples(self, prompts: VersionRef, scored: Sequence[Scored]) -> Identity:
        """Triples made from the samples of one iteration, or of the last few."""
        settings = {"relabel": self.relabeler.fingerprint(), "select": self.config.select.fingerprint()}
        parents = [str(ref) for iteration in scored for ref in iteration if ref is not None]
        return identity("triples", scored[-1].samples.iteration, settings, [str(prompts), *parents])

    def model(
        self,
        prompts: VersionRef,
        triples: VersionRef | None,
        previous_model: VersionRef | None,
        base: VersionRef | None = None,
    ) -> Identity:
        """A model: how it is trained, on which triples, from which weights; the seed model by where it comes from.

        Args:
            base: with LoRA, the whole model that the previous one belongs to, or is.
        """
        config = self.config
        settings: dict[str, Any] = {"bf16": self.is_bf16}
        parents = [previous_model, triples]
        training = config.warm_start if previous_model is None else config.training
        if triples is not None and training is not None:
            settings |= {"training": training.fingerprint(), "seed": config.seed}
            settings |= rendering(config.model).of_prompts()
            if previous_model is None or not isinstance(config.relabel, ExcludeWrongRelabel):
                for name in ("exclusion", "exclusion_loss", "exclusion_top"):  # nothing is excluded
                    settings["training"].pop(name, None)
            # Under its own key, and only where there is a state: fp32 models hold their own masters.
            del settings["training"]["optimizer_state"]
            state = training.saved_state(self.is_bf16)
            if config.lora is not None:
                settings["lora"] = config.lora.fingerprint()
                if previous_model is None:  # its adapter is merged into the weights, and the next one is new
                    state = "none"
                elif base is not None and base != previous_model:
                    parents.append(base)
            if state != "none":
                settings["optimizer_state"] = state
        if previous_model is None:
            settings["model"] = model_fingerprint(config.model)
            if isinstance(config.model, ScratchModel):  # its tokenizer is fitted to the prompts and the instructions
                parents.insert(0, prompts)
                settings |= {"instructions": config.instructions.fingerprint(), "seed": config.seed, **self._writing()}
        iteration = 0 if previous_model is None else previous_model.iteration + 1
        return identity("models", iteration, settings, [str(ref) for ref in parents if ref is not None])

    def evaluation(self, prompts: VersionRef, model: str, iteration: int) -> Identity:
        """The greedy answers of a model, given as `models/id`, and their scores."""
        settings = {
            "instruction": self.config.instructions.correct,
            **rendering(self.config.model).of_outputs(),
            "max_new_tokens": self.config.evaluation_tokens,
            **self._reward(),
            "threshold": self.config.relabel.threshold,
        }
        stop = list(self.config.sampling.stop)
        settings |= {"stop": stop} if stop else {}
        if self.config.evaluation.samples is not None:
            sampled = {"samples": self.config.evaluation.samples, "seed": self.config.seed}
            settings |= {**sampled, "sampling": self.config.sampling.fingerprint_of_draws()}
        engine = self.config.sampling.vllm
        settings |= {"engine": engine.fingerprint()} if engine else {}
        return identity("evaluations", iteration, settings, [str(prompts), model], has_stop=bool(stop))

    def samples(self, prompts: VersionRef, model: str, iteration: int) -> Identity:
        """The samples of an iteration, drawn from the model of the iteration before, given as `models/id`."""
        settings = {
            "sampling": self.config.sampling.fingerprint(),
            "instruction": self.config.instructions.correct,
            **rendering(self.config.model).of_outputs(),
            "seed": self.config.seed,
        }
        has_stop = bool(self.config.sampling.stop)
        return identity("samples", iteration, settings, [str(prompts), model], has_stop=has_stop)

    def _writing(self) -> dict[str, Any]:
        """Settings of the demonstrations of writing instructions, where there are any."""
        shown = self.relabeler.writing_fingerprint()
        return {"shown": shown} if shown else {}

    def _reward(self) -> dict[str, Any]:
        """Settings of the reward; a reward model scores differently in bf16, no other reward does."""
        settings: dict[str, Any] = {"reward": self.reward.fingerprint()}
        return settings | {"bf16": True} if self.reward.launches and self.is_bf16 else settings


def table_digest(rows: pl.DataFrame) -> str:
    """Digest of a table's values in their order; it does not depend on the release of polars."""
    digest = hashlib.sha256(canonical_json(rows.columns).encode())
    for row in rows.iter_rows():
        digest.update(canonical_json(row).encode())
    return digest.hexdigest()[:16]
