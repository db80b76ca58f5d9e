"""`StoredRun`, a run's committed versions, as a notebook reads them: tables, manifests, lineage, and answers of models.

A version is given by its reference, or by name as in the commands: `samples@3`, `samples@latest`,
`samples/0003-3fa1c2d4`. Reads versions, whose files are checked against their digests; writes nothing.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import polars as pl

from hir_core.errors import VersionNotFound, did_you_mean
from hir_core.inspect.chat import Chat
from hir_core.inspect.lineage import Trace, trace
from hir_core.inspect.model_usage import model_usage
from hir_core.store.manifest import STAGES, Manifest
from hir_core.store.store import Store
from hir_core.store.version import VersionRef


class StoredRun:
    """A run to read; `flows.open_run` opens it.

    Methods raise VersionNotFound where there is no such version, or several, and VersionCorrupt where its files are not
    what its manifest says.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"<run {self._store.run_dir}: {len(self.versions())} versions>"

    def versions(self, stage: str | None = None) -> list[VersionRef]:
        """All versions, or those of one stage, in the order of the loop."""
        if stage is not None and stage not in STAGES:
            raise VersionNotFound(f"no stage `{stage}`{did_you_mean(stage, STAGES)}; stages are {', '.join(STAGES)}")
        return self._store.versions(stage)

    def version(self, name: str | VersionRef) -> VersionRef:
        """The version of a name such as `samples@3`; one with forks (same iteration, other settings) needs its id."""
        return self._store.resolve(str(name))

    def latest(self, stage: str) -> VersionRef:
        """The version of a stage's last iteration; of its forks, the one committed last."""
        return self.version(f"{stage}@latest")

    def manifest(self, version: str | VersionRef) -> Manifest:
        """What is recorded of a version: parents, settings, numbers of rows, and measurements in `metrics`."""
        return self._store.manifest(self.version(version))

    def parents(self, version: str | VersionRef) -> list[VersionRef]:
        """The versions that a version is made from."""
        return [self.version(name) for name in self.manifest(version).parents]

    def trace(self, key: str) -> Trace:
        """What a row comes from and what is made from it, as `hir trace --json` prints it.

        Args:
            key: a `prompt_id`, `sample_id` or `triple_id`, or its first digits.
        """
        return trace(self._store, key)

    def scan(self, version: str | VersionRef) -> pl.LazyFrame:
        """The table of a version for a query of Polars, which reads only what the query needs.

        Args:
            version: or a stage, such as `samples`: then the rows of all its versions, with the columns `iteration` and
                `version` as in `hir sql`.
        """
        if str(version) not in STAGES:
            return self._store.table(self.version(version))
        refs = self.versions(str(version)) or [self.latest(str(version))]
        tables = [
            self._store.table(ref).with_columns(iteration=pl.lit(ref.iteration), version=pl.lit(str(ref)))
            for ref in refs
        ]
        return pl.concat(tables, how="diagonal")

    def read(self, version: str | VersionRef) -> pl.DataFrame:
        """The table of a version, its rows in the table's order."""
        return self._store.read(self.version(version))

    def path(self, version: str | VersionRef) -> Path:
        """The folder of a version; that of a model is loaded by plain `transformers`, an adapter's by `peft`."""
        return self._store.folder(self.version(version))

    def ask(self, *questions: str, model: str | VersionRef = "models@latest", temperature: float = 0.0) -> list[str]:
        """A model's answers, each question asked on its own, as the run asks for a correct answer.

        Loads the model, on the GPU where there is one; `hir chat` keeps it loaded.

        Args:
            temperature: 0 takes the likeliest token each time, as an evaluation does.

        Raises:
            HirError: the model cannot be loaded, or a question is too long.
        """
        usage = model_usage(self._store, self.version(model))
        chat = Chat(usage, temperature=temperature, max_new_tokens=usage.max_new_tokens, keeps_turns=False)
        with closing(chat):
            chat.load()
            return ["".join(piece.text for piece in chat.ask(question)) for question in questions]
