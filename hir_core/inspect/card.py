"""The card of a version, the `README.md` that the Hugging Face hub shows, for `hir push` and `hir export --card`.

Made from the manifests of a run, its schemas and its kept benchmarks. It holds no path of this machine and no address:
of a file it says its name. Which files are published is left to `push`. Reads manifests; writes nothing.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from hir_core.inspect.benchmarks import Benchmark, benchmarks_of
from hir_core.inspect.history import Iteration, history, prompts_of
from hir_core.schemas import SCHEMAS
from hir_core.store.graph import VersionGraph
from hir_core.store.manifest import Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef

PAPER = "arXiv 2302.05206"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
SECRET = re.compile(r"(api_)?key|token|secret|password|headers?|env|url|endpoint|host\w*|.*(_key|_token|_env|_url)")
"""Names of settings whose values say something of a machine or an account."""
NO_LICENCE = (
    "None is stated. The licences of the base model and of the prompts say what may be chosen: add it as `license` at "
    "the top of this file."
)


def model_card(store: Store, ref: VersionRef, *, instruction: str | None, is_in_template: bool) -> str:
    """The card of a model version.

    Args:
        instruction: the instruction under which the run asks it; empty for none, None where the run never asked it.
        is_in_template: whether the chat template beside the card puts it before a question.

    Raises:
        StoreError: a manifest or a kept result is damaged.
    """
    graph = VersionGraph(store)
    iterations = [iteration for iteration in history(graph, ref) if iteration.model is not None]
    manifest, first = graph.manifests[str(ref)], _first_model(graph, iterations)
    base = first.get("source")
    metadata: dict[str, Any] = {"library_name": "transformers", "tags": ["hir", "hindsight-instruction-relabeling"]}
    if isinstance(base, str) and HUB_NAME.fullmatch(base):
        metadata["base_model"] = base
    parameters = manifest.metrics.get("save", {}).get("parameters")
    size = f" with {parameters:,} trained parameters" if isinstance(parameters, int) else ""
    return _card(
        metadata,
        f"{store.run_dir.resolve().name}, {ref}",
        f"A language model{size}, trained on its own outputs by `hir`, in {ref.iteration} iterations of sampling, "
        f"scoring, relabeling and training (Hindsight Instruction Relabeling, {PAPER}).",
        {
            "How to ask it": _usage(instruction, is_in_template),
            "How it was made": [*_base(first), "", *_iterations_table(graph, iterations)],
            "Evaluation": _evaluation(graph, iterations[-1], store, ref),
            "Settings": _settings(graph, iterations[-1], first),
            "Versions": _versions(graph, iterations),
            "Licence": [NO_LICENCE],
        },
    )


def dataset_card(store: Store, ref: VersionRef, rows: int, left_out: int, reason: str) -> str:
    """The card of a table.

    Args:
        rows: the rows that are published.
        left_out: rows of the version that are not, and their `reason`.

    Raises:
        StoreError: a manifest is damaged.
    """
    graph = VersionGraph(store)
    manifest = graph.manifests[str(ref)]
    counts = [f"- {rows:,} rows"]
    counts += [f"- {left_out:,} rows of the version are left out: {reason}"] if left_out else []
    counts += [f"- {count:,} were given and rejected: {why}" for why, count in manifest.rejected.items()]
    schema = SCHEMAS[ref.stage]
    columns = [(f"`{name}`", meaning) for name, meaning in column_meanings(ref.stage).items()]
    return _card(
        {"tags": ["hir", "hindsight-instruction-relabeling"]},
        f"{store.run_dir.resolve().name}, {ref}",
        f"{' '.join((schema.__doc__ or '').split())} A table of a run of `hir` (Hindsight Instruction Relabeling, "
        f"{PAPER}).",
        {
            "Rows": counts,
            "Columns": _table(("column", "meaning"), columns),
            "How it was made": ["```yaml", _as_yaml({ref.stage: _decided_by(manifest)}), "```"],
            "Versions": _versions_table([manifest, *(graph.manifests[str(p)] for p in _parents(graph, ref))]),
            "Licence": [NO_LICENCE],
        },
    )


def column_meanings(stage: str) -> dict[str, str]:
    """The columns of a stage's table, each with its description in `hir_core.schemas`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(SCHEMAS[stage])))
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef)).body
    found = {}
    for column, text in pairwise(body):
        if isinstance(column, ast.Assign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            [name] = column.targets
            found[ast.unparse(name)] = " ".join(str(text.value.value).split())
    return found


def public(value: Any) -> Any:
    """A value of a config without what belongs to this machine: of paths the last name, no addresses, no account.

    Settings that name a key, an address or a host are left out.
    """
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items() if not SECRET.fullmatch(str(key))}
    if isinstance(value, (list, tuple)):
        return [public(item) for item in value]
    if isinstance(value, str) and re.match(r"[a-z][a-z0-9+.-]*://", value, re.IGNORECASE):
        return "(an address)"
    if isinstance(value, str) and re.match(r"(/|~|\.\.?/)\S*$", value):
        return value.rstrip("/").rpartition("/")[2]
    return value


def _card(metadata: Mapping[str, Any], title: str, about: str, sections: Mapping[str, Iterable[str]]) -> str:
    lines = ["---", _as_yaml(metadata), "---", "", f"# {title}", "", about]
    for heading, text in sections.items():
        lines += ["", f"## {heading}", "", *text]
    return "\n".join(lines) + "\n"


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(public(value), allow_unicode=True, sort_keys=False, width=110).rstrip()


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(" ".join(str(cell).replace("|", r"\|").split()) for cell in cells) + " |"

    return [line(header), "|" + "---|" * len(header), *map(line, rows)]


# --- a model ---------------------------------------------------------------------------------------------------------


def _first_model(graph: VersionGraph, iterations: Sequence[Iteration]) -> dict[str, Any]:
    """The section `model` of the run: what the training started from."""
    first = next((iteration.model for iteration in iterations if iteration.model is not None), None)
    return dict(graph.manifests[str(first)].config.get("model", {})) if first is not None else {}


def _usage(instruction: str | None, is_in_template: bool) -> list[str]:
    if is_in_template:
        text = "The chat template puts the instruction of the training before the last question, so ask it as it is:"
        if not instruction:
            text = "The chat template asks as the training did, without an instruction:"
    elif instruction:
        text = "Put the instruction of the training before each question, as its own run did:"
    else:
        text = "It was trained without an instruction before the question."
    quoted = [f"> {line}" for line in (instruction or "").splitlines()]
    code = [
        "```python",
        "from transformers import pipeline",
        "",
        'ask = pipeline("text-generation", MODEL)  # the name of this repository',
        'ask([{"role": "user", "content": QUESTION}], do_sample=False)',
        "```",
    ]
    return [text, *(["", *quoted] if quoted else []), *(["", *code] if is_in_template else [])]


def _base(first: Mapping[str, Any]) -> list[str]:
    kind = first.get("type", "hub")
    if kind == "scratch":
        return ["It began with random weights: it knows nothing but what its run taught it."]
    source = public(first.get("source") or first.get("path") or "unknown")
    revision = f" at `{first['revision']}`" if first.get("revision") else ""
    return [f"It began with `{source}`{revision}."]


def _iterations_table(graph: VersionGraph, iterations: Sequence[Iteration]) -> list[str]:
    rows = []
    for iteration in iterations:
        samples, rewards, triples = (
            None if ref is None else graph.manifests[str(ref)]
            for ref in (iteration.samples, iteration.rewards, iteration.triples)
        )
        evaluation = [graph.manifests[str(ref)] for ref in iteration.evaluations][-1:]
        method = "" if triples is None else triples.config.get("relabel", {}).get("type", "demonstrations")
        reward = "" if rewards is None else rewards.config.get("reward", {}).get("type", "")
        correct = None if rewards is None else rewards.metrics.get("correct_share")
        accuracy = evaluation[0].metrics.get("overall", {}).get("accuracy") if evaluation else None
        counts = [f"{found.rows:,}" if found and found.rows is not None else "" for found in (samples, triples)]
        rows.append([iteration.iteration, counts[0], reward, _share(correct), method, counts[1], _share(accuracy)])
    header = ("iteration", "samples", "reward", "correct", "relabeler", "triples", "accuracy after it")
    return _table(header, rows)


def _share(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else ""


def _evaluation(graph: VersionGraph, last: Iteration, store: Store, ref: VersionRef) -> Iterator[str]:
    """The model's own evaluation by task, and its benchmarks."""
    own = [graph.manifests[str(evaluation)] for evaluation in last.evaluations]
    rows = [
        [task, facts.get("items", ""), _share(facts.get("accuracy")),
         f"{_share(facts.get('low'))} to {_share(facts.get('high'))}", _share(facts.get("majority_baseline"))]
        for evaluation in own[-1:]
        for task, facts in evaluation.metrics.get("tasks", {}).items()
    ]  # fmt: skip
    if rows:
        yield "On test prompts of its own run, which it was not trained on, with greedy decoding:"
        yield ""
        yield from _table(("task", "prompts", "accuracy", "95 % interval", "most frequent answer"), rows)
    benchmarks = benchmarks_of(store, ref)
    if benchmarks:
        yield from ["", "In tasks of EleutherAI's lm-evaluation-harness:", "", *_benchmarks_table(benchmarks)]
    if not rows and not benchmarks:
        yield "It was not evaluated."


def _benchmarks_table(benchmarks: Iterable[Benchmark]) -> list[str]:
    rows = []
    for result in benchmarks:
        asked = f'under "{result.instruction}"' if result.instruction else "without an instruction"
        for figure in result.figures:
            stderr = "" if figure.stderr is None else f"{figure.stderr:.4f}"
            metric = f"{figure.metric} ({figure.filter})"
            measured = [metric, f"{figure.value:.4f}", stderr, f"{figure.n:,}", figure.num_fewshot]
            rows.append([figure.task, *measured, asked, result.settings.harness])
    header = ("task", "metric", "value", "standard error", "questions", "few-shot", "asked", "release")
    return _table(header, rows)


def _settings(graph: VersionGraph, last: Iteration, first: Mapping[str, Any]) -> list[str]:
    """The settings of the last iteration, by stage, and of the model that the run began with."""
    stages: dict[str, Any] = {"model": dict(first)} if first else {}
    if (prompts := prompts_of(graph, [last])) is not None:
        stages["prompts"] = _decided_by(graph.manifests[str(prompts)])
    for ref in (last.samples, last.rewards, last.triples, last.model):
        if ref is not None:
            stages[ref.stage] = _decided_by(graph.manifests[str(ref)])
    return ["```yaml", _as_yaml(stages), "```"]


def _decided_by(manifest: Manifest) -> Any:
    """The settings that decided a version; of prompts their sources, of which the config holds a digest only."""
    settings = {key: value for key, value in manifest.config.items() if key != "model"}
    return manifest.metrics.get("sources", settings) if manifest.stage == "prompts" else settings


def _versions(graph: VersionGraph, iterations: Sequence[Iteration]) -> list[str]:
    prompts = prompts_of(graph, iterations)
    refs = [*([prompts] if prompts else []), *(ref for iteration in iterations for ref in iteration.versions)]
    made_with = graph.manifests[str(iterations[-1].model)].metrics.get("save", {}).get("made_with", {})
    releases = " · ".join(f"{name} {release}" for name, release in made_with.items() if name not in ("device", "ranks"))
    return [*_versions_table([graph.manifests[str(ref)] for ref in refs]), "", f"Made with {releases}."]


def _versions_table(manifests: Iterable[Manifest]) -> list[str]:
    rows = [
        [f"`{found.stage}/{found.id}`", f"{found.rows:,}" if found.rows is not None else "", found.code_version,
         found.created[:10], f"`{found.sha256[:16]}`"]
        for found in manifests
    ]  # fmt: skip
    return _table(("version", "rows", "hir", "made on", "digest of its manifest"), rows)


def _parents(graph: VersionGraph, ref: VersionRef) -> list[VersionRef]:
    """What a version is made from, directly."""
    return [graph.refs[name] for name in graph.manifests[str(ref)].parents if name in graph.refs]
