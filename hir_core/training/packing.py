"""Token sequences packed into rows: beginnings that are equal are computed once, and short sequences share a row.

The sequences of a micro-batch become tries, in which a token that several of them begin with is one node. A row holds
the nodes of one or more tries, depth first. A node's position is its depth, and it attends to itself and to the nodes
before it on the way from the root, so that a model computes for every node what it computes for the sequence alone.
Which rows are the best depends on the implementation of attention (`Packing`). The tensors are left to `batches`, the
attention mask to `masks`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

ROOT = -1
"""The parent of a first token."""


@dataclass
class Trie:
    """Sequences as a tree of their tokens, in depth-first order."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    """Of each node, the node of the token before it, or `ROOT`."""
    paths: dict[int, list[int]] = field(default_factory=dict)
    """By the number of a sequence: the nodes of its tokens."""

    def add(self, number: int, sequence: Sequence[int], beginning: list[int]) -> None:
        """Adds a sequence below the nodes of its first tokens.

        Args:
            beginning: these nodes, the first ones of the path that was added last.
        """
        path = list(beginning)
        for token in sequence[len(beginning) :]:
            self.parents.append(path[-1] if path else ROOT)
            path.append(len(self.tokens))
            self.tokens.append(token)
        self.paths[number] = path

    def depths(self) -> list[int]:
        """The number of tokens before each node on its way from the root."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return depths

    def ends(self) -> list[int]:
        """The node after the last one below each node: those that attend to node n are n to ends[n] - 1."""
        ends = list(range(1, len(self.tokens) + 1))
        for node in reversed(range(len(self.tokens))):
            if (parent := self.parents[node]) != ROOT:
                ends[parent] = max(ends[parent], ends[node])
        return ends


@dataclass(frozen=True)
class Rows:
    """The layout of a forward pass: rows of tokens, which are not padded, and where each sequence's tokens are."""

    tokens: list[list[int]]
    positions: list[list[int]]
    """The position of each token in its sequence."""
    ends: list[list[int]]
    """The column after the last token that attends to each token."""
    places: list[list[tuple[int, int]]]
    """Row and column of every token of each sequence."""
    is_packed: bool
    """Whether rows need `positions` and a mask from `ends`, because each is not just one sequence."""

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.tokens))


@dataclass(frozen=True)
class Packing:
    """The rows of a model whose sequences are packed."""

    hidden_size: int
    """The model's, see `cost`."""
    is_one_row: bool = False
    """Whether attention skips what a token does not attend to: then all sequences are in one row, without padding."""
    shares_beginnings: bool = True
    """Whether beginnings that are equal are computed once; else one sequence follows the other."""

    def rows(self, sequences: Sequence[Sequence[int]]) -> Rows:
        """Packed rows, whatever they cost."""
        if not self.is_one_row:
            return packed_rows(sequences, self.hidden_size)
        tries = build_tries(sequences, None) if self.shares_beginnings else separate_tries(sequences)
        return _rows([tries])

    def cheapest_rows(self, sequences: Sequence[Sequence[int]]) -> Rows:
        """Packed rows where they cost less than a row per sequence, which has padding."""
        return self.rows(sequences) if self.is_one_row else cheapest_rows(sequences, self.hidden_size)


def cheapest_rows(sequences: Sequence[Sequence[int]], hidden_size: int) -> Rows:
    """Packed rows where they cost less than a row per sequence."""
    packed = packed_rows(sequences, hidden_size)
    of_packed = len(packed.tokens) * cost(packed.width, hidden_size)
    of_single = len(sequences) * cost(max(map(len, sequences)), hidden_size)
    return packed if of_packed < of_single else row_per_sequence(sequences)


def row_per_sequence(sequences: Sequence[Sequence[int]]) -> Rows:
    """Every sequence in a row of its own."""
    columns = [range(len(sequence)) for sequence in sequences]
    return Rows(
        tokens=[list(sequence) for sequence in sequences],
        positions=[list(of_row) for of_row in columns],
        ends=[[len(of_row)] * len(of_row) for of_row in columns],
        places=[[(row, column) for column in of_row] for row, of_row in enumerate(columns)],
        is_packed=False,
    )


def separate_tries(sequences: Sequence[Sequence[int]]) -> list[Trie]:
    """A trie of its own for every sequence."""
    tries = [Trie() for _ in sequences]
    for number, sequence in enumerate(sequences):
        tries[number].add(number, sequence, [])
    return tries


def packed_rows(sequences: Sequence[Sequence[int]], hidden_size: int) -> Rows:
    """Equal beginnings once, and tries together in rows of about equal length.

    The cheapest of a few divisions is taken: rows as long as the largest trie, where attention takes little, or fewer
    rows of about equal length, which have less padding.

    Args:
        hidden_size: the model's, see `cost`.
    """
    tries = build_tries(sequences, hidden_size)
    sizes = [len(trie.tokens) for trie in tries]
    most = sum(sizes) // max(sizes)
    counts = {most + 1, most, max(1, most - 1), -(-most * 3 // 4), -(-most // 2)}
    divisions = [_first_fit(sizes), *(_balanced(sizes, count) for count in sorted(counts))]

    def work(division: Sequence[Sequence[int]]) -> float:
        return len(division) * cost(max(sum(sizes[n] for n in row) for row in division), hidden_size)

    return _rows([[tries[n] for n in row] for row in min(divisions, key=work)])


def _first_fit(sizes: Sequence[int]) -> list[list[int]]:
    """The numbers of the sizes in rows as long as the largest: each goes to the first row in which it fits."""
    rows: list[list[int]] = []
    free: list[int] = []
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        row = next((n for n, space in enumerate(free) if space >= sizes[number]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(max(sizes))
        rows[row].append(number)
        free[row] -= sizes[number]
    return rows


def _balanced(sizes: Sequence[int], count: int) -> list[list[int]]:
    """The numbers of the sizes in at most `count` rows: from the largest on, each goes to the row that has least."""
    rows: list[list[int]] = [[] for _ in range(min(count, len(sizes)))]
    filled = [(0, row) for row in range(len(rows))]  # a heap
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        size, row = filled[0]
        rows[row].append(number)
        heapq.heapreplace(filled, (size + sizes[number], row))
    return rows


def build_tries(sequences: Sequence[Sequence[int]], hidden_size: int | None) -> list[Trie]:
    """The sequences as tries; two share one where their equal beginning saves more than the longer row costs.

    Args:
        hidden_size: the model's, see `cost`; None: a longer row costs nothing more.
    """
    tries: list[Trie] = []
    path: list[int] = []
    for number in sorted(range(len(sequences)), key=lambda number: tuple(sequences[number])):
        sequence = sequences[number]
        shared = _shared([tries[-1].tokens[node] for node in path], sequence) if tries else 0
        size = len(tries[-1].tokens) if tries else 0
        together = cost(size + len(sequence) - shared, hidden_size)
        if not tries or together >= cost(size, hidden_size) + cost(len(sequence), hidden_size):
            tries.append(Trie())
            shared = 0
        tries[-1].add(number, sequence, path[:shared])
        path = tries[-1].paths[number]
    return tries


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the equal beginning."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (one, other) in pairs if one != other), min(len(first), len(second)))


def cost(width: int, hidden_size: int | None) -> float:
    """The work of a row, in that of a token without attention.

    A transformer's layer multiplies and adds 12 H^2 times for a token, and 2 H times for each token that it could
    attend to: blocks of the mask are computed as well, unless attention skips them (None).
    """
    return width + (width**2 / (6 * hidden_size) if hidden_size else 0)


def _rows(rows: Sequence[Sequence[Trie]]) -> Rows:
    """The layout of tries that stand one after the other in each row."""
    tokens, positions = [], []
    ends: list[list[int]] = []
    places: dict[int, list[tuple[int, int]]] = {}
    for number, row in enumerate(rows):
        tokens.append([token for trie in row for token in trie.tokens])
        positions.append([depth for trie in row for depth in trie.depths()])
        ends.append([])
        for trie in row:
            start = len(ends[number])
            ends[number] += [start + end for end in trie.ends()]
            places |= {n: [(number, start + node) for node in path] for n, path in trie.paths.items()}
    return Rows(tokens, positions, ends, [places[n] for n in range(len(places))], is_packed=True)
