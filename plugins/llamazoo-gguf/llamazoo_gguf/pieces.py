"""Writes a tokenizer.model of sentencepiece. Kudo & Richardson 2018.

It is a protocol buffer: sentencepiece_model.proto gives the numbers of the fields. GGUF has taken over its pieces, scores
and types as they are.
"""

import struct

from gguf.constants import TokenType

__all__ = ["tokenizer_model"]

BPE = 2  # TrainerSpec.ModelType


def tokenizer_model(
    tokens: list[str], scores: list[float], types: list[int], bos: int | None, eos: int | None, *, prefix: bool, squeeze: bool
) -> bytes:
    """A BPE model of these tokens; `prefix` puts a space before a text, `squeeze` makes one of several."""
    pieces = (
        # Within pieces a space is U+2581; converters write it plainly in tokens that were added later.
        _bytes(1, token.replace(" ", "\u2581").encode()) + _float(2, score) + _integer(3, kind)
        for token, score, kind in zip(tokens, scores, types, strict=True)
    )
    unknown = types.index(TokenType.UNKNOWN)
    trainer = _integer(3, BPE) + _integer(35, TokenType.BYTE in types)
    # An end that is no control token counts as none, and so does the unknown token.
    for number, token in ((45, unknown), (46, unknown if bos is None else bos), (47, unknown if eos is None else eos)):
        trainer += _bytes(number, tokens[token].encode())
    normalizer = _bytes(1, b"identity") + _integer(3, prefix) + _integer(4, squeeze)
    return b"".join(_bytes(1, piece) for piece in pieces) + _bytes(2, trainer) + _bytes(3, normalizer)


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])


def _integer(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value
