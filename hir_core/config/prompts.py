"""The section `prompts`: where prompts come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag

from hir_core.config.section import Section, tagged


class SyntheticPrompts(Section):
    """Prompts made by a built-in generator, with exact reference answers."""

    type: Literal["synthetic"]
    """Selects a built-in generator."""
    task: str
    """Name of the generator, for example `object_counting`."""
    size: int = Field(ge=1)
    """Number of prompts to generate, train and test together."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the prompts that are test prompts: used for evaluation, never for training. Prompts of one group stay
    together."""
    seed: int = 0
    """Seed of the generator and of the division into train and test prompts."""
    dials: dict[str, Any] = Field(default_factory=dict)
    """Difficulty settings of the generator, by name. Empty: the generator's defaults."""
    shown: Literal["letter", "text"] = "letter"
    """How reference answers name the right option in demonstrations, for tasks with options: by its letter or by its
    text. Both are accepted as answers."""


Column = Literal["query", "messages", "references", "options", "task", "group", "split", "metadata"]
Duplicates = Literal["refuse", "drop"]


def _check_columns(columns: dict[Column, str]) -> dict[Column, str]:
    if columns and len({"query", "messages"} & columns.keys()) != 1:
        raise ValueError("columns must say where `query` comes from, or else `messages`, for example `query: question`")
    return columns


Columns = Annotated[dict[Column, str], AfterValidator(_check_columns)]


class FilePrompts(Section):
    """Prompts from a JSONL, JSON, Parquet, CSV or TSV file, or a folder of such files. Each row has a `query`, or
    `messages` that end with it, or one of the other forms that hir_core/prompts/forms.py lists."""

    type: Literal["file"] = "file"
    """Selects a file of your own; the default type."""
    path: Path
    """Path of the file, which can be compressed with gzip if its name ends in `.gz`. Of a folder, all files with one of
    these endings are read, in the order of their names."""
    columns: Columns = Field(default_factory=dict)
    """Which column of the file holds each of hir's columns, as in `query: question`, or `options: choices.text` for
    a field of a column. All other columns go into `metadata`. Empty: the columns have names that hir knows."""
    duplicates: Duplicates = "refuse"
    """What becomes of a row that is the same prompt as an earlier one: `refuse` stops the run, `drop` leaves it out and
    counts it."""
    task: str | None = None
    """Task name of rows that have no `task`. Unset: the name of the file or folder without its ending."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the prompts that are test prompts: used for evaluation, never for training. Prompts of one group stay
    together."""
    seed: int = 0
    """Seed of the division into train and test prompts."""


class BigBenchHardPrompts(Section):
    """Prompts from a task file of BIG-Bench-Hard. By default they are used for evaluation only."""

    type: Literal["bbh"]
    """Selects a BIG-Bench-Hard file."""
    path: Path
    """Path of the task's JSON file."""
    test_share: float = Field(1.0, ge=0, le=1)
    """Share of the prompts that are test prompts; 1.0 uses all of them for evaluation."""
    seed: int = 0
    """Seed of the division into train and test prompts."""


class BigBenchPrompts(Section):
    """Prompts from a `task.json` file of BIG-bench. By default they are used for evaluation only."""

    type: Literal["bigbench"]
    """Selects a BIG-bench file."""
    path: Path
    """Path of the task's `task.json`."""
    task: str | None = None
    """Task name. Unset: the name of the folder that contains the file, which is how BIG-bench names its tasks."""
    test_share: float = Field(1.0, ge=0, le=1)
    """Share of the prompts that are test prompts; 1.0 uses all of them for evaluation."""
    seed: int = 0
    """Seed of the order of options and of the division into train and test prompts."""


class DatasetsPrompts(Section):
    """Prompts from a dataset that Hugging Face's `datasets` can read (extra `datasets`). Code that comes with a dataset
    is never run."""

    type: Literal["datasets"]
    """Selects a Hugging Face dataset."""
    source: str
    """`owner/name` on the hub, a folder written by `save_to_disk`, or a folder of Parquet, JSONL or CSV files."""
    name: str | None = None
    """Configuration of the dataset, for datasets that have several. Unset: the default one."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Unset: the hub's default branch."""
    split: str = "train"
    """Split of the dataset to read. Which of its prompts become train and test prompts is decided by `test_share`."""
    columns: Columns = Field(default_factory=dict)
    """Which column of the dataset holds each of hir's columns, as in `query: question`, or `options: choices.text` for
    a field of a column. All other columns go into `metadata`. Empty: the columns have names that hir knows."""
    duplicates: Duplicates = "refuse"
    """What becomes of a row that is the same prompt as an earlier one: `refuse` stops the run, `drop` leaves it out and
    counts it."""
    limit: int | None = Field(None, ge=1)
    """Largest number of rows to read, from the start. Unset: all rows."""
    task: str | None = None
    """Task name of rows that have no `task`. Unset: the dataset's name."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the prompts that are test prompts: used for evaluation, never for training. Prompts of one group stay
    together."""
    seed: int = 0
    """Seed of the division into train and test prompts."""


class ReasoningGymPrompts(Section):
    """Prompts generated by a task of the library reasoning-gym (extra `reasoning-gym`). The reward `reasoning_gym`
    scores them with the task's own scorer."""

    type: Literal["reasoning_gym"]
    """Selects a task of reasoning-gym."""
    task: str
    """Name of the task in the library, for example `leg_counting`."""
    size: int = Field(ge=1)
    """Number of prompts to generate, train and test together."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the prompts that are test prompts: used for evaluation, never for training. Prompts of one group stay
    together."""
    seed: int = Field(0, ge=0)
    """Seed of the task and of the division into train and test prompts."""
    dials: dict[str, Any] = Field(default_factory=dict)
    """Settings of the task, by name. Empty: the task's defaults."""


class IFEvalPrompts(Section):
    """Prompts with constraints in the form of IFEval, for the reward `constraints`. Rows with a constraint that has no
    kind here are left out and counted."""

    type: Literal["ifeval"]
    """Selects a file in the form of IFEval."""
    path: Path
    """Path of a JSONL, JSON or Parquet file, or of a folder of such files."""
    task: str | None = None
    """Task name. Unset: the name of the file or folder without its ending."""
    test_share: float = Field(0.2, ge=0, le=1)
    """Share of the prompts that are test prompts: used for evaluation, never for training."""
    seed: int = 0
    """Seed of the division into train and test prompts."""


PromptSource = Annotated[
    Annotated[SyntheticPrompts, Tag("synthetic")]
    | Annotated[FilePrompts, Tag("file")]
    | Annotated[BigBenchHardPrompts, Tag("bbh")]
    | Annotated[BigBenchPrompts, Tag("bigbench")]
    | Annotated[DatasetsPrompts, Tag("datasets")]
    | Annotated[ReasoningGymPrompts, Tag("reasoning_gym")]
    | Annotated[IFEvalPrompts, Tag("ifeval")],
    tagged("file"),
]
