"""How scored outputs become triples: the relabeler, and which samples it is given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator

from hir_core.config.model import HubModel
from hir_core.config.section import Section, function_name, tagged


class Relabel(Section):
    """What every relabeler has."""

    threshold: float = 1.0
    """Score from which on an output counts as correct."""


class HindsightRelabel(Relabel):
    """The paper's rule: the correct instruction where the score reaches the threshold, else the wrong one."""

    type: Literal["hindsight"] = "hindsight"


class KeepCorrectRelabel(Relabel):
    """The filtering baseline: only samples whose score reaches the threshold are kept."""

    type: Literal["keep_correct"]


class BestOfKRelabel(Relabel):
    """The baseline that imitates the best sample of each prompt, whatever its score."""

    type: Literal["best_of_k"]


class DemonstrationsRelabel(Relabel):
    """The upper line: the reference answer of each sampled prompt instead of what was sampled."""

    type: Literal["demonstrations"]


class QuantilesRelabel(Relabel):
    """Scores cut into levels of equal size; the best level has the correct instruction, the others say theirs."""

    type: Literal["quantiles"]
    levels: int = Field(4, ge=2, le=100)
    instruction: str = "Generate an answer of quality {level} out of {levels} to this problem."
    """For every level below the best; `{level}` counts from 1, the worst."""

    @field_validator("instruction")
    @classmethod
    def _names_the_level(cls, instruction: str) -> str:
        if "{level}" not in instruction:
            raise ValueError("expected a text with {level}, and {levels} if you like")
        return instruction


class AttributesRelabel(Relabel):
    """Every attribute's score as a level; best in all of them has the correct instruction, the others are told theirs.

    Needs a reward that judges several: `combined`, `constraints` or `python`. An attribute that is the same everywhere
    counts as best where it reaches the threshold, and as worst below.
    """

    type: Literal["attributes"]
    levels: int = Field(5, ge=2, le=100)
    """Of each attribute, from 0, the worst."""
    instruction: str = "Generate an answer with {attributes} to this problem."
    """`{attributes}` becomes, for instance, `brevity 2, correctness 4`; `{correct}` is the correct instruction."""

    @field_validator("instruction")
    @classmethod
    def _tells_the_attributes(cls, instruction: str) -> str:
        if "{attributes}" not in instruction:
            raise ValueError("expected a text with {attributes}, and {correct} if you like")
        return instruction


class ChainRelabel(Relabel):
    """A wrong attempt of the same prompt is shown before a correct one, with what was wrong said between them."""

    type: Literal["chain"]
    query: str = "{query}\nA wrong answer: {wrong}\nA correct answer:"
    """The query of such a triple."""

    @field_validator("query")
    @classmethod
    def _has_both(cls, query: str) -> str:
        if not all(field in query for field in ("{query}", "{wrong}")):
            raise ValueError("expected a text with {query} and {wrong}")
        return query


class ConstraintsRelabel(Relabel):
    """The query asks for the constraints that the output does satisfy, in place of those that it was asked for."""

    type: Literal["constraints"]


class LearnedRelabel(Relabel):
    """A model writes the instruction that each output is right under; it is verified where a check confirms it."""

    type: Literal["learned"]
    writer: HubModel | None = None
    """The model that writes; left out: the run's own, as it was when it drew the samples."""
    instruction: str = "Write the instruction that this answer follows."
    """What the writer is told to do."""
    query: str = "{query}\nAnswer: {output}\nThis answer is {verdict}."
    """What it reads below that; the verdict is `correct` or `wrong`."""
    temperature: float = Field(0.0, ge=0)
    """0 writes the likeliest instruction."""
    max_new_tokens: int = Field(32, ge=1)
    """An instruction that is longer is not verified."""
    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Nats per token that an output must gain under an instruction that no rule can check; at 0 any gain will do, one
    by chance too."""
    fallback: Literal["hindsight", "reject"] = "hindsight"
    """What becomes of an output whose instruction is not verified: the fixed rule relabels it, or it is left out."""
    shown: int = Field(0, ge=0)
    """Train prompts with which the model is shown how to write: the reference and the correct instruction, another
    prompt's reference and the wrong one. In the warm start, and again in every iteration: it forgets otherwise."""

    @field_validator("query")
    @classmethod
    def _has_the_output(cls, query: str) -> str:
        if "{output}" not in query:
            raise ValueError("expected a text with {output}, and {query} and {verdict} where they help")
        return query


class PythonRelabel(Relabel):
    """A function of yours: `relabel(samples) -> list[str | None]`, the instruction that each sample is right under."""

    type: Literal["python"]
    function: str
    """`module:function`, importable from where you run."""

    _is_named = field_validator("function")(function_name)


RelabelConfig = Annotated[
    Annotated[HindsightRelabel, Tag("hindsight")]
    | Annotated[KeepCorrectRelabel, Tag("keep_correct")]
    | Annotated[BestOfKRelabel, Tag("best_of_k")]
    | Annotated[DemonstrationsRelabel, Tag("demonstrations")]
    | Annotated[QuantilesRelabel, Tag("quantiles")]
    | Annotated[AttributesRelabel, Tag("attributes")]
    | Annotated[ChainRelabel, Tag("chain")]
    | Annotated[ConstraintsRelabel, Tag("constraints")]
    | Annotated[LearnedRelabel, Tag("learned")]
    | Annotated[PythonRelabel, Tag("python")],
    tagged("hindsight"),
]


class SelectConfig(Section):
    """Which samples become triples, whatever the relabeler; as it stands, all of them."""

    drop_prompts: tuple[Literal["all_wrong", "all_right"], ...] = ()
    """Leaves out prompts whose samples are all wrong, or all right: they tell a method of contrasts nothing."""
    deduplicate: bool = False
    """Keeps one of the equal outputs of a prompt."""
    others_per_correct: float | None = Field(None, ge=0)
    """Triples of any other instruction for each one of the correct instruction, at most; left out: all there are.
    Wrong outputs are usually many, and too many of them drown what is learned from the right ones."""
    balance: bool = False
    """Weighs the triples so that every instruction has the same share of the loss."""
    sub_outputs: float = Field(0.0, ge=0, le=1)
    """Share of the triples that are sub-outputs: what stands before a random token is given, and the rest, which has
    the same end and so the same verdict, is predicted (the paper's section on sub-output relabeling)."""
    replay: int = Field(0, ge=0)
    """Earlier iterations whose samples are relabeled and trained on again."""
