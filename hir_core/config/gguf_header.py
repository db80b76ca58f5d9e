"""The header of a GGUF file: the numbers of its metadata, how many tokens it has, and the names of its tensors.

Reads the beginning of the file, and no weights. The format is that of llama.cpp: little-endian; magic, version, number
of tensors, number of entries; the entries (name, type, value); the tensors (name, sizes, type, offset). Raises
ConfigError for a file that is no such one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from hir_core.errors import ConfigError

_NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
"""How a number of each type is packed, by the type's number."""
_TEXT, _LIST = 8, 9
MOST_ENTRIES, MOST_ITEMS, MOST_BYTES = 10**5, 10**7, 2**24
"""Greatest numbers of entries or tensors, of items of a list, and of bytes of a text that are read."""


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says about its model."""

    metadata: dict[str, Any]
    """Numbers and texts by name; of a list its length."""
    tensors: dict[str, tuple[int, ...]]
    """Sizes of each tensor by name."""

    def as_config(self) -> dict[str, Any]:
        """The shape under the names of a `config.json` of `transformers`."""
        kind = self.metadata.get("general.architecture")

        def value(name: str) -> Any:
            return self.metadata.get(f"{kind}.{name}")

        return {
            "model_type": kind,
            "vocab_size": self.metadata.get("tokenizer.ggml.tokens"),
            "hidden_size": value("embedding_length"),
            "intermediate_size": value("feed_forward_length"),
            "num_hidden_layers": value("block_count"),
            "num_attention_heads": value("attention.head_count"),
            "num_key_value_heads": value("attention.head_count_kv"),
            "head_dim": value("attention.key_length"),
            "max_position_embeddings": value("context_length"),
            "tie_word_embeddings": "output.weight" not in self.tensors,
        }


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of a GGUF file.

    Raises:
        ConfigError: it cannot be read, or is damaged.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except (OSError, ValueError, struct.error) as error:
        raise ConfigError(f"model.path: cannot read {path} as a GGUF file: {error}") from None


def _read(file: BinaryIO) -> GgufHeader:
    if file.read(4) != b"GGUF":
        raise ValueError("it does not begin with GGUF")
    version = _number(file, "<I")
    if version not in (2, 3):
        raise ValueError(f"its version is {version}, expected 2 or 3")
    tensors, entries = (_limited(_number(file, "<Q"), MOST_ENTRIES) for _ in range(2))
    metadata = {_text(file): _value(file, _number(file, "<I")) for _ in range(entries)}
    shapes = {}
    for _ in range(tensors):
        name = _text(file)
        shapes[name] = tuple(_number(file, "<Q") for _ in range(_limited(_number(file, "<I"), 8)))
        file.seek(12, 1)  # type and offset
    return GgufHeader(metadata, shapes)


def _number(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def _text(file: BinaryIO) -> str:
    return file.read(_limited(_number(file, "<Q"), MOST_BYTES)).decode(errors="replace")


def _value(file: BinaryIO, kind: int) -> Any:
    """The value of an entry; of a list its length, since only the number of tokens is asked for."""
    if kind in _NUMBERS:
        return _number(file, _NUMBERS[kind])
    if kind == _TEXT:
        return _text(file)
    if kind != _LIST:
        raise ValueError(f"an entry is of the unknown type {kind}")
    item, count = _number(file, "<I"), _limited(_number(file, "<Q"), MOST_ITEMS)
    if item in _NUMBERS:
        file.seek(count * struct.calcsize(_NUMBERS[item]), 1)
    elif item == _TEXT:
        for _ in range(count):
            file.seek(_limited(_number(file, "<Q"), MOST_BYTES), 1)
    else:
        raise ValueError(f"a list is of the unknown type {item}")
    return count


def _limited(count: int, most: int) -> int:
    if count > most:
        raise ValueError(f"it counts {count:,} of something, more than {most:,}")
    return count
