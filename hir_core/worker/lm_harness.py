"""The process in which EleutherAI's lm-evaluation-harness (`lm_eval`) asks a model its tasks, for `hir evaluate`.

Runs in a process of `time_limit`, because it imports torch. Reads an exported model, and the data of the tasks, which
`datasets` fetches from the hub where they are not on this machine. Writes nothing itself. Tasks that execute what a
model writes, and metrics that are Python code on the hub, are refused.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from hir_core.errors import ConfigError, HirError, did_you_mean

LARGEST_BATCH = 64
"""Requests at once, at most, where the batch size is `auto`."""
LINE_EVERY_S = "15"
"""Seconds between two lines about progress, where there is no terminal."""
_TURNS = [{"role": role, "content": "1"} for role in ("user", "assistant", "user")]


def make_harness(settings: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
    """The function that replies to messages of the driver, each with a `type`.

    `prepare` reads the `task` and its data; `load` loads the model from a `folder`, and returns `device` and `dtype`;
    `evaluate` asks a `task` that was prepared, and returns `figures`, and `answers` where they are asked for.

    Args:
        settings: `include_path`, a folder with further tasks, or None; `num_fewshot`, or None for that of each task;
            `limit`, a number of questions, a share of them below 1, or None; `batch_size`, a number or `auto`;
            `with_answers`.
    """
    if not sys.stderr.isatty():  # progress as plain lines, and of what takes long only; read when tqdm is imported
        os.environ.update(TQDM_DELAY=LINE_EVERY_S, TQDM_MININTERVAL=LINE_EVERY_S)
    # Made with the first message: its imports may take longer on a busy machine than a process may take to start.
    harness = cache(lambda: Harness(settings))
    replies: dict[str, Callable[[dict[str, Any]], Any]] = {
        "prepare": lambda message: harness().prepare(message["task"]),
        "load": lambda message: harness().load(Path(message["folder"])),
        "evaluate": lambda message: harness().evaluate(message["task"]),
    }
    return lambda message: replies[message["type"]](message)


class Harness:
    """The harness with its tasks, and the model once it is loaded."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import evaluate
        from lm_eval import evaluator
        from lm_eval.tasks import TaskManager

        _show_warnings_once()
        evaluate.load = self._refuse_metric
        # A description of this machine, for which it starts git and other programs; what of it counts, hir keeps.
        evaluator.get_git_commit_hash, evaluator.add_env_info = (lambda: None), (lambda _: None)
        self._settings, self._refused = settings, list[str]()
        self._manager = TaskManager(include_path=settings["include_path"])
        self._prepared: dict[str, list[Any]] = {}
        self._lm: Any = None

    def prepare(self, name: str) -> None:
        """Reads a task, or a group of tasks, and its data.

        Raises:
            ConfigError: there is no such task, it cannot be read, its data is not at hand, or it would run code.
        """
        if name not in self._manager.all_tasks:
            raise ConfigError(
                f"--tasks: lm-eval has no task `{name}`{did_you_mean(name, self._manager.all_tasks)}; "
                "`lm-eval ls tasks` lists them, and --include-path names a folder with further ones"
            )
        try:
            loaded = self._manager.load([name])
        except Exception as error:  # noqa: BLE001 - tasks may run code of their own, which may raise anything
            raise self._problem(name, error) from None
        if self._refused:
            raise self._problem(name, None)
        if unsafe := [task for task, read in loaded["tasks"].items() if getattr(read, "UNSAFE_CODE", False)]:
            raise ConfigError(f"task {unsafe[0]} executes what the model writes, which hir does not do: leave it out")
        group = loaded.get("groups", {}).get(name)
        self._prepared[name] = [group] if group is not None else list(loaded["tasks"].values())

    def load(self, folder: Path) -> dict[str, str]:
        """Loads the model, in the number format of its files; asks it with its chat template where it has one."""
        import torch
        import transformers
        from lm_eval.models.huggingface import HFLM

        transformers.logging.set_verbosity_error()
        is_cpu = os.environ.get("DS_ACCELERATOR") == "cpu" or not torch.cuda.is_available()
        # A chat template writes all control tokens itself. Where there is none, the tokenizer adds its own.
        has_template = (folder / "chat_template.jinja").exists()
        try:
            self._lm = HFLM(
                pretrained=str(folder),
                device="cpu" if is_cpu else "cuda",
                batch_size=self._settings["batch_size"],
                max_batch_size=LARGEST_BATCH,
                add_bos_token=False if has_template else None,
            )
        except torch.OutOfMemoryError:
            raise ConfigError(
                "the model does not fit into the memory of one GPU: DS_ACCELERATOR=cpu takes the CPU"
            ) from None
        return {"device": self._lm.device.type, "dtype": str(self._lm.model.dtype).removeprefix("torch.")}

    def evaluate(self, name: str) -> dict[str, Any]:
        """The figures of a task, as `figures_of` makes them, and the answers where they are asked for.

        Raises:
            ConfigError: the harness cannot ask this model this task.
        """
        from lm_eval import simple_evaluate

        has_template = bool(self._lm.tokenizer.chat_template)
        try:
            results = simple_evaluate(
                model=self._lm,
                tasks=self._prepared[name],
                task_manager=self._manager,
                num_fewshot=self._settings["num_fewshot"],
                limit=self._settings["limit"],
                apply_chat_template=has_template,
                fewshot_as_multiturn=has_template and self._takes_turns(),
                log_samples=self._settings["with_answers"],
                confirm_run_unsafe_code=False,
            )
        except Exception as error:  # noqa: BLE001 - as above
            raise self._problem(name, error) from None
        answers = answers_of(results["samples"]) if self._settings["with_answers"] else []
        return {"figures": list(figures_of(results)), "answers": answers}

    def _takes_turns(self) -> bool:
        """Whether the chat template has a place for earlier turns; examples then stand in turns of their own."""
        try:
            self._lm.apply_chat_template(_TURNS)
        except jinja2.TemplateError:
            return False
        return True

    def _refuse_metric(self, path: str, *_: Any, **__: Any) -> None:
        self._refused.append(path)
        raise ConfigError(f"the metric `{path}` is Python code on the hub, which hir does not run")

    def _problem(self, name: str, error: Exception | None) -> HirError:
        """What a user is told of a task that cannot be read or asked."""
        if self._refused:
            metric = self._refused.pop()
            return ConfigError(f"task {name} needs the metric `{metric}`, which is Python code on the hub: hir does "
                               "not run it; leave the task out")  # fmt: skip
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        if isinstance(error, ModuleNotFoundError):
            return ConfigError(f"task {name} needs the package `{error.name}`: pip install {error.name}, "
                               "or the extra of lm-eval that its documentation names")  # fmt: skip
        if isinstance(error, OSError):
            return ConfigError(f"task {name}: its data is not on this machine and could not be fetched ({reason}): "
                               "connect this machine to the hub once, or copy the folder HF_HOME of one that has "
                               "them; of a task of your own, look at the paths in its file")  # fmt: skip
        return ConfigError(f"task {name}: lm-eval {importlib.metadata.version('lm_eval')} failed with {reason}")


def _show_warnings_once() -> None:
    """Shows what lm_eval warns of while a model is asked, such as prompts that it cuts, once for each kind."""
    shown = set[tuple[str, int]]()

    def is_new(record: logging.LogRecord) -> bool:
        place = record.pathname, record.lineno
        is_first = place not in shown
        shown.add(place)
        return is_first

    handler = logging.StreamHandler()
    handler.addFilter(is_new)
    handler.setFormatter(logging.Formatter("lm-eval: %(message)s"))
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    logging.getLogger("lm_eval.models").setLevel(logging.WARNING)
    logging.getLogger("lm_eval").handlers = [handler]
    logging.getLogger("lm_eval").propagate = False


def figures_of(results: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The figures of a result of `simple_evaluate`: `task`, `metric`, `filter`, `value`, `stderr`, `n`, and more.

    lm_eval names a value `acc,none`, after its metric and the filter of the answers, and its standard error
    `acc_stderr,none`.
    """
    for task, values in results["results"].items():
        counts = results["n-samples"].get(task, {})
        for key, value in values.items():
            metric, comma, answer_filter = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
                continue
            stderr = values.get(f"{metric}_stderr,{answer_filter}")
            yield {
                "task": task,
                "metric": metric,
                "filter": answer_filter,
                "value": float(value),
                "stderr": float(stderr) if isinstance(stderr, (int, float)) else None,
                "n": int(counts.get("effective", values.get("sample_len", 0))),
                "num_fewshot": results["n-shot"].get(task),
                "task_version": str(results["versions"].get(task, "")),
            }


def answers_of(samples: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The questions as the model read them, with what it answered: one row for each question and filter."""
    return [
        {
            "task": task,
            "doc_id": sample["doc_id"],
            "filter": sample["filter"],
            "prompt": sample["arguments"][0][0],
            "target": str(sample["target"]),
            "answers": json.loads(json.dumps(sample["filtered_resps"], default=str)),
            "metrics": json.loads(json.dumps({name: sample[name] for name in sample["metrics"]}, default=str)),
        }
        for task, rows in samples.items()
        for sample in rows
    ]
