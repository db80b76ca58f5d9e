"""Small real things that several tests use: a tokenizer and models made from nothing, and a process group of one.

torch is imported inside the fixtures: it takes seconds, and most tests do without.
"""

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_launch import settings  # noqa: F401 - a fixture
from judge_server import serve  # noqa: F401 - a fixture

from hir_core.store.store import Store

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: threads cost several times what they save
os.environ["COLUMNS"] = "100"  # whatever terminal the tests run in
# Nothing here is compiled, and DeepSpeed's optimizers import torch's compiler: a quarter of what a rank needs to start.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

TEXT = "how many plums figs and pears do I have in all one two three four five six seven eight nine ten"


def pytest_addoption(parser: pytest.Parser) -> None:
    told = "how often test_kills.py kills a run in each stage; with many, also give --timeout=0"
    parser.addoption("--kills", type=int, default=1, help=told)
    parser.addoption("--kills-in", default="", help="only in these stages: models,samples")
    told = "how long tests/fuzz goes on with inputs that are new each time; 0: the same few each time"
    parser.addoption("--fuzz-minutes", type=float, default=0.0, help=told)
    parser.addoption("--kills-seed", type=int, default=1, help="what its moments and victims are drawn with")


def pytest_configure(config: pytest.Config) -> None:
    """Keeps the files in the order of their names: pytest-xdist would take those with few tests, the longest, last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False
    gc.disable()  # what the imports of all tests make stays: searching it for garbage takes a tenth of their time


def pytest_collection_finish() -> None:
    """From here on only what tests make is searched for garbage."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level, 300 tokens, a few words among them."""
    from hir_core.modeling.models import fit_tokenizer

    return fit_tokenizer([TEXT] * 4, 300)


@pytest.fixture
def chat_tokenizer() -> Any:
    """Control tokens in the manner of ChatML, and its template."""
    from chat_tokenizers import build_chat_tokenizer

    return build_chat_tokenizer()


@pytest.fixture(scope="session")
def build_model(tokenizer: Any) -> Callable[..., Any]:
    """Builds a random model of 16 hidden units; large weights make its distributions far from flat."""
    from hir_core.config import ScratchModel
    from hir_core.modeling.models import build_scratch

    def build(architecture: str, *, seed: int = 0, sharpness: float = 1.0, **shape: int) -> Any:
        sizes = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32, "context": 64, **shape}
        model = build_scratch(ScratchModel(type="scratch", architecture=architecture, **sizes), tokenizer, seed)
        for parameter in model.parameters():
            parameter.data *= sharpness
        return model.eval()

    return build


@pytest.fixture(scope="session")
def alone() -> Iterator[None]:
    """A process group of this process only."""
    from torch import distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of `finished_run`; made once, for every commit waits for the disk."""
    from finished_run import make_run

    return make_run(tmp_path_factory.mktemp("finished_run")).run_dir


@pytest.fixture
def small_run(made_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of that run as `runs/small` of the current folder."""
    monkeypatch.chdir(tmp_path)
    return Store(Path(shutil.copytree(made_run, tmp_path / "runs" / "small")))


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Prefect home whose profile names a server that stands until the tests end.

    For the runs that end by themselves: each one would otherwise start a private server, which takes as long as half a
    launch. One that is killed leaves a flow run behind that the server shows as running: it reports elsewhere.
    """
    from cli_run import end, name_server, start_light_prefect_server

    home = tmp_path_factory.mktemp("prefect")
    url, server = start_light_prefect_server(home)
    name_server(home, url)
    yield home
    end(server)


@pytest.fixture(scope="session")
def server_for_killed_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a second such server, for runs that are killed and need no server of their own."""
    from cli_run import end, start_light_prefect_server

    url, server = start_light_prefect_server(tmp_path_factory.mktemp("prefect"))
    yield url
    end(server)
