"""How outputs are judged."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, Tag, field_validator, model_validator

from hir_core.config.section import ExcludedFromId, OmittedIfDefault, Section, function_name, tagged


class ExactMatchReward(Section):
    """1 where the completion equals an accepted answer, case, blanks and full stops aside; else 0."""

    type: Literal["exact_match"] = "exact_match"


class OptionChoiceReward(Section):
    """1 where the completion names the right option by letter or text, 0 another one; none recognised: cannot judge."""

    type: Literal["option_choice"]


class ConstraintsReward(Section):
    """The share of the constraints in a prompt's metadata that the completion satisfies: 1 where it satisfies all."""

    type: Literal["constraints"]


class NumericReward(Section):
    """1 where the number in the completion is an accepted one, else 0; no number, or an unclear one: cannot judge."""

    type: Literal["numeric"]
    marker: str | None = Field(None, min_length=1)
    """The number is the first after the last of these, for example `####`; left out: the last of the completion."""
    absolute_tolerance: float = Field(0.0, ge=0, allow_inf_nan=False)
    relative_tolerance: float = Field(1e-9, ge=0, allow_inf_nan=False)
    """As a share of the accepted number; the larger of both tolerances counts."""
    percent: Literal["hundredth", "unit"] = "hundredth"
    """What `50%` is: 0.5, or 50."""


class RegexReward(Section):
    """1 where the completion matches the pattern, else 0; with a group, whether what it found is an accepted answer."""

    type: Literal["regex"]
    pattern: str
    """A regular expression as in Python's `re`; flags stand inside, as in `(?is)`."""
    match: Literal["search", "last", "fullmatch"] = "search"
    """Where it must match: anywhere (the first or last place counts), or the whole completion."""
    group: int | str | None = None
    """The group, by number or name, that is compared with the references as in exact_match; no match: cannot judge."""
    time_limit_s: float = Field(1.0, gt=0, le=3600)
    """Seconds for one completion; a match that takes longer cannot be judged."""

    @model_validator(mode="after")
    def _compiles(self) -> RegexReward:
        check_pattern(self.pattern, self.group)
        return self


def check_pattern(pattern: str, group: int | str | None) -> None:
    """Makes sure that a pattern can be compiled and has the group.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
    known = [*range(compiled.groups + 1), *compiled.groupindex]
    if group is not None and group not in known:
        raise ValueError(f"{pattern!r} has no group {group!r}: it has {', '.join(map(str, known))}")


class GradedReward(Section):
    """How much of a sequence is right, 0 to 1; a completion with none of its items: cannot judge."""

    type: Literal["graded"]
    measure: Literal["prefix", "kendall"] = "prefix"
    """`prefix`: right items before the first wrong one; `kendall`: pairs of items in the right order."""
    marker: str | None = Field(None, min_length=1)
    """The sequence follows the last of these, for example `sorted:`; left out: it is the whole completion."""


class PythonReward(Section):
    """A function of yours, `score(completions, prompts)`, which returns for each completion a number, None, or several
    numbers by name: the attributes, with `score` for all of them together (left out: their mean)."""

    type: Literal["python"]
    function: str
    """`module:function`, importable from where you run."""
    time_limit_s: float | None = Field(None, gt=0, le=3600)
    """Seconds for one completion; it is then called with one at a time, and one that takes longer cannot be judged."""

    _is_named = field_validator("function")(function_name)


class MathReward(Section):
    """1 where the mathematics in the completion equals an accepted answer, else 0; needs the extra `math`."""

    type: Literal["math"]
    marker: str | None = Field(None, min_length=1)
    """The answer follows the last of these, for example `answer:`; left out: it is looked for in all of it."""
    time_limit_s: float = Field(5.0, gt=0, le=3600)
    """Seconds for one completion; one that takes longer cannot be judged."""


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
    """A score from 0 to 1 that another model gives, over an OpenAI-compatible endpoint; no score: cannot judge."""

    type: Literal["judge"]
    url: str
    """Where the API begins, for example `http://localhost:8000/v1`; holds no key."""
    model: str = Field(min_length=1)
    template: str = JUDGE_TEMPLATE
    """What it is asked, with `{completion}`, and `{query}` and `{references}` where they help; the `{query}` of a
    conversation is all of its turns."""
    score_pattern: str = r"(?i)score\W{0,5}([0-9.]+)"
    """A regular expression, the first group of which is the score; the last place in the reply counts."""
    best: float = Field(1.0, gt=0, allow_inf_nan=False)
    """The highest score, by which scores are divided."""
    options: dict[str, Any] = Field(default_factory=lambda: {"temperature": 0})
    """Further keys of the request, for example `max_tokens`."""
    api_key_env: Annotated[str | None, ExcludedFromId] = None
    """Name of the environment variable that holds the key."""
    max_concurrency: Annotated[int, ExcludedFromId] = Field(8, ge=1, le=256)
    timeout_s: Annotated[float, ExcludedFromId] = Field(120.0, gt=0, le=3600)
    """Seconds for one reply; a later one cannot be judged."""
    retries: Annotated[int, ExcludedFromId] = Field(5, ge=0, le=100)
    """Further attempts where the judge is busy, broken or cannot be reached."""
    backoff_s: Annotated[float, ExcludedFromId] = Field(1.0, ge=0, le=60)
    """Seconds before the first further attempt, doubled for each next one; a Retry-After of the judge goes before."""
    cache: Annotated[Path, ExcludedFromId] = Path("judge_cache")
    """Folder that keeps the replies, so that none is paid for twice; runs may share it."""

    # On the whole section: a message about one field would show its value, which may be a key in the wrong place.
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
            raise ValueError(f"options must hold no key, found {', '.join(secret)}: it would stand in every manifest")
        return self

    @model_validator(mode="after")
    def _can_ask(self) -> JudgeReward:
        if "{completion}" not in self.template:
            raise ValueError("template must hold {completion}, or every answer would be judged alike")
        if taken := sorted({"model", "messages", "stream", "n"} & set(self.options)):
            raise ValueError(f"options must not set {', '.join(taken)}, which hir decides")
        check_pattern(self.score_pattern, 1)
        return self


class RewardModelReward(Section):
    """What a sequence classifier says of a query and its completion; where they are too long for it: cannot judge."""

    type: Literal["reward_model"]
    source: str
    """`owner/name` on the hub, or a folder; its weights must be safetensors, and its code that of `transformers`."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    template: str | None = None
    """How query and completion become one text: a format string with `{completion}`, and `{query}` where it helps, or
    `chat` for a turn each in the tokenizer's own chat template. Left out: `chat` where the tokenizer has one, else both
    on lines of their own."""
    label: int | str | None = None
    """The label whose output is the score, by number or name; left out: the only one."""
    activation: Literal["none", "sigmoid", "softmax"] = "none"
    """What the output goes through: nothing (any number), a sigmoid of its own, or a softmax over all labels."""
    batch_tokens: Annotated[int, ExcludedFromId] = Field(16384, ge=1)
    """Tokens, padding counted, that one rank works on at a time."""
    write_every_s: Annotated[float, ExcludedFromId] = Field(20.0, ge=0)
    """Finished scores are written at least this often: what a crash can cost."""

    @field_validator("template")
    @classmethod
    def _shows_the_completion(cls, template: str | None) -> str | None:
        if template not in (None, "chat") and "{completion}" not in template:
            raise ValueError("expected `chat`, or a text with {completion}, and {query} where it helps")
        return template


class WeightedReward(Section):
    """A part of a combined reward."""

    name: Annotated[str | None, OmittedIfDefault] = Field(None, min_length=1)
    """Of the attribute that it judges; left out: its reward's name."""
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)
    """How much it counts in the mean."""
    reward: RewardConfig

    @property
    def attribute(self) -> str:
        """The name of what it judges."""
        own = self.reward.function if isinstance(self.reward, PythonReward) else self.reward.type
        return self.name or own


class CombinedReward(Section):
    """Several rewards as one score, and each as an attribute; where one part cannot judge, the whole cannot."""

    type: Literal["combined"]
    how: Literal["mean", "minimum", "product"] = "mean"
    parts: tuple[WeightedReward, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weights_count(self) -> CombinedReward:
        if self.how != "mean" and any(part.weight != 1 for part in self.parts):
            raise ValueError(f"weights count in a mean only: leave `weight` out, or set how to mean, found {self.how}")
        return self

    @model_validator(mode="after")
    def _parts_have_names_of_their_own(self) -> CombinedReward:
        counts = Counter(part.attribute for part in self.parts)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"several parts are named {', '.join(twice)}: give each a `name` of its own")
        return self


class ReasoningGymReward(Section):
    """The score of the reasoning-gym task that a prompt was drawn from (extra `reasoning-gym`)."""

    type: Literal["reasoning_gym"]
    run_answers: bool = False
    """Allows tasks whose scorers run answers as Python code: whatever the model writes is then run with your rights."""


RewardConfig = Annotated[
    Annotated[ExactMatchReward, Tag("exact_match")]
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
    tagged("exact_match"),
]

WITH_ATTRIBUTES = (CombinedReward, ConstraintsReward, PythonReward)
"""Rewards that can judge several attributes of one output."""

WeightedReward.model_rebuild()  # parts of a combined reward may be combined themselves
CombinedReward.model_rebuild()


def has_reward_model(reward: RewardConfig) -> bool:
    """Whether a reward is a classifier, or has one among its parts."""
    if isinstance(reward, CombinedReward):
        return any(has_reward_model(part.reward) for part in reward.parts)
    return isinstance(reward, RewardModelReward)
