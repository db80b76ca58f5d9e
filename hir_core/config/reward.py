"""The section `reward`: how completions are scored.

A reward that cannot judge a completion gives it no score (null); such samples are not trained on.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, Tag, field_validator, model_validator

from hir_core.config.section import ExcludedFromId, Section, function_name, tagged


class AnswerReward(Section):
    """1 if the final answer of the completion is a reference answer, else 0. The answer is looked for where one usually
    stands, and is compared as what the references are: an option, a number, yes or no, a list, or a text. No score if
    it is not understood, or if there are several."""

    type: Literal["answer"] = "answer"
    """Selects comparison of final answers; the default type."""
    marker: str | None = Field(None, min_length=1)
    """Text that announces the answer, for example `####`: the answer stands after its last occurrence. Unset: it is
    looked for where one usually stands, such as in a box or after `the answer is`."""


class ExactMatchReward(Section):
    """1 if the completion equals a reference answer, ignoring case, white space and full stops (a decimal
    point counts), else 0."""

    type: Literal["exact_match"] = "exact_match"
    """Selects comparison with the reference answers as they are written."""


class OptionChoiceReward(Section):
    """1 if the completion names a right option by its letter or its text, 0 if it names a wrong one. No score if it
    names none or several."""

    type: Literal["option_choice"]
    """Selects recognition of the chosen option."""
    marker: str | None = Field(None, min_length=1)
    """Text that announces the answer, for example `Answer:`: the option is named after its last occurrence. Unset: the
    answer is looked for where one usually stands, such as in a box or after `the answer is`."""


class ConstraintsReward(Section):
    """Share of the constraints in the prompt's metadata that the completion satisfies, from 0 to 1."""

    type: Literal["constraints"]
    """Selects checking of constraints."""


class NumericReward(Section):
    """1 if the number in the completion equals a reference answer within the tolerances, else 0. No score if there is
    no number, or an ambiguous one."""

    type: Literal["numeric"]
    """Selects comparison of numbers."""
    marker: str | None = Field(None, min_length=1)
    """Text that announces the answer, for example `####`: the number stands after its last occurrence. Unset: it is
    looked for where one usually stands, such as in a box or after `the answer is`."""
    absolute_tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Largest allowed difference from the reference. The larger of the two tolerances counts."""
    relative_tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False)
    """Largest allowed difference as a share of the reference. The larger of the two tolerances counts."""
    percent: Literal["hundredth", "unit"] = "hundredth"
    """How `50%` is read: as 0.5 (`hundredth`) or as 50 (`unit`)."""


class RegexReward(Section):
    """1 if the completion matches a regular expression, else 0. With `group`, 1 if the text of that group is a
    reference answer, else 0, and no score without a match."""

    type: Literal["regex"]
    """Selects a regular expression."""
    pattern: str
    """Regular expression in the syntax of Python's `re`. Flags are written inside it, as in `(?is)`."""
    match: Literal["search", "last", "fullmatch"] = "search"
    """What must match: any part of the completion, taking the first (`search`) or the last match (`last`), or the
    whole completion (`fullmatch`)."""
    group: int | str | None = None
    """Number or name of the group that is compared with the reference answers, as in `exact_match`. Unset: a match is
    enough."""
    time_limit_s: float = Field(1.0, gt=0, le=3600)
    """Limit in seconds of processor time for one completion, which does not depend on what else the machine does. A
    match that takes longer gives no score."""

    @model_validator(mode="after")
    def _compiles(self) -> RegexReward:
        check_pattern(self.pattern, self.group)
        return self


def check_pattern(pattern: str, group: int | str | None) -> None:
    """Checks that a pattern can be compiled and has the group.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of patterns that a later Python may understand otherwise
            compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    known = [*range(compiled.groups + 1), *compiled.groupindex]
    if group is not None and group not in known:
        raise ValueError(f"{pattern!r} has no group {group!r}: it has {', '.join(map(str, known))}")


class GradedReward(Section):
    """How much of a reference sequence the completion has in the right order, from 0 to 1. No score if it contains none
    of the items."""

    type: Literal["graded"]
    """Selects grading of a sequence."""
    measure: Literal["prefix", "kendall"] = "prefix"
    """What is measured: `prefix`, the share of items before the first wrong one, or `kendall`, the share of pairs of
    items in the right order."""
    marker: str | None = Field(None, min_length=1)
    """Text after whose last occurrence the sequence begins, for example `sorted:`. Unset: the whole completion is the
    sequence."""


class PythonReward(Section):
    """A Python function of your own, `score(completions, prompts)`. For each completion it returns a number, None (no
    score), or a dict of attributes by name, in which `score` is the overall score (by default their mean)."""

    type: Literal["python"]
    """Selects a function of your own."""
    function: str
    """Name of the function as `module:function`. The module must be importable from the working folder."""
    time_limit_s: float | None = Field(None, gt=0, le=3600)
    """Time limit for one completion in seconds on the clock, since the function may wait for something; leave room for
    a busy machine. The function is then called with one completion at a time, and one that takes longer gets no score.
    Unset: no limit, and one call for all completions."""

    _is_function_name = field_validator("function")(function_name)


class MathReward(Section):
    """1 if the mathematical expression in the completion equals a reference answer, else 0 (extra `math`)."""

    type: Literal["math"]
    """Selects comparison of mathematical expressions."""
    marker: str | None = Field(None, min_length=1)
    """Text after whose last occurrence the answer begins, for example `answer:`. Unset: the answer is searched for in
    the whole completion."""
    time_limit_s: float = Field(5.0, gt=0, le=3600)
    """Limit in seconds of processor time for one completion, which does not depend on what else the machine does. One
    that takes longer gets no score, and so does, before any time is measured, one with numbers or powers that are too
    large to be computed."""


JUDGE_TEMPLATE = """\
Compare an answer with what was asked for.

Task:
{query}

Accepted answers: {references}

Answer to compare:
{completion}

Say in one sentence what is right or wrong about it. Then end with a line of its own, `Score: x`, where x is a number
from 0 (wrong) to 1 (right).
"""


_SECRETS = {"apikey", "key", "token", "accesstoken", "secret", "password", "authorization", "headers", "extraheaders"}


class JudgeReward(Section):
    """A score from 0 to 1 given by another language model behind an OpenAI-compatible endpoint. No score if its reply
    contains none."""

    type: Literal["judge"]
    """Selects a language model as judge."""
    url: str
    """Base URL of the API, for example `http://localhost:8000/v1`. Must not contain a key."""
    model: str = Field(min_length=1)
    """Name of the judge model, as the endpoint knows it."""
    template: str = JUDGE_TEMPLATE
    """Text sent to the judge. `{completion}` is required; `{query}` and `{references}` are optional. The `{query}` of a
    conversation is all of its turns."""
    score_pattern: str = r"(?i)score\W{0,5}([0-9.]+)"
    """Regular expression whose first group is the score. The last match in the reply counts."""
    best: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Highest score that the judge can give. Scores are divided by it."""
    options: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0})
    """Further fields of the request, for example `max_tokens`."""
    api_key_env: Annotated[str | None, ExcludedFromId] = None
    """Name of the environment variable that holds the API key. Unset: requests carry no key."""
    max_concurrency: Annotated[int, ExcludedFromId] = Field(8, ge=1, le=256)
    """Largest number of requests at the same time."""
    timeout_s: Annotated[float, ExcludedFromId] = Field(120.0, gt=0, le=3600)
    """Time limit in seconds for one reply. A sample whose reply is later gets no score."""
    retries: Annotated[int, ExcludedFromId] = Field(5, ge=0, le=100)
    """Number of further attempts if the judge is busy, fails or cannot be reached."""
    backoff_s: Annotated[float, ExcludedFromId] = Field(1.0, ge=0, le=60)
    """Waiting time in seconds before the first further attempt, doubled for each next one. A `Retry-After` header in
    the reply takes precedence."""
    cache: Annotated[Path, ExcludedFromId] = Path("judge_cache")
    """Folder in which replies are cached, so that no request is paid for twice. Several runs may share it."""

    # A validator of the whole section: a message about one field would show its value, which may be a misplaced key.
    @model_validator(mode="after")
    def _holds_no_secret(self) -> JudgeReward:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError("url must begin with http:// or https:// and a host, as in http://localhost:8000/v1")
        if address.username or address.password or address.query or address.fragment:
            raise ValueError("url must hold no key and no `?`: name the variable that holds the key in api_key_env")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env must be the name of a variable in capitals, as in JUDGE_API_KEY, not a key")
        if secret := sorted(name for name in self.options if re.sub(r"[-_]", "", name).lower() in _SECRETS):
            raise ValueError(f"options must hold no key, found {', '.join(secret)}: every manifest would show it")
        return self

    @model_validator(mode="after")
    def _template_and_options_make_a_request(self) -> JudgeReward:
        if "{completion}" not in self.template:
            raise ValueError("template must hold {completion}, or every answer would be judged alike")
        if taken := sorted({"model", "messages", "stream", "n"} & set(self.options)):
            raise ValueError(f"options must not set {', '.join(taken)}, which hir decides")
        check_pattern(self.score_pattern, 1)
        return self


class RewardModelReward(Section):
    """The output of a reward model (a sequence classifier) for a query and its completion. No score if they are too
    long for the model."""

    type: Literal["reward_model"]
    """Selects a reward model."""
    source: str
    """`owner/name` on the hub, or the path of a folder. The weights must be in safetensors files, and `transformers`
    must know the architecture."""
    revision: str | None = None
    """Branch, tag or commit on the hub. Unset: the hub's default branch."""
    template: str | None = None
    """How a query and a completion become one text: a format string with `{completion}` and, optionally, `{query}`; or
    `chat` for one turn each in the tokenizer's chat template. Unset: `chat` where the tokenizer has a chat template,
    else each on a line of its own."""
    label: int | str | None = None
    """Number or name of the label whose output is the score. Unset: the only label of the model."""
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    """Function applied to the outputs: `none` (the score may be any number), a `sigmoid` of the label's output, or a
    `softmax` over all labels."""
    batch_tokens: Annotated[int, ExcludedFromId] = Field(16384, ge=1)
    """Number of tokens (padding included) that one rank processes at a time. A memory limit that does not change
    results."""
    write_every_s: Annotated[float, ExcludedFromId] = Field(20.0, ge=0)
    """Longest time in seconds for which finished scores stay unwritten. A crash loses no more than this."""

    @field_validator("template")
    @classmethod
    def _shows_the_completion(cls, template: str | None) -> str | None:
        if template not in (None, "chat") and "{completion}" not in template:
            raise ValueError("expected `chat`, or a text with {completion}, and {query} where it helps")
        return template


class WeightedReward(Section):
    """One part of a `combined` reward: a reward with its name and weight."""

    name: str | None = Field(None, min_length=1)
    """Name of the attribute that this part scores. Unset: the reward's type, or the function's name for `python`."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Weight of this part in the weighted mean. Must stay 1 if `how` is not `mean`."""
    reward: RewardConfig
    """The reward that scores this part; it may be `combined` itself."""

    @property
    def attribute(self) -> str:
        """The name of the attribute that this part scores."""
        own = self.reward.function if isinstance(self.reward, PythonReward) else self.reward.type
        return self.name or own


class CombinedReward(Section):
    """Several rewards combined into one score, each also recorded as an attribute. No score if one of the parts gives
    none."""

    type: Literal["combined"]
    """Selects a combination of rewards."""
    how: Literal["mean", "minimum", "product"] = "mean"
    """How the scores are combined: by weighted mean, minimum or product."""
    parts: tuple[WeightedReward, ...] = Field(min_length=1)
    """The rewards to combine, each with its `weight` and `name`."""

    @model_validator(mode="after")
    def _only_a_mean_has_weights(self) -> CombinedReward:
        if self.how != "mean" and any(part.weight != 1 for part in self.parts):
            raise ValueError(f"`weight` needs `how: mean`: remove every `weight`, or set how=mean, found {self.how}")
        return self

    @model_validator(mode="after")
    def _part_names_are_unique(self) -> CombinedReward:
        counts = Counter(part.attribute for part in self.parts)
        if repeated := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"several parts are named {', '.join(repeated)}: give each a `name` of its own")
        return self


class ReasoningGymReward(Section):
    """The score that the prompt's own task of the library reasoning-gym gives, from 0 to 1 (extra `reasoning-gym`)."""

    type: Literal["reasoning_gym"]
    """Selects the scorer of the prompt's task."""
    run_answers: bool = False
    """Allows tasks whose scorers run answers as Python code. What the model writes is then executed with your
    permissions."""


RewardConfig = Annotated[
    Annotated[AnswerReward, Tag("answer")]
    | Annotated[ExactMatchReward, Tag("exact_match")]
    | Annotated[OptionChoiceReward, Tag("option_choice")]
    | Annotated[ConstraintsReward, Tag("constraints")]
    | Annotated[NumericReward, Tag("numeric")]
    | Annotated[RegexReward, Tag("regex")]
    | Annotated[GradedReward, Tag("graded")]
    | Annotated[PythonReward, Tag("python")]
    | Annotated[MathReward, Tag("math")]
    | Annotated[JudgeReward, Tag("judge")]
    | Annotated[RewardModelReward, Tag("reward_model")]
    | Annotated[ReasoningGymReward, Tag("reasoning_gym")]
    | Annotated[CombinedReward, Tag("combined")],
    tagged("answer"),
]

WITH_ATTRIBUTES = (CombinedReward, ConstraintsReward, PythonReward)
"""Rewards that can score several attributes of one output."""

WeightedReward.model_rebuild()  # parts of a combined reward may be combined themselves
CombinedReward.model_rebuild()


def has_reward_model(reward: RewardConfig) -> bool:
    """Whether a reward is a reward model, or has one among its parts."""
    if isinstance(reward, CombinedReward):
        return any(has_reward_model(part.reward) for part in reward.parts)
    return isinstance(reward, RewardModelReward)
