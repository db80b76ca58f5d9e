"""Where prompts come from, and the instructions that stand before their queries."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from hir_core.config.section import OmittedIfDefault, Section, tagged


class SyntheticPrompts(Section):
    """Prompts from a generator with exact answers."""

    type: Literal["synthetic"]
    task: str
    """The generator's name, for example `object_counting`."""
    size: int = Field(ge=1)
    """Prompts to make, train and test together."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the groups held out for evaluation."""
    seed: int = 0
    dials: dict[str, Any] = Field(default_factory=dict)
    """The generator's own difficulty settings."""
    shown: Annotated[Literal["letter", "text"], OmittedIfDefault] = "letter"
    """How demonstrations name the right option, where there are options; the other way is accepted too."""


class FilePrompts(Section):
    """Prompts from a JSONL, Parquet, CSV or TSV file with at least a `query`, or `messages` that end with it."""

    type: Literal["file"] = "file"
    path: Path
    task: str | None = None
    """Task name for rows that carry none; left out: the file's name."""
    test_share: float = Field(0.2, ge=0, le=1)
    seed: int = 0


class BigBenchHardPrompts(Section):
    """A task file of BIG-Bench-Hard; evaluation only unless told otherwise."""

    type: Literal["bbh"]
    path: Path
    test_share: float = Field(1.0, ge=0, le=1)
    seed: int = 0


class BigBenchPrompts(Section):
    """A `task.json` of BIG-bench; evaluation only unless told otherwise."""

    type: Literal["bigbench"]
    path: Path
    task: str | None = None
    """Task name; left out: that of the folder the file lies in, as in BIG-bench."""
    test_share: float = Field(1.0, ge=0, le=1)
    seed: int = 0
    """Decides the order of options, and the split."""


class DatasetsPrompts(Section):
    """A dataset read by Hugging Face's `datasets` (extra `datasets`); code that comes with one is never run."""

    type: Literal["datasets"]
    source: str
    """`owner/name` on the hub, a folder that `save_to_disk` wrote, or a folder of Parquet, JSONL or CSV files."""
    name: str | None = None
    """Which of its configurations, where it has several."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    split: str = "train"
    """Of the dataset; which of its prompts are train and test is decided by `test_share`."""
    columns: dict[Literal["query", "messages", "references", "options", "task", "group", "split", "metadata"], str] = (
        Field(default_factory=dict)
    )
    """Where hir's columns come from, as `query: question`, or `options: choices.text` for a field of a column; the
    others go into metadata. Left out: columns mean what they mean in a file."""
    limit: int | None = Field(None, ge=1)
    """Reads this many rows; left out: all."""
    task: str | None = None
    """Task name for rows that carry none; left out: the dataset's name."""
    test_share: float = Field(0.2, ge=0, le=1)
    seed: int = 0

    @model_validator(mode="after")
    def _columns_have_a_query(self) -> DatasetsPrompts:
        if self.columns and len({"query", "messages"} & self.columns.keys()) != 1:
            raise ValueError(
                "columns must say where `query` comes from, or else `messages`, for example `query: question`"
            )
        return self


class ReasoningGymPrompts(Section):
    """Prompts from a task of the library reasoning-gym (extra `reasoning-gym`); its own reward judges them best."""

    type: Literal["reasoning_gym"]
    task: str
    """The task's name in the library, for example `leg_counting`."""
    size: int = Field(ge=1)
    """Prompts to make, train and test together."""
    test_share: float = Field(0.2, ge=0, le=1)
    seed: int = Field(0, ge=0)
    dials: dict[str, Any] = Field(default_factory=dict)
    """The task's own settings."""


PromptSource = Annotated[
    Annotated[SyntheticPrompts, Tag("synthetic")]
    | Annotated[FilePrompts, Tag("file")]
    | Annotated[BigBenchHardPrompts, Tag("bbh")]
    | Annotated[BigBenchPrompts, Tag("bigbench")]
    | Annotated[DatasetsPrompts, Tag("datasets")]
    | Annotated[ReasoningGymPrompts, Tag("reasoning_gym")],
    tagged("file"),
]


class Instructions(Section):
    """The two instructions of the paper's rule; used to the byte in sampling, training and evaluation."""

    correct: str = "Generate a correct answer to this problem."
    wrong: str = "Generate a wrong answer to this problem."

    @model_validator(mode="after")
    def _differ(self) -> Instructions:
        if self.correct == self.wrong:
            raise ValueError(
                "instructions.correct and instructions.wrong are the same text: hindsight could tell nothing apart"
            )
        return self
