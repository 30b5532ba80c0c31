"""tokenizer.model of LLaMA and Vicuna -> a `tokenizers` BPE with the same ids, without the sentencepiece package.

Such a file is a protobuf message (sentencepiece_model.proto): 1 pieces {1 text, 2 score, 3 type},
2 trainer_spec {3 model_type, 35 byte_fallback}, 3 normalizer_spec {2 precompiled_charsmap,
3 add_dummy_prefix, 4 remove_extra_whitespaces}. Only these fields decide ids, and only these are read.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import AdapterError

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # wire types
_NORMAL, _CONTROL, _BPE = 1, 3, 2
_SPACE = "▁"


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its place in the file is its id."""

    text: str
    score: float  # of two merges, the one with the higher score comes first
    control: bool  # <s> and </s>: never found in a text


def read_pieces(path: Path) -> list[Piece]:
    """The vocabulary of a tokenizer.model. Raises AdapterError unless it is a BPE as LLaMA has it."""
    try:
        parts = list(_fields(path.read_bytes()))
        pieces = [_piece(dict(_fields(part))) for number, part in parts if number == 1]
        trainer, normalizer = (
            {k: v for number, part in parts if number == wanted for k, v in _fields(part)}
            for wanted in (2, 3)
        )
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as error:
        raise AdapterError(f"{path}: not a sentencepiece model ({type(error).__name__}: {error}).") from None
    expected = {
        "<unk>, <s>, </s> first": [piece.text for piece in pieces[:3]] == ["<unk>", "<s>", "</s>"],
        "model_type BPE": trainer.get(3) == _BPE,
        "byte_fallback": trainer.get(35) == 1,
        "no character map": not normalizer.get(2),
        "a dummy prefix": normalizer.get(3, 1) == 1,
        "all spaces kept": normalizer.get(4, 1) == 0,
    }
    if absent := [what for what, found in expected.items() if not found]:
        raise AdapterError(f"{path}: not a tokenizer as LLaMA has it; expected {', '.join(absent)}.")
    return pieces


def bpe_of(pieces: Sequence[Piece], added: Sequence[Any]) -> Any:
    """A `tokenizers.Tokenizer` with the pieces' ids; `added`, tokenizers.AddedToken, get the ids after them.

    Every stretch of text between added tokens gets a leading space of its own, as LLaMA's first
    ("legacy") tokenizers did it; <s> comes first when special tokens are asked for.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    ids = {piece.text: place for place, piece in enumerate(pieces)}
    bpe = Tokenizer(
        models.BPE(ids, _merges(pieces, ids), unk_token=pieces[0].text, fuse_unk=True, byte_fallback=True)
    )
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace(_SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    marks = [pieces[0].text, *(piece.text for piece in pieces if piece.control)]
    bpe.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    bpe.add_tokens(list(added))
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
    )
    return bpe


def _merges(pieces: Sequence[Piece], ids: dict[str, int]) -> list[tuple[str, str]]:
    """All pairs of pieces that make a piece, the highest score first, as sentencepiece merges them."""
    found = [
        (piece.score, piece.text[:cut], piece.text[cut:])
        for piece in pieces
        for cut in range(1, len(piece.text))
        if piece.text[:cut] in ids and piece.text[cut:] in ids
    ]
    return [(left, right) for _, left, right in sorted(found, key=lambda merge: -merge[0])]


def _piece(fields: dict[int, Any]) -> Piece:
    (score,) = struct.unpack("<f", fields.get(2, bytes(4)))
    return Piece(fields[1].decode("utf-8"), score, fields.get(3, _NORMAL) == _CONTROL)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, int or bytes) of a protobuf message. Raises ValueError where it is cut off."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        wire = key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if wire not in (_EIGHT_BYTES, _BYTES, _FOUR_BYTES):
            raise ValueError(f"wire type {wire} at byte {at}")
        size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(wire)
        if size is None:
            size, at = _varint(message, at)
        if at + size > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """The integer that begins at a byte, and the byte after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at
