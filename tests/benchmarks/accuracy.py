"""What it costs to reach an accuracy: quickstart's task and seed model, the recipe itself against TRL's GRPO.

Both start from the model after quickstart's warm start and draw from the same prompts at the same temperature and
length; both learn with AdamW at a constant rate, each at every rate of the same grid. A round is a seed: of the seed
model, of the samples and of the shuffles. A side ends as soon as it has reached the highest of the accuracies.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import recipe_runs
from tests.benchmarks.measure import Case, Figure, Result, Side, Work, spread
from tests.benchmarks.side_process import Clock

ACCURACIES = (0.70, 0.80)
LEARNING_RATES = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)
SAMPLES_OF_AN_ITERATION = 1536
MOST_SAMPLES = {"hir": 12 * SAMPLES_OF_AN_ITERATION, "TRL GRPO": 40 * SAMPLES_OF_AN_ITERATION}
"""After which a method gives up; GRPO takes less time for a sample and needs more of them."""
LOOK_EVERY_S = 0.2
Costs = dict[str, float]
"""`cpu_s`, `model_s` (wall seconds of training, sampling and evaluating) and `samples` until a moment."""


class Trace:
    """The accuracy of a side over time, and its costs when it first reached each of `ACCURACIES`."""

    def __init__(self) -> None:
        self.accuracies: list[float] = []
        self.reached: dict[float, Costs] = {}

    def add(self, accuracy: float, costs: Costs) -> None:
        """Notes an evaluation."""
        self.accuracies.append(accuracy)
        for target in ACCURACIES:
            if accuracy >= target:
                self.reached.setdefault(target, costs)

    @property
    def is_over(self) -> bool:
        """Whether the highest accuracy was reached."""
        return ACCURACIES[-1] in self.reached

    def work(self) -> Work:
        """What the side has done: evaluated models, and the facts of the trace."""
        costs = {f"{name} to {target}": cost for target, costs in self.reached.items() for name, cost in costs.items()}
        curve = " ".join(f"{accuracy:.3f}" for accuracy in self.accuracies)
        return Work(len(self.accuracies), {**costs, "accuracies": curve})


def seed_run(inputs: Path, seed: int) -> Path:
    """The run that holds the prompts and the model after the warm start; made where it is not there yet."""
    folder = inputs / f"seed-{seed}"
    if not recipe_runs.manifests(folder / "runs/quickstart", "evaluations"):
        recipe_runs.finish(recipe_runs.start(folder, {"iterations": 0, "seed": seed}))
    return folder / "runs/quickstart"


def model_folder(run_dir: Path) -> Path:
    """The folder of the model after the warm start."""
    [folder] = (run_dir / "models").glob("0000-*")
    return folder


# --- hir -------------------------------------------------------------------------------------------------------------


def relabel_in_hindsight(clock: Clock, inputs: Path, learning_rate: float, samples: int, k: int) -> Work:
    """Runs the recipe from the seed model, every start of a program included."""
    source = str(model_folder(seed_run(inputs, clock.round)).resolve())
    training = recipe_runs.settings({})["training"] | {"learning_rate": learning_rate}
    sampling = recipe_runs.settings({})["sampling"] | {"prompts": SAMPLES_OF_AN_ITERATION // k, "k": k}
    changes = {"model": {"source": source}, "warm_start": None, "seed": clock.round, "reward": {"type": "exact_match"}}
    changes |= {"iterations": samples // SAMPLES_OF_AN_ITERATION, "training": training, "sampling": sampling}
    run_dir, trace = Path("runs/quickstart"), Trace()
    with clock:
        process = recipe_runs.start(Path(), changes)
        while process.poll() is None:
            time.sleep(LOOK_EVERY_S)
            note_evaluations(run_dir, trace, clock)
            if trace.is_over:
                process.send_signal(signal.SIGINT)
                process.wait()
        if not trace.is_over:
            recipe_runs.finish(process)
            note_evaluations(run_dir, trace, clock)
    return trace.work()


def note_evaluations(run_dir: Path, trace: Trace, clock: Clock) -> None:
    """Adds the evaluations that are new to the trace."""
    evaluations = recipe_runs.manifests(run_dir, "evaluations")
    for iteration in range(len(trace.accuracies), len(evaluations)):
        costs = {
            "cpu_s": clock.cpu_so_far(),
            "model_s": model_seconds(run_dir, iteration),
            "samples": float(iteration * SAMPLES_OF_AN_ITERATION),
        }
        trace.add(evaluations[iteration]["metrics"]["overall"]["accuracy"], costs)


def model_seconds(run_dir: Path, iteration: int) -> float:
    """Wall seconds that the ranks worked with the model up to the evaluation of an iteration."""
    total = 0.0
    for stage in ("samples", "models", "evaluations"):
        for number, manifest in recipe_runs.manifests(run_dir, stage).items():
            metrics = manifest["metrics"]
            seconds = metrics.get("step_seconds", 0.0) + metrics.get("save", {}).get("step_seconds", 0.0)
            total += seconds if number <= iteration else 0.0
    return total


# --- GRPO ------------------------------------------------------------------------------------------------------------


def train_grpo(
    clock: Clock, inputs: Path, learning_rate: float, completions_of_a_step: int, k: int, samples: int
) -> Work:
    """Trains the seed model with TRL, and evaluates it after as many samples as an iteration of ours draws."""
    run_dir, trace = seed_run(inputs, clock.round), Trace()
    with clock:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

        torch.manual_seed(clock.round)
        folder = model_folder(run_dir)
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        trained, tested = read_prompts(run_dir, tokenizer)
        config = GRPOConfig(
            output_dir="grpo", use_cpu=True, bf16=False, gradient_checkpointing=False, seed=clock.round,
            learning_rate=learning_rate, lr_scheduler_type="constant", weight_decay=0.0,
            per_device_train_batch_size=completions_of_a_step, num_generations=k,
            max_steps=samples // completions_of_a_step, max_completion_length=max_new_tokens(), temperature=1.0,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=is_right, args=config, train_dataset=trained, processing_class=tokenizer,
        )  # fmt: skip
        trainer.add_callback(evaluation_callback(trace, clock, tokenizer, tested, completions_of_a_step))
        trainer.train()
    return trace.work()


def max_new_tokens() -> int:
    """The recipe's limit of an output."""
    return int(recipe_runs.settings({})["sampling"]["max_new_tokens"])


def read_prompts(run_dir: Path, tokenizer: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The prompts to train on, as a data set, and those to test on, rendered as a run renders them."""
    import polars as pl
    from datasets import Dataset

    from hir_core.config import load_config
    from hir_core.modeling.rendering import Renderer

    instruction = load_config(recipe_runs.QUICKSTART, []).instructions.correct
    table = pl.read_parquet(run_dir / "prompts/*/part-*.parquet").sort("prompt_id")
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for split, query, references in table.select("split", "query", "references").iter_rows():
        rows[split].append({"prompt": f"{instruction}\n{query}\n", "references": references})
    shown = tokenizer(rows["train"][0]["prompt"])["input_ids"]
    query = table.filter(pl.col("split") == "train")["query"][0]
    if shown != Renderer(tokenizer, None).prompt_ids(instruction, query):
        raise RuntimeError("TRL would not show the model the prompt that it was warmed up with")
    return Dataset.from_list(rows["train"]), rows["test"]


def is_right(completions: Sequence[str], references: Sequence[Sequence[str]], **_: Any) -> list[float]:
    """The reward `exact_match`, as TRL calls it."""
    from hir_core.rewards.exact_match import normalised

    pairs = zip(completions, references, strict=True)
    return [float(normalised(text) in {normalised(answer) for answer in accepted}) for text, accepted in pairs]


def evaluation_callback(
    trace: Trace, clock: Clock, tokenizer: Any, tested: list[dict[str, Any]], completions_of_a_step: int
) -> Any:
    """A callback that evaluates before the first step and after every iteration's worth of samples."""
    from transformers import TrainerCallback

    class Evaluations(TrainerCallback):  # type: ignore[misc]
        model_s = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.evaluate(given["model"], 0)

        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.model_s += time.perf_counter() - self.began
            samples = state.global_step * completions_of_a_step
            if samples % SAMPLES_OF_AN_ITERATION == 0:
                self.evaluate(given["model"], samples)
                control.should_training_stop |= trace.is_over

        def evaluate(self, model: Any, samples: int) -> None:
            began = time.perf_counter()
            accuracy = greedy_accuracy(model, tokenizer, tested)
            self.model_s += time.perf_counter() - began
            trace.add(accuracy, {"cpu_s": clock.cpu_so_far(), "model_s": self.model_s, "samples": float(samples)})

    return Evaluations()


def greedy_accuracy(model: Any, tokenizer: Any, tested: list[dict[str, Any]]) -> float:
    """The share of test prompts that greedy decoding answers rightly."""
    import torch

    batch = tokenizer([row["prompt"] for row in tested], return_tensors="pt", padding=True)
    was_training = model.training
    with torch.no_grad():
        ids = model.eval().generate(**batch, do_sample=False, max_new_tokens=max_new_tokens())
    model.train(was_training)
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(is_right(texts, [row["references"] for row in tested])) / len(tested)


# --- figures ---------------------------------------------------------------------------------------------------------


def costs_at_the_best_rates(result: Result) -> list[Figure]:
    """The costs of each accuracy at each method's best learning rate, and GRPO's over ours for the same seeds."""
    figures = []
    for target in ACCURACIES:
        best = {method: best_side(result, method, target) for method in MOST_SAMPLES}
        for cost, unit in (("cpu_s", "CPU s"), ("model_s", "wall s of model work"), ("samples", "samples")):
            by_seed = {method: costs_by_round(result, side, f"{cost} to {target}") for method, side in best.items()}
            for method, costs in by_seed.items():
                if costs:
                    figures.append(spread(f"accuracy {target:.2f}, {best[method]}", list(costs.values()), unit))
            ours, theirs = (by_seed[method] for method in MOST_SAMPLES)
            ratios = [theirs[seed] / ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
            if ratios:
                figures.append(
                    spread(f"accuracy {target:.2f}, {unit}, {' / '.join(reversed(MOST_SAMPLES))}", ratios, "x")
                )
    return figures


def best_side(result: Result, method: str, target: float) -> str:
    """The side of a method that reached the accuracy with most seeds and then in the fewest CPU seconds."""

    def cost(side: str) -> tuple[int, float]:
        costs = costs_by_round(result, side, f"cpu_s to {target}").values()
        return -len(costs), sum(costs) / max(1, len(costs))

    return min((side for side in result.settings if side.startswith(method)), key=cost)


def costs_by_round(result: Result, side: str, fact: str) -> dict[int, float]:
    """A cost by seed; seeds that did not reach the accuracy are missing."""
    return {m.round: float(m.facts[fact]) for m in result.of(side) if fact in m.facts}


CASES = (
    Case(
        name="accuracy",
        question="the cost of an accuracy on unseen prompts of quickstart's task; rounds are seeds",
        unit="evaluated models",
        sides=tuple(
            side
            for rate in LEARNING_RATES
            for side in (
                Side(
                    f"hir, {rate:g}",
                    relabel_in_hindsight,
                    {"learning_rate": rate, "samples": MOST_SAMPLES["hir"], "k": 4},
                ),
                Side(
                    f"TRL GRPO, {rate:g}",
                    train_grpo,
                    {
                        "learning_rate": rate,
                        "completions_of_a_step": 128,  # 256 need half as many samples again
                        "k": 8,
                        "samples": MOST_SAMPLES["TRL GRPO"],
                    },
                    needs=("trl", "datasets"),
                ),
            )
        ),
        rounds=3,
        starts_inside=True,
        conclude=costs_at_the_best_rates,
    ),
)
