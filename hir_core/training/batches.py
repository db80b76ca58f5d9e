"""Examples as tensors: the layout of one micro-batch.

A micro-batch of R triples has S sequences: first the R triples' own, then one per contrast
instruction. Their tokens are laid out in B rows, one for each sequence or packed as `packing` describes, and go through
the model in one forward pass. Which examples it has is decided in `examples`; the loss is in `losses`.

Shapes, here and in `losses`: B rows, T tokens of the longest; S sequences, U tokens of the longest decoder input;
Q positions whose next token is a target, W different targets of the position that has the most; M target tokens of all
sequences together; R triples, N instructions of the triple that has the most; V vocabulary, H hidden size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hir_core.training.examples import Example, Exclusion
from hir_core.training.exclusion import SoftTarget
from hir_core.training.packing import Packing, Rows, row_per_sequence

LayOut = Callable[[Sequence[Sequence[int]]], Rows]
"""Makes the rows of a micro-batch's sequences."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch as tensors; its first R sequences are the triples' own, the others are contrasts."""

    input_ids: Tensor
    """[B, T]; of encoder-decoders the encoder's input, in which every prompt is once."""
    attention_mask: Tensor
    """[B, T]: 1 at tokens, 0 at padding."""
    position_ids: Tensor | None
    """[B, T]: of packed rows, the position of each token in its sequence; else None."""
    attended_until: Tensor | None
    """[B, T]: of packed rows, the column after the last token that attends to each token; else None."""
    decoder_input_ids: Tensor | None
    """[S, U] for encoder-decoders, else None."""
    encoder_rows: Tensor | None
    """[S]: for encoder-decoders, the row of each sequence's prompt; else None."""
    positions: Tensor
    """[Q]: positions in the flattened input (of encoder-decoders: decoder input) whose next token is a target."""
    position_targets: Tensor
    """[Q, W]: the different targets of each position; where it has fewer than W, its first is repeated."""
    target_places: Tensor
    """[M]: the place of each target token in the flattened `position_targets`, sequence by sequence."""
    target_rows: Tensor
    """[M]: the sequence of each target token."""
    triples: Tensor
    """[S]: the triple of each sequence."""
    weights: Tensor
    """[R]: the weight of each triple."""
    excluded_sequences: Tensor
    """[E]: the sequences that are excluded outputs."""
    removed_shares: Tensor
    """[E]: the share of the probability of each that is taken away."""
    soft_places: Tensor
    """[K]: the place in the flattened `position_targets` of each token of all soft targets."""
    soft_probabilities: Tensor
    """[K]: the probability of each in its soft target."""
    soft_numbers: Tensor
    """[K]: the soft target of each."""
    soft_rests: Tensor
    """[N]: the probability of all other tokens in each soft target."""
    soft_weights: Tensor
    """[N]: the weight of each soft target."""

    @property
    def target_ids(self) -> Tensor:
        """[M]: the target tokens, sequence by sequence."""
        return self.position_targets.flatten()[self.target_places]

    @property
    def predicted_at(self) -> Tensor:
        """[M]: which of the Q positions predicts each target token."""
        return self.target_places // self.position_targets.shape[1]

    @property
    def target_positions(self) -> Tensor:
        """[M]: the position, in the flattened input, that predicts each target token."""
        return self.positions[self.predicted_at]

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved = {name: value.to(device) for name, value in values.items() if value is not None}
        return dataclasses.replace(self, **moved)


def collate(
    examples: Sequence[Example],
    pad_id: int,
    decoder_start_id: int | None,
    lay_out: LayOut = row_per_sequence,
) -> Batch:
    """One micro-batch; every example must have targets.

    Args:
        decoder_start_id: for encoder-decoders; None for decoder-only models.
        lay_out: makes rows of the sequences of a decoder-only model.
    """
    sequences = [(e, e.prompts[0]) for e in examples]
    sequences += [(e, prompt) for e in examples for prompt in e.prompts[1:]]
    triples = [*range(len(examples)), *(n for n, e in enumerate(examples) for _ in e.prompts[1:])]
    starts = [prompt if decoder_start_id is None else (decoder_start_id,) for _, prompt in sequences]
    inputs = [(*start, *e.prefix_ids, *e.target_ids[:-1]) for start, (e, _) in zip(starts, sequences, strict=True)]
    if decoder_start_id is None:
        rows = lay_out(inputs)
        read, decoder_input_ids, encoder_rows = rows.tokens, None, None
    else:
        rows = row_per_sequence(inputs)
        prompts = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompt for _, prompt in sequences))}
        read, decoder_input_ids = [list(prompt) for prompt in prompts], _padded(rows.tokens, pad_id)
        encoder_rows = torch.tensor([prompts[prompt] for _, prompt in sequences])
    return Batch(
        input_ids=_padded(read, pad_id),
        attention_mask=_padded([[1] * len(ids) for ids in read], 0),
        position_ids=_padded(rows.positions, 0) if rows.is_packed else None,
        attended_until=_padded(rows.ends, 0) if rows.is_packed else None,
        decoder_input_ids=decoder_input_ids,
        encoder_rows=encoder_rows,
        **_targets(rows, [e.target_ids for e, _ in sequences], _exclusions(examples)),
        triples=torch.tensor(triples),
        weights=torch.tensor([e.weight for e in examples], dtype=torch.float32),
    )


def _exclusions(examples: Sequence[Example]) -> dict[int, Exclusion]:
    """The exclusions of a micro-batch, by the number of the sequence that is the excluded output."""
    exclusions, contrasts = {}, len(examples)
    for number, example in enumerate(examples):
        if (exclusion := example.exclusion) is not None:
            exclusions[number if exclusion.prompt == 0 else contrasts + exclusion.prompt - 1] = exclusion
        contrasts += len(example.prompts) - 1
    return exclusions


def _targets(rows: Rows, targets: Sequence[Sequence[int]], exclusions: Mapping[int, Exclusion]) -> dict[str, Tensor]:
    """The fields of a batch that say what is predicted, and where.

    Args:
        targets: of every sequence, each predicted from the token before it.
        exclusions: by sequence.
    """
    by_position: dict[int, dict[int, int]] = {}  # the number of each token that a position predicts
    found: list[tuple[int, int]] = []  # position and number of every target
    soft: list[tuple[int, int, float, int]] = []  # the same of every token of a soft target, its probability, which one
    soft_targets: list[SoftTarget] = []

    def number_of(position: int, token: int) -> int:
        known = by_position.setdefault(position, {})
        return known.setdefault(token, len(known))

    for sequence, (places, ids) in enumerate(zip(rows.places, targets, strict=True)):
        positions = [row * rows.width + column for row, column in places[-len(ids) :]]
        found += [(position, number_of(position, token)) for position, token in zip(positions, ids, strict=True)]
        exclusion = exclusions.get(sequence)
        for position, target in zip(positions, exclusion.targets if exclusion else (), strict=False):
            if target is not None:
                soft += [
                    (position, number_of(position, token), probability, len(soft_targets))
                    for token, probability in zip(target.tokens, target.probabilities, strict=True)
                ]
                soft_targets.append(target)
    most = max(map(len, by_position.values()))
    starts = {position: n * most for n, position in enumerate(by_position)}
    tokens = [list(known) for known in by_position.values()]
    return {
        "positions": torch.tensor(list(by_position)),
        "position_targets": torch.tensor([[*ids, *ids[:1] * (most - len(ids))] for ids in tokens]),
        "target_places": torch.tensor([starts[position] + number for position, number in found]),
        "target_rows": torch.tensor([row for row, ids in enumerate(targets) for _ in ids]),
        "excluded_sequences": torch.tensor(list(exclusions), dtype=torch.int64),
        "removed_shares": torch.tensor([e.removed for e in exclusions.values()], dtype=torch.float32),
        "soft_places": torch.tensor([starts[position] + number for position, number, _, _ in soft], dtype=torch.int64),
        "soft_probabilities": torch.tensor([probability for _, _, probability, _ in soft], dtype=torch.float32),
        "soft_numbers": torch.tensor([number for _, _, _, number in soft], dtype=torch.int64),
        "soft_rests": torch.tensor([target.rest for target in soft_targets], dtype=torch.float32),
        "soft_weights": torch.tensor([target.weight for target in soft_targets], dtype=torch.float32),
    }


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (width - len(row))] for row in rows])


@dataclass(frozen=True)
class BatchLayout:
    """The properties of a model that its batches depend on, and the device."""

    pad_id: int
    end_ids: tuple[int, ...]
    """Every token that ends an output."""
    decoder_start_id: int | None
    """For encoder-decoders; None for decoder-only models."""
    device: torch.device
    packing: Packing | None = None
    """The packed rows that a model takes; None: every sequence has a row of its own."""

    def collate(self, examples: Sequence[Example]) -> Batch:
        """One micro-batch on the device, in the rows that cost least."""
        return self._collate(examples, row_per_sequence if self.packing is None else self.packing.cheapest_rows)

    def both_layouts(self, examples: Sequence[Example]) -> tuple[Batch, Batch]:
        """One micro-batch in packed rows, whatever they cost, and with a row per sequence."""
        packed = row_per_sequence if self.packing is None else self.packing.rows
        return self._collate(examples, packed), self._collate(examples, row_per_sequence)

    def _collate(self, examples: Sequence[Example], lay_out: LayOut) -> Batch:
        return collate(examples, self.pad_id, self.decoder_start_id, lay_out).to(self.device)
