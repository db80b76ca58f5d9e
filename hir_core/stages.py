"""Each stage of the loop as a function of versions: known already? return it; else draft, do, check, commit.

`Run` holds what all stages of one run share. prompts, demonstrations, score and relabel are Polars on the driver;
train, evaluate and sample are steps of one launch per iteration (`advance`). Iteration 0 makes the seed model,
iteration i >= 1 trains it on triples@i, made from samples@i, which model@(i-1) drew.

    samples@i -> rewards@i -> triples@i -> models@i -> evaluations@i, samples@(i+1)

Reads and writes through the store; leaves orchestration and display to `flows`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hir_core.config import HubModel, RunConfig, TrainingConfig
from hir_core.errors import ConfigError
from hir_core.evaluation import summarise
from hir_core.jobspec import JobSpec, SampleStep, SaveStep, TrainStep
from hir_core.launch import check_launch, launch
from hir_core.manifest import Identity, identity
from hir_core.parts import read_json, read_parts
from hir_core.prompts import check_leaks, load_prompts
from hir_core.rank import Progress, done_file
from hir_core.relabelers import build_relabeler, demonstrations
from hir_core.rewards import build_reward
from hir_core.schemas import Evaluations, content_key
from hir_core.store import StageRef, Store

COMPLETIONS = ".completions"
"""Where the evaluate step leaves its answers inside the draft: they are scored before anything is committed."""
FINGERPRINT_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Outputs:
    """What one launch leaves: the model, its evaluation, and the samples for the next iteration, if there is one."""

    model: StageRef
    evaluation: StageRef
    samples: StageRef | None


class Run:
    """One run: its config, store, reward and relabeler."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.store = Store(config.run_dir)
        self.reward = build_reward(config.reward)
        self.relabeler = build_relabeler(config.relabel, config.instructions)
        self.bf16 = bool(config.deepspeed_settings().get("bf16", {}).get("enabled"))

    def table(self, ref: StageRef) -> pl.DataFrame:
        """A version's rows, its files checked against their digests."""
        return self.store.table(ref).collect()

    def facts(self, ref: StageRef) -> dict[str, Any]:
        """The metrics that a version's manifest holds."""
        return dict(self.store.manifest(ref).metrics)

    # --- on the driver -----------------------------------------------------------------------------------------------

    def check(self) -> pl.DataFrame:
        """Finds what cannot work before anything is written, and returns the prompts.

        Raises:
            ConfigError: launch settings, prompts, references or the model's folder are wrong, or test items leak.
        """
        check_launch(self.config.launch)
        _check_source(self.config)
        prompts, _ = self._load_prompts()
        return prompts

    def prompts(self) -> StageRef:
        """Reads the prompts of every source, split into train and test."""
        prompts, rejected = self._load_prompts()
        named = identity("prompts", 0, {**self._law("prompts", "evaluation"), "rows": _table_digest(prompts)}, ())
        return self._commit(named, prompts, prompts.height + sum(rejected.values()), rejected)

    def demonstrations(self, prompts: StageRef) -> StageRef | None:
        """Reference answers as triples for the warm start, or None where the run has none."""
        warm = self.config.warm_start
        if warm is None:
            return None
        law = {"relabeler": "demonstrations", "count": warm.demonstrations, **self._law("instructions", "seed")}
        named = identity("triples", 0, law, [str(prompts)])
        if found := self.store.find(named):
            return found
        triples = demonstrations(self.table(prompts), self.config.instructions, warm.demonstrations, self.config.seed)
        return self._commit(named, triples)

    def score(self, prompts: StageRef, samples: StageRef) -> StageRef:
        """Judges every sample."""
        named = identity("rewards", samples.iteration, {"reward": self.reward.law()}, [str(prompts), str(samples)])
        if found := self.store.find(named):
            return found
        rewards = self.reward.score(self.table(samples), self.table(prompts))
        scored = rewards["score"].drop_nulls()
        right = int((scored >= self.config.relabel.threshold).sum())
        facts = {"correct_share": right / max(1, rewards.height), "not_judged": rewards["score"].null_count()}
        return self._commit(named, rewards, rewards.height, metrics=facts)

    def relabel(self, prompts: StageRef, samples: StageRef, rewards: StageRef) -> StageRef:
        """Gives every sample the instruction that it is right under, or counts why it has none.

        Raises:
            ConfigError: nothing is left to train on.
        """
        law = {"relabel": self.relabeler.law()}
        named = identity("triples", samples.iteration, law, [str(prompts), str(samples), str(rewards)])
        if found := self.store.find(named):
            return found
        drawn = self.table(samples)
        triples, rejected = self.relabeler.relabel(drawn, self.table(rewards), self.table(prompts))
        if triples.is_empty():
            raise ConfigError(
                f"relabel.type={self.relabeler.name} kept none of {drawn.height} samples of {samples} ({rejected}): "
                "warm the model up, make the task easier, or use relabel.type=hindsight, which learns from wrong ones"
            )
        mix = dict(triples.group_by("instruction").len().sort("instruction").iter_rows())
        return self._commit(named, triples, drawn.height, rejected, {"instructions": mix})

    # --- in a launch -------------------------------------------------------------------------------------------------

    def advance(
        self,
        prompts: StageRef,
        triples: StageRef | None,
        samples: StageRef | None,
        before: StageRef | None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> Outputs:
        """Trains, evaluates and samples in one launch; does only what no version holds yet.

        Args:
            triples: what to train on; None where iteration 0 takes the model as it is.
            samples: what the triples were made from; None for demonstrations.
            before: the model to train; None in iteration 0.
        """
        iteration = 0 if before is None else before.iteration + 1
        plan = _Plan(self, iteration, prompts, triples, samples, before)
        if plan.steps:
            job_dir = self.config.run_dir / "launches" / f"{iteration:04d}"
            job_dir.mkdir(parents=True, exist_ok=True)
            plan.write(job_dir)

            def commit(number: int) -> None:
                plan.commits[number](read_json(done_file(job_dir, number)))

            launch(job_dir, self.config.launch, on_progress=on_progress, on_step=commit)
        return Outputs(plan.model.ref, plan.evaluation.ref, plan.samples.ref if plan.samples else None)

    def commit_evaluation(self, named: Identity, prompts: StageRef, model: str, facts: dict[str, Any]) -> None:
        """Scores the answers that the evaluate step left in the draft, and commits them with their summary."""
        draft = self.store.draft(named)
        asked = self.table(prompts)
        answers = read_parts(draft.path / COMPLETIONS).sort("prompt_id")
        judged = self.reward.judge(answers, asked).join(asked.select("prompt_id", "task"), on="prompt_id", how="left")
        rows = judged.with_columns(model=pl.lit(model)).select(Evaluations.column_names()).sort("prompt_id")
        draft.write("0", rows)
        summary = summarise(rows, asked, self.config.relabel.threshold)
        draft.commit(rows_in=answers.height, metrics={**facts, **summary})

    # --- identities --------------------------------------------------------------------------------------------------

    def model_identity(
        self, iteration: int, prompts: StageRef, triples: StageRef | None, before: StageRef | None
    ) -> Identity:
        """What decides a model: how it is trained, on what, from which weights; for the seed, where it comes from."""
        law: dict[str, Any] = {"bf16": self.bf16, **self._law("seed")}
        if before is None:
            law |= {**self._law("model", "warm_start", "instructions"), "files": _fingerprint(self.config)}
        else:
            law |= {"training": self.config.training.law(), "template": self.config.model.template}
        parents = [str(ref) for ref in (before or prompts, triples) if ref is not None]
        return identity("models", iteration, law, parents)

    def evaluation_identity(self, iteration: int, prompts: StageRef, model: StageRef) -> Identity:
        """What decides an evaluation."""
        law = {
            "instruction": self.config.instructions.correct,
            "max_new_tokens": self.evaluation_tokens,
            "reward": self.reward.law(),
            "threshold": self.config.relabel.threshold,
        }
        return identity("evaluations", iteration, law, [str(prompts), str(model)])

    def samples_identity(self, iteration: int, prompts: StageRef, model: StageRef) -> Identity:
        """What decides the samples of an iteration."""
        law = {**self._law("sampling", "seed"), "instruction": self.config.instructions.correct}
        return identity("samples", iteration, law, [str(prompts), str(model)])

    @property
    def evaluation_tokens(self) -> int:
        """New tokens that an evaluated answer may have."""
        return self.config.evaluation.max_new_tokens or self.config.sampling.max_new_tokens

    def _law(self, *names: str) -> dict[str, Any]:
        law = self.config.law()
        return {name: law[name] for name in names}

    def _load_prompts(self) -> tuple[pl.DataFrame, dict[str, int]]:
        prompts, rejected = load_prompts(self.config.prompts, self.config.evaluation.also)
        check_leaks(prompts)
        self.reward.check_prompts(prompts)
        for split in ("train", "test"):
            if prompts.filter(pl.col("split") == split).is_empty() and (split == "test" or self.config.iterations):
                raise ConfigError(
                    f"prompts: no {split} prompts among {prompts.height}: change test_share or add a source"
                )
        return prompts, rejected

    def _commit(
        self,
        named: Identity,
        rows: pl.DataFrame,
        rows_in: int | None = None,
        rejected: dict[str, int] | None = None,
        metrics: dict[str, Any] | None = None,
    ) -> StageRef:
        if found := self.store.find(named):
            return found
        draft = self.store.draft(named)
        draft.write("0", rows)
        return draft.commit(rows_in=rows_in, rejected=rejected, metrics=metrics)


class _Plan:
    """The steps that one launch must do, and how each one's outputs are committed."""

    def __init__(
        self,
        run: Run,
        iteration: int,
        prompts: StageRef,
        triples: StageRef | None,
        samples: StageRef | None,
        before: StageRef | None,
    ) -> None:
        self.run, self.iteration, self.prompts_ref = run, iteration, prompts
        self.steps: list[TrainStep | SaveStep | SampleStep] = []
        self.commits: list[Callable[[dict[str, Any]], None]] = []
        self.requests: dict[Path, pl.DataFrame] = {}
        self.train_facts: dict[str, Any] = {}
        self.model = _Wanted(run.store, run.model_identity(iteration, prompts, triples, before))
        self.evaluation = _Wanted(run.store, run.evaluation_identity(iteration, prompts, self.model.ref))
        self.samples: _Wanted | None = None
        if iteration < run.config.iterations:
            self.samples = _Wanted(run.store, run.samples_identity(iteration + 1, prompts, self.model.ref))
        self.source = self.model.ref if self.model.exists else before
        if not self.model.exists:
            self._train_and_save(triples, samples, run.config.warm_start if before is None else run.config.training)
        if not self.evaluation.exists:
            self._evaluate(self.evaluation)
        if self.samples is not None and not self.samples.exists:
            self._sample(self.samples)

    def write(self, job_dir: Path) -> None:
        """Writes `job.json` and the files that it names."""
        config = self.run.config
        for path, requests in self.requests.items():
            requests.write_parquet(job_dir / path)
        model = config.model
        if self.source is not None:
            model = HubModel(source=str(self.run.store.folder(self.source)), template=config.model.template)
        texts = job_dir / "texts.parquet"
        if model.type == "scratch":
            _texts(self.run.table(self.prompts_ref), config).write_parquet(texts)
        steps = tuple(_anchored(step, job_dir) for step in self.steps)
        settings = config.deepspeed_settings()
        JobSpec(model=model, texts=texts, seed=config.seed, deepspeed=settings, steps=steps).write(job_dir)

    def _train_and_save(
        self, triples: StageRef | None, samples: StageRef | None, training: TrainingConfig | None
    ) -> None:
        store = self.run.store
        if triples is not None and training is not None:
            drawn = None if samples is None else store.folder(samples).resolve()
            folder = store.folder(triples).resolve()
            self._add(TrainStep(triples=folder, samples=drawn, training=training, iteration=self.iteration), self._note)
        draft = store.draft(self.model.named)
        self._add(
            SaveStep(output=draft.path.resolve()),
            lambda facts: draft.commit(metrics={**self.train_facts, "save": facts}),
        )

    def _note(self, facts: dict[str, Any]) -> None:
        self.train_facts = facts

    def _evaluate(self, wanted: _Wanted) -> None:
        run, folder = self.run, self.run.store.draft(wanted.named).path / COMPLETIONS
        folder.mkdir(exist_ok=True)
        requests = _requests(run.table(self.prompts_ref).filter(pl.col("split") == "test"))
        step = self._sampling(
            "evaluate", wanted, folder, requests, k=1, temperature=0.0, max_new_tokens=run.evaluation_tokens
        )
        model = str(self.model.ref)
        self._add(step, lambda facts: run.commit_evaluation(wanted.named, self.prompts_ref, model, facts))

    def _sample(self, wanted: _Wanted) -> None:
        run, sampling = self.run, self.run.config.sampling
        train = run.table(self.prompts_ref).filter(pl.col("split") == "train")
        requests = _requests(choose_prompts(train, sampling.prompts, run.config.seed, self.iteration + 1))
        draft = run.store.draft(wanted.named)
        step = self._sampling(
            "sample",
            wanted,
            draft.path,
            requests,
            k=sampling.k,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_new_tokens,
        )
        rows = requests.height * sampling.k
        self._add(step, lambda facts: draft.commit(rows_in=rows, metrics=facts))

    def _sampling(self, name: Any, wanted: _Wanted, folder: Path, requests: pl.DataFrame, **drawing: Any) -> SampleStep:
        config = self.run.config
        path = Path(f"requests-{name}.parquet")
        self.requests[path] = requests
        return SampleStep(
            name=name,
            requests=path,
            output=folder.resolve(),
            version=str(wanted.ref),
            model=str(self.model.ref),
            instruction=config.instructions.correct,
            batch_tokens=config.sampling.batch_tokens,
            zero3_weights=config.sampling.zero3_weights,
            iteration=wanted.ref.iteration,
            **drawing,
        )

    def _add(self, step: TrainStep | SaveStep | SampleStep, commit: Callable[[dict[str, Any]], Any]) -> None:
        self.steps.append(step)
        self.commits.append(commit)


class _Wanted:
    """A version that should be there after the launch."""

    def __init__(self, store: Store, named: Identity) -> None:
        self.named = named
        found = store.find(named)
        self.exists = found is not None
        self.ref = found or StageRef(named.stage, named.id, store.run_dir / named.stage / named.id)


def choose_prompts(train: pl.DataFrame, count: int | None, seed: int, iteration: int) -> pl.DataFrame:
    """The prompts that an iteration samples: walks through shuffles of all of them, so that none is left out for long.

    Args:
        train: the train prompts.
        count: how many; None for all.
        iteration: from 1.
    """
    ids = train["prompt_id"].sort().to_list()
    if count is None or count >= len(ids):
        return train.sort("prompt_id")
    walked, chosen = (iteration - 1) * count, []
    for place in range(walked, walked + count):
        shuffle, position = divmod(place, len(ids))
        chosen.append(_shuffled(tuple(ids), seed, shuffle)[position])
    return train.filter(pl.col("prompt_id").is_in(chosen)).sort("prompt_id")


def _shuffled(ids: tuple[str, ...], seed: int, number: int) -> list[str]:
    return sorted(ids, key=lambda prompt_id: content_key(seed, number, prompt_id))


def _requests(prompts: pl.DataFrame) -> pl.DataFrame:
    return prompts.select("prompt_id", "query").sort("prompt_id")


def _anchored(step: TrainStep | SaveStep | SampleStep, job_dir: Path) -> TrainStep | SaveStep | SampleStep:
    if isinstance(step, SampleStep):
        return step.model_copy(update={"requests": (job_dir / step.requests).resolve()})
    return step


def _texts(prompts: pl.DataFrame, config: RunConfig) -> pl.DataFrame:
    """What a scratch model's tokenizer is fitted to: train queries, their answers and both instructions."""
    train = prompts.filter(pl.col("split") == "train").sort("prompt_id")
    answers = [reference for references in train["references"].to_list() for reference in references]
    instructions = [config.instructions.correct, config.instructions.wrong]
    return pl.DataFrame({"text": [*train["query"].to_list(), *answers, *instructions]})


def _table_digest(rows: pl.DataFrame) -> str:
    """Digest of a table's content: a source file that was edited makes another version."""
    return hashlib.sha256(rows.write_ndjson().encode()).hexdigest()[:16]


def _check_source(config: RunConfig) -> None:
    model = config.model
    if not isinstance(model, HubModel) or not _is_path(model.source):
        return
    if not (Path(model.source) / "config.json").is_file():
        raise ConfigError(f"model.source: {model.source} is no model folder: it has no config.json")


def _is_path(source: str) -> bool:
    return Path(source).exists() or source.startswith((".", "/", "~")) or source.count("/") != 1


def _fingerprint(config: RunConfig) -> str | None:
    """Digest of a local model's files by name, size, first and last MiB; None for models that are not local files."""
    if not isinstance(config.model, HubModel) or not _is_path(config.model.source):
        return None
    digest = hashlib.sha256()
    for path in sorted(path for path in Path(config.model.source).iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(FINGERPRINT_BYTES))
            file.seek(max(0, size - FINGERPRINT_BYTES))
            digest.update(file.read(FINGERPRINT_BYTES))
    return digest.hexdigest()[:16]
