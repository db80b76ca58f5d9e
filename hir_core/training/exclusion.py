"""What a model learns from excluded outputs: the next-token distributions of the model conditioned on not writing them.

    p*(o) = p(o) (1 - r(o)) / (1 - sum over W of r(o) p(o))

W are the distinct excluded outputs of one prompt, r(o) the share of an output's probability that is removed (1: all of
it), and p is the model at the start of training. p* is given as targets of single tokens: for every prefix s of an
excluded output, with R(s) = sum over the outputs o of W that begin with s of r(o) p(rest of o | s),

    q(v | s) = p(v | s) (1 - R(s v)) / (1 - R(s))          the target of the next token
    w(s)     = R() p(s) (1 - R(s)) / (1 - R())             R() times the probability that p* passes through s

so that the sum over s of w(s) KL(q(. | s) || pi(. | s)) is R() KL(p* || pi), by the chain rule, up to prefixes after
which the two distributions are known to be equal at the start of training. A prompt counts by R(), the share of the
model's outputs for it that are known to be wrong: where that is small, p* is nearly p, and training towards it would
do little but hold the model where it was. Reads and writes nothing. The probabilities are computed by `teacher`, the
loss by `losses`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

LARGEST_REMOVED = 0.95
"""Largest R() of a prompt: what is left is computed as a difference, and log-probabilities agree to 1e-3 only."""
SMALLEST_LEFT = 1e-6
"""Smallest 1 - R(s): smaller ones are rounding."""


@dataclass(frozen=True)
class NextToken:
    """The model's distribution of one token: the likeliest tokens, by falling probability."""

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class ScoredOutput:
    """An excluded output, and what the model at the start of training makes of it."""

    target_ids: tuple[int, ...]
    removed: float
    """r(o), from 0 to 1."""
    logprobs: tuple[float, ...]
    """Of each token, in nats."""
    next_tokens: tuple[NextToken, ...]
    """At each token."""


@dataclass(frozen=True)
class SoftTarget:
    """The distribution q that one token is trained towards."""

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]
    rest: float
    """The probability of all other tokens together."""
    weight: float
    """w(s)"""


@dataclass
class _Prefix:
    """A prefix s of excluded outputs."""

    logprob: float
    """log p(s)"""
    removed: float = 0.0
    """R(s)"""
    children: dict[int, tuple[float, _Prefix]] = field(default_factory=dict)
    """By the next token: its probability, and the longer prefix."""
    next_tokens: NextToken | None = None
    """None at the end of an output."""


def soft_targets(outputs: Sequence[ScoredOutput]) -> list[tuple[SoftTarget | None, ...]]:
    """The target of every token of every output of one prompt.

    A prefix that several outputs have in common has one target, which stands in the first of these outputs; the others
    have None there. None stands as well where nothing is left: p* never passes there.

    Args:
        outputs: distinct.
    """
    root, paths = _prefixes(outputs)
    seen: set[int] = set()
    targets = []
    for path in paths:
        new = [prefix if id(prefix) not in seen else None for prefix in path[:-1]]
        seen.update(map(id, path))
        targets.append(tuple(None if prefix is None else _target(prefix, root) for prefix in new))
    return targets


def _prefixes(outputs: Sequence[ScoredOutput]) -> tuple[_Prefix, list[list[_Prefix]]]:
    """The empty prefix, and those on the way to each output, the empty one and the whole output included."""
    root = _Prefix(0.0)
    paths = []
    for output in outputs:
        path = [root]
        for token, logprob, next_tokens in zip(output.target_ids, output.logprobs, output.next_tokens, strict=True):
            prefix = path[-1]
            prefix.next_tokens = next_tokens
            if token not in prefix.children:
                prefix.children[token] = math.exp(logprob), _Prefix(prefix.logprob + logprob)
            path.append(prefix.children[token][1])
        paths.append(path)
    removed = sum(o.removed * math.exp(path[-1].logprob) for o, path in zip(outputs, paths, strict=True))
    factor = min(1.0, LARGEST_REMOVED / removed) if removed else 1.0
    for output, path in zip(outputs, paths, strict=True):
        for prefix in path:
            prefix.removed += factor * output.removed * math.exp(path[-1].logprob - prefix.logprob)
    return root, paths


def _target(prefix: _Prefix, root: _Prefix) -> SoftTarget | None:
    left = 1 - prefix.removed
    if left < SMALLEST_LEFT or prefix.next_tokens is None:
        return None
    now = dict(zip(prefix.next_tokens.tokens, prefix.next_tokens.probabilities, strict=True))
    now |= {token: probability for token, (probability, _) in prefix.children.items()}
    kept = dict(now)
    for token, (probability, longer) in prefix.children.items():
        kept[token] = probability * max(0.0, 1 - longer.removed)
    rest = max(0.0, 1 - sum(now.values()))
    total = sum(kept.values()) + rest
    weight = root.removed * math.exp(prefix.logprob) * left / (1 - root.removed)
    return SoftTarget(tuple(kept), tuple(value / total for value in kept.values()), rest / total, weight)
