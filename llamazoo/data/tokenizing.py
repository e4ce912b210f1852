"""Which tokenizer a corpus is read with: bytes, one from a file, or one that is trained on the corpus."""

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

import sentencepiece
import tokenizers
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from llamazoo.contract.options import Size
from llamazoo.errors import DataError
from llamazoo.generation.tokenizer import Tokenizer, checked_ids, clean_text

__all__ = ["BYTES", "ByteTokenizer", "SentencePieceTraining", "TokenizerChoice", "Trained", "tokenizer_digest", "train_sentencepiece"]

BYTES = "bytes"
LINE = 2000  # characters; sentencepiece counts words of lines, and leaves out lines that are too long for it


class SentencePieceTraining(BaseModel):
    """How a sentencepiece model is trained. Kudo & Richardson 2018; Sennrich et al. 2016 (bpe); Kudo 2018 (unigram)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    vocab_size: Annotated[int, Field(gt=0, le=1 << 22)] = 4096
    """How many ids there will be, four million at most; 257 of them are the bytes and <unk>."""
    model: Literal["bpe", "unigram"] = "bpe"
    """bpe merges the commonest pairs; unigram prunes a large vocabulary by likelihood, and takes twenty times as long."""
    max_bytes: Size = 32 << 20
    """How much text it is trained on, from the first training document on."""


class Trained(BaseModel):
    """A tokenizer that is trained on the training documents."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)

    sentencepiece: SentencePieceTraining
    """A sentencepiece model."""


def _sort(value: Any) -> str:
    return "trained" if isinstance(value, dict | Trained) else "named"


TokenizerChoice = Annotated[
    Annotated[str, Field(min_length=1), Tag("named")] | Annotated[Trained, Tag("trained")],
    Field(discriminator=Discriminator(_sort)),
]


class ByteTokenizer:
    """The 256 bytes of UTF-8, each its own id; nothing stands before a text or after it."""

    vocab_size = 256
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(clean_text(text).encode())

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(checked_ids(ids, self.vocab_size)).decode(errors="replace")

    def save(self, folder: str | PathLike[str]) -> None:
        """Write a tokenizer.json that gives the same ids."""
        vocab = {character: byte for byte, character in enumerate(_visible_bytes())}
        same = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocab, merges=[]))
        same.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        same.decoder = tokenizers.decoders.ByteLevel()
        (Path(folder) / "tokenizer.json").write_text(same.to_str(pretty=True), encoding="utf-8")


def _visible_bytes() -> Iterator[str]:
    """The character by which byte-level tokenizers write each byte: itself if it can be seen, else one from U+0100 on. GPT-2."""
    hidden = 0x100
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or (0xA1 <= byte <= 0xFF and byte != 0xAD):
            yield chr(byte)
        else:
            yield chr(hidden)
            hidden += 1


def tokenizer_digest(tokenizer: Tokenizer) -> str:
    """A hash of all that a tokenizer from a file is, wherever the file lies: of what it writes when it is saved."""
    found = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder)
        for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
            data = path.read_bytes()
            found.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    return found.hexdigest()


def train_sentencepiece(texts: Iterable[str], options: SentencePieceTraining, path: Path) -> None:
    """Train a model and write its file; equal texts give equal files. Raises DataError.

    Nothing of a text is dropped: spaces stay as they are, and what is rare is written in bytes. One character is changed: U+2581,
    by which sentencepiece writes a space, is read as one.
    """
    lines = list(_lines(texts, options.max_bytes))  # a list, since what is raised while sentencepiece iterates is lost
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            vocab_size=options.vocab_size,
            model_type=options.model,
            byte_fallback=True,
            character_coverage=0.9999,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            max_sentence_length=4 * LINE,
            unk_id=0,
            bos_id=-1,
            eos_id=-1,
            pad_id=-1,
            num_threads=1,  # unigram adds up in the order of its threads
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise DataError(
            f"no sentencepiece model of {options.vocab_size} ids can be trained on these {len(lines)} lines: {reason}"
        ) from None
    path.write_bytes(written.getvalue())


def _lines(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    left = max_bytes
    for text in texts:
        for line in text.split("\n"):
            for begin in range(0, len(line), LINE):
                piece = line[begin : begin + LINE]
                left -= len(piece.encode())
                if left < 0:
                    return
                yield piece
