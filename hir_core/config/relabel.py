"""The section `relabel`: how scored samples become triples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator, model_validator

from hir_core.config.model import HubModel
from hir_core.config.section import Section, function_name, tagged


class Relabel(Section):
    """The setting that all relabelers share."""

    threshold: float = 1.0
    """Lowest score at which an output counts as correct. Must be set explicitly with a reward model, whose scores are
    seldom exactly 1."""


class ExcludeWrongRelabel(Relabel):
    """Wrong outputs as evidence of what not to answer: correct outputs are trained on, and the model is trained towards
    its own distribution without the distinct wrong outputs of a prompt.

    An output that names no answer is ruled out as well. One that was cut off is not, because that would rule out all
    its continuations.
    """

    type: Literal["exclude_wrong"] = "exclude_wrong"
    """Selects ruling out of wrong outputs; the default type."""
    removed: float = Field(1.0, gt=0, le=1)
    """Share of a wrong output's probability that training takes away. 1: all of it."""
    temperature: float | None = Field(None, gt=0)
    """Takes away more, the lower the score: the share 1 - exp(-(1 - score) / temperature), at least 0, of an output
    whose score is below the threshold. Unset: `removed` for every wrong output."""
    relabel_weight: float = Field(0.0, ge=0)
    """Weight with which wrong outputs are also trained on under the wrong instruction, as by `hindsight`; those that
    name no answer never are. 0: they are not."""

    @model_validator(mode="after")
    def _has_one_rule_for_the_share(self) -> ExcludeWrongRelabel:
        if self.temperature is not None and self.removed != 1:
            raise ValueError(
                f"`removed` is {self.removed} and `temperature` {self.temperature}, and both say how much of a wrong "
                "output's probability is taken away: set one of them"
            )
        return self


class HindsightRelabel(Relabel):
    """The paper's rule: the correct instruction for outputs whose score reaches the threshold, else the wrong one."""

    type: Literal["hindsight"]
    """Selects the paper's rule."""


class KeepCorrectRelabel(Relabel):
    """Baseline by filtering: only samples whose score reaches the threshold are trained on."""

    type: Literal["keep_correct"]
    """Selects filtering by the threshold."""


class BestOfKRelabel(Relabel):
    """Baseline by imitation: the best sample of each prompt is trained on, whatever its score."""

    type: Literal["best_of_k"]
    """Selects imitation of the best sample."""


class DemonstrationsRelabel(Relabel):
    """Supervised baseline: the reference answer of each sampled prompt is trained on instead of the samples."""

    type: Literal["demonstrations"]
    """Selects training on reference answers."""


class QuantilesRelabel(Relabel):
    """Scores divided into quantiles (Quark, Lu et al. 2022). The best level gets the correct instruction, every other
    level an instruction that names it."""

    type: Literal["quantiles"]
    """Selects quantiles of the score."""
    levels: int = Field(4, ge=2, le=100)
    """Number of quantile levels."""
    instruction: str = "Generate an answer of quality {level} out of {levels} to this problem."
    """Instruction of every level below the best. `{level}` is replaced by the level, where 1 is the worst, and
    `{levels}` by the number of levels."""

    @field_validator("instruction")
    @classmethod
    def _names_the_level(cls, instruction: str) -> str:
        if "{level}" not in instruction:
            raise ValueError("expected a text with {level}, and {levels} if you like")
        return instruction


class AttributesRelabel(Relabel):
    """Scores of several attributes as levels (SteerLM, Dong et al. 2023). An output that is best in all of them gets
    the correct instruction, every other output an instruction that names its levels.

    Needs a reward with several attributes: `combined`, `constraints` or `python`. An attribute whose score is the same
    for all samples counts as best if it reaches the threshold, else as worst.
    """

    type: Literal["attributes"]
    """Selects levels of several attributes."""
    levels: int = Field(5, ge=2, le=100)
    """Number of levels of each attribute; 0 is the worst, `levels` - 1 the best."""
    instruction: str = "Generate an answer with {attributes} to this problem."
    """Instruction of every output that is not best in all attributes. `{attributes}` is replaced by its levels, for
    example `brevity 2, correctness 4`, and `{correct}` by the correct instruction."""

    @field_validator("instruction")
    @classmethod
    def _tells_the_attributes(cls, instruction: str) -> str:
        if "{attributes}" not in instruction:
            raise ValueError("expected a text with {attributes}, and {correct} if you like")
        return instruction


class ChainRelabel(Relabel):
    """Chain of Hindsight (Liu et al. 2023): correct outputs are trained on, after a query that shows a wrong output of
    the same prompt."""

    type: Literal["chain"]
    """Selects Chain of Hindsight."""
    query: str = "{query}\nA wrong answer: {wrong}\nA correct answer:"
    """Query of such a triple. `{query}` is replaced by the prompt's query and `{wrong}` by the wrong output."""

    @field_validator("query")
    @classmethod
    def _has_both(cls, query: str) -> str:
        if not all(field in query for field in ("{query}", "{wrong}")):
            raise ValueError("expected a text with {query} and {wrong}")
        return query


class ConstraintsRelabel(Relabel):
    """The constraints in the query are replaced by those that the output satisfies."""

    type: Literal["constraints"]
    """Selects rewriting of constraints."""


class LearnedRelabel(Relabel):
    """A language model writes the instruction that each output follows. The instruction is used only if a check
    verifies it."""

    type: Literal["learned"]
    """Selects instructions written by a model."""
    writer: HubModel | None = None
    """Model that writes the instructions. Unset: the model that drew the samples."""
    instruction: str = "Write the instruction that this answer follows."
    """Instruction given to the writer."""
    query: str = "{query}\nAnswer: {output}\nThis answer is {verdict}."
    """Query given to the writer. `{query}` is replaced by the prompt's query, `{output}` by the sampled output, and
    `{verdict}` by `correct` or `wrong`."""
    temperature: float = Field(0.0, ge=0)
    """Sampling temperature of the writer. 0 decodes greedily."""
    max_new_tokens: int = Field(32, ge=1)
    """Longest written instruction in tokens. A longer one is cut off and not verified."""
    margin: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Smallest gain in nats per token that an output's mean log-probability must have under a written instruction that
    no rule can check. 0 accepts any gain, including one by chance."""
    fallback: Literal["hindsight", "reject"] = "hindsight"
    """What happens to an output whose instruction is not verified: the `hindsight` rule relabels it, or it is rejected.
    """
    shown: int = Field(0, ge=0)
    """Number of train prompts from which the model is taught to write instructions, in the warm start and again in
    every iteration. Each gives its reference answer with the correct instruction, and another prompt's reference answer
    with the wrong one."""

    @field_validator("query")
    @classmethod
    def _has_the_output(cls, query: str) -> str:
        if "{output}" not in query:
            raise ValueError("expected a text with {output}, and {query} and {verdict} where they help")
        return query


class PythonRelabel(Relabel):
    """A Python function of your own, `relabel(samples) -> list[str | None]`, which returns the instruction that each
    sample follows, or None to reject the sample."""

    type: Literal["python"]
    """Selects a function of your own."""
    function: str
    """Name of the function as `module:function`. The module must be importable from the working folder."""

    _is_function_name = field_validator("function")(function_name)


RelabelConfig = Annotated[
    Annotated[ExcludeWrongRelabel, Tag("exclude_wrong")]
    | Annotated[HindsightRelabel, Tag("hindsight")]
    | Annotated[KeepCorrectRelabel, Tag("keep_correct")]
    | Annotated[BestOfKRelabel, Tag("best_of_k")]
    | Annotated[DemonstrationsRelabel, Tag("demonstrations")]
    | Annotated[QuantilesRelabel, Tag("quantiles")]
    | Annotated[AttributesRelabel, Tag("attributes")]
    | Annotated[ChainRelabel, Tag("chain")]
    | Annotated[ConstraintsRelabel, Tag("constraints")]
    | Annotated[LearnedRelabel, Tag("learned")]
    | Annotated[PythonRelabel, Tag("python")],
    tagged("exclude_wrong"),
]
