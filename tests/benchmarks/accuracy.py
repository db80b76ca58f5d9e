"""`hir` against TRL's GRPO on two tasks: what an accuracy costs, and how far equally many samples lead.

Both start from the model after the task's warm start and draw from the same prompts at the same temperature and
length; both learn with AdamW at a constant rate, each at every rate of the same grid. A round is a seed: of the seed
model, of the samples and of the shuffles. On quickstart's task, which both learn, a side ends as soon as it has reached
the highest of the accuracies. On the counting task of `comparisons/headroom`, which is hard to explore, a side draws
all its samples.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from tests.benchmarks import recipe_runs
from tests.benchmarks.measure import Case, Figure, Result, Setting, Side, Work, spread
from tests.benchmarks.side_process import Clock

LEARNING_RATES = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)
METHODS = ("hir", "TRL GRPO")


@dataclass(frozen=True)
class Task:
    """What both methods learn, and for how long."""

    comparison: str | None
    """The shipped comparison whose task `counting` and method `keep_correct_distinct` change quickstart."""
    samples_of_an_iteration: int
    """After which a model is evaluated."""
    iterations: Mapping[str, int]
    """After so many, a method ends. GRPO takes less time for a sample and is given more of them."""
    accuracies: tuple[float, ...] = ()
    """Costs are noted when each is first reached; a method ends with the highest."""

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings of a run."""
        settings = recipe_runs.settings({})
        if self.comparison is None:
            return settings
        from hir_core.config.comparison import merged

        comparison = yaml.safe_load((recipe_runs.QUICKSTART.parent / self.comparison).read_text())
        changes = merged(comparison["tasks"]["counting"], comparison["methods"]["keep_correct_distinct"])
        return merged(settings, changes)


TASKS = {
    "quickstart": Task(None, 1536, {"hir": 12, "TRL GRPO": 40}, (0.70, 0.80)),
    "headroom": Task("comparisons/headroom.yaml", 1024, {"hir": 10, "TRL GRPO": 30}),
}
LOOK_EVERY_S = 0.2
Costs = dict[str, float]
"""`cpu_s`, `model_s` (wall seconds of training, sampling and evaluating) and `samples` until a moment."""


class Trace:
    """The accuracy of a side over time, and its costs when it first reached each accuracy of a task."""

    def __init__(self, targets: Sequence[float]) -> None:
        self.targets = targets
        self.accuracies: list[float] = []
        self.reached: dict[float, Costs] = {}

    def add(self, accuracy: float, costs: Costs) -> None:
        """Notes an evaluation."""
        self.accuracies.append(accuracy)
        for target in self.targets:
            if accuracy >= target:
                self.reached.setdefault(target, costs)

    @property
    def is_over(self) -> bool:
        """Whether the highest accuracy was reached."""
        return bool(self.targets) and self.targets[-1] in self.reached

    def work(self) -> Work:
        """What the side has done: evaluated models, and the facts of the trace."""
        costs = {f"{name} to {target}": cost for target, costs in self.reached.items() for name, cost in costs.items()}
        curve = " ".join(f"{accuracy:.3f}" for accuracy in self.accuracies)
        return Work(len(self.accuracies), {**costs, "accuracies": curve})


def seed_run(inputs: Path, task: str, seed: int) -> Path:
    """The run that holds the prompts and the model after the warm start; made where it is not there yet."""
    folder = inputs / f"{task}-{seed}"
    if not recipe_runs.manifests(folder / "runs/quickstart", "evaluations"):
        recipe_runs.finish(recipe_runs.start(folder, TASKS[task].settings | {"iterations": 0, "seed": seed}))
    return folder / "runs/quickstart"


def model_folder(run_dir: Path) -> Path:
    """The folder of the model after the warm start."""
    [folder] = (run_dir / "models").glob("0000-*")
    return folder


# --- hir -------------------------------------------------------------------------------------------------------------


def relabel_in_hindsight(clock: Clock, inputs: Path, task: str, learning_rate: float, k: int) -> Work:
    """Runs the task's settings from the seed model, every start of a program included."""
    does = TASKS[task]
    source = str(model_folder(seed_run(inputs, task, clock.round)).resolve())
    training = does.settings["training"] | {"learning_rate": learning_rate}
    sampling = does.settings["sampling"] | {"prompts": does.samples_of_an_iteration // k, "k": k}
    changes = {"model": {"source": source}, "warm_start": None, "seed": clock.round, "reward": {"type": "exact_match"}}
    changes |= {"iterations": does.iterations["hir"], "training": training, "sampling": sampling}
    run_dir, trace = Path("runs/quickstart"), Trace(does.accuracies)
    with clock:
        process = recipe_runs.start(Path(), does.settings | changes)
        while process.poll() is None:
            time.sleep(LOOK_EVERY_S)
            note_evaluations(run_dir, trace, clock, does.samples_of_an_iteration)
            if trace.is_over:
                process.send_signal(signal.SIGINT)
                process.wait()
        if not trace.is_over:
            recipe_runs.finish(process)
            note_evaluations(run_dir, trace, clock, does.samples_of_an_iteration)
    return trace.work()


def note_evaluations(run_dir: Path, trace: Trace, clock: Clock, samples_of_an_iteration: int) -> None:
    """Adds the evaluations that are new to the trace."""
    evaluations = recipe_runs.manifests(run_dir, "evaluations")
    for iteration in range(len(trace.accuracies), len(evaluations)):
        costs = {
            "cpu_s": clock.cpu_so_far(),
            "model_s": model_seconds(run_dir, iteration),
            "samples": float(iteration * samples_of_an_iteration),
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


def train_grpo(clock: Clock, inputs: Path, task: str, learning_rate: float, completions_of_a_step: int, k: int) -> Work:
    """Trains the seed model with TRL, and evaluates it after as many samples as an iteration of ours draws."""
    does, run_dir = TASKS[task], seed_run(inputs, task, clock.round)
    trace, most_new_tokens = Trace(does.accuracies), int(does.settings["sampling"]["max_new_tokens"])
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
            max_steps=does.iterations["TRL GRPO"] * does.samples_of_an_iteration // completions_of_a_step,
            max_completion_length=most_new_tokens, temperature=1.0,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
            reward_funcs=is_right, args=config, train_dataset=trained, processing_class=tokenizer,
        )  # fmt: skip

        def accuracy(model: Any) -> float:
            return greedy_accuracy(model, tokenizer, tested, most_new_tokens)

        every = does.samples_of_an_iteration // completions_of_a_step
        trainer.add_callback(evaluation_callback(trace, clock, accuracy, every, completions_of_a_step))
        trainer.train()
    return trace.work()


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
    trace: Trace, clock: Clock, accuracy: Callable[[Any], float], every: int, completions_of_a_step: int
) -> Any:
    """A callback that evaluates a model before the first step and after every so many steps."""
    from transformers import TrainerCallback

    class Evaluations(TrainerCallback):  # type: ignore[misc]
        model_s = 0.0

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.evaluate(given["model"], 0)

        def on_step_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.model_s += time.perf_counter() - self.began
            if state.global_step % every == 0:
                self.evaluate(given["model"], state.global_step * completions_of_a_step)
                control.should_training_stop |= trace.is_over

        def evaluate(self, model: Any, samples: int) -> None:
            began = time.perf_counter()
            found = accuracy(model)
            self.model_s += time.perf_counter() - began
            trace.add(found, {"cpu_s": clock.cpu_so_far(), "model_s": self.model_s, "samples": float(samples)})

    return Evaluations()


def greedy_accuracy(model: Any, tokenizer: Any, tested: list[dict[str, Any]], most_new_tokens: int) -> float:
    """The share of test prompts that greedy decoding answers rightly."""
    import torch

    batch = tokenizer([row["prompt"] for row in tested], return_tensors="pt", padding=True)
    was_training = model.training
    with torch.no_grad():
        ids = model.eval().generate(**batch, do_sample=False, max_new_tokens=most_new_tokens)
    model.train(was_training)
    texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return sum(is_right(texts, [row["references"] for row in tested])) / len(tested)


# --- figures ---------------------------------------------------------------------------------------------------------


def costs_at_the_best_rates(result: Result) -> list[Figure]:
    """The costs of each accuracy at each method's best learning rate, and GRPO's over ours for the same seeds."""
    figures = []
    for target in TASKS["quickstart"].accuracies:
        best = {method: best_side(result, method, target) for method in METHODS}
        for cost, unit in (("cpu_s", "CPU s"), ("model_s", "wall s of model work"), ("samples", "samples")):
            by_seed = {method: costs_by_round(result, side, f"{cost} to {target}") for method, side in best.items()}
            for method, costs in by_seed.items():
                if costs:
                    figures.append(spread(f"accuracy {target:.2f}, {best[method]}", list(costs.values()), unit))
            ours, theirs = (by_seed[method] for method in METHODS)
            ratios = [theirs[seed] / ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
            if ratios:
                figures.append(spread(f"accuracy {target:.2f}, {unit}, {' / '.join(reversed(METHODS))}", ratios, "x"))
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


def accuracies_at_the_best_rates(result: Result) -> list[Figure]:
    """Accuracies in percent at each method's best learning rate, after equally many samples and after all of GRPO's."""
    task, figures = TASKS["headroom"], []
    for iterations in sorted(set(task.iterations.values())):
        for method in (method for method in METHODS if task.iterations[method] >= iterations):
            found = {side: accuracies_after(result, side, iterations) for side in result.settings}
            reached = {side: values for side, values in found.items() if side.startswith(method) and values}
            if reached:
                best = max(reached, key=lambda side: fmean(reached[side]))
                samples = iterations * task.samples_of_an_iteration
                figures.append(spread(f"accuracy after {samples:,} samples, {best}", reached[best], "%"))
    return figures


def accuracies_after(result: Result, side: str, iterations: int) -> list[float]:
    """The accuracy of every seed in percent after so many iterations' samples; none where one has not come so far."""
    curves = [str(measurement.facts["accuracies"]).split() for measurement in result.of(side)]
    return [100 * float(curve[iterations]) for curve in curves if len(curve) > iterations]


def sides(task: str) -> tuple[Side, ...]:
    """Both methods at every learning rate."""
    grpo: dict[str, Setting] = {"completions_of_a_step": 128, "k": 8}  # steps of 256 need half as many samples again
    return tuple(
        side
        for rate in LEARNING_RATES
        for side in (
            Side(f"hir, {rate:g}", relabel_in_hindsight, {"task": task, "learning_rate": rate, "k": 4}),
            Side(
                f"TRL GRPO, {rate:g}",
                train_grpo,
                {"task": task, "learning_rate": rate, **grpo},
                needs=("trl", "datasets"),
            ),
        )
    )


CASES = (
    Case(
        name="accuracy/quickstart",
        question="the cost of an accuracy on unseen prompts of quickstart's task; rounds are seeds",
        unit="evaluated models",
        sides=sides("quickstart"),
        rounds=3,
        starts_inside=True,
        conclude=costs_at_the_best_rates,
    ),
    Case(
        name="accuracy/headroom",
        question="accuracy on the counting task of comparisons/headroom; rounds are seeds",
        unit="evaluated models",
        sides=sides("headroom"),
        rounds=3,
        starts_inside=True,
        conclude=accuracies_at_the_best_rates,
    ),
)
