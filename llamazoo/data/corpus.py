"""Texts as a data set: tokenised once, split by hash, packed into examples."""

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from llamazoo.contract.options import Size
from llamazoo.data.draws import checked_request
from llamazoo.data.example import Examples
from llamazoo.data.packing import Endless, OnePass
from llamazoo.data.store import LAYOUT, STORE_VERSION, TRAINED_FILE, Split, Store, default_cache, made_store, write_store
from llamazoo.data.texts.document import Document, Texts, first, held_out, utf8
from llamazoo.data.texts.files import FileTexts
from llamazoo.data.texts.hub import HubTexts
from llamazoo.data.texts.library import LibraryTexts
from llamazoo.data.tokenizing import BYTES, ByteTokenizer, TokenizerChoice, Trained, tokenizer_digest, train_sentencepiece
from llamazoo.errors import DataError, LlamazooError
from llamazoo.generation.tokenizer import SentencePieceTokenizer, Tokenizer, load_tokenizer

__all__ = ["Corpus", "FilesData", "HubData", "StdlibData", "TextData"]

MARKS = "marks U+2581 read as spaces"
SPACE_MARK = "\u2581"


class Corpus:
    """A data set of texts; its documents do not see each other, and every token but each one's first is predicted once an epoch."""

    accuracy = False
    tokenizer: Tokenizer | None = None
    """What made the tokens; a copy for another process, which only reads them, has none."""

    def __init__(self, store: Store, tokenizer: Tokenizer) -> None:
        self.store, self.tokenizer = store, tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def vocab_size(self) -> int:
        return self.store.header.vocab_size

    @property
    def fingerprint(self) -> str:
        return self.store.fingerprint

    def training(self, seq_len: int, seed: int) -> Examples:
        checked_request(seq_len, seed)
        return Endless(self.store.documents("training"), seq_len, seed)

    def validation(self, seq_len: int) -> Examples:
        checked_request(seq_len)
        return OnePass(self.store.documents("validation"), seq_len)

    def facts(self) -> dict[str, str | int | float]:
        """Documents, tokens and bytes of both splits, and what was left out."""
        counts = {
            f"{split} {what}": getattr(sums, what)
            for split, sums in self.store.header.splits.items()
            for what in ("documents", "tokens", "bytes")
        }
        return {**self.store.header.facts, "vocab_size": self.vocab_size, **counts, "fingerprint": self.fingerprint}


class TextData(BaseModel, ABC):
    """What all sources of text have in common."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    tokenizer: TokenizerChoice = BYTES
    """`bytes`; the file or folder of a tokenizer; or `{sentencepiece: {vocab_size: 4096}}`, trained on the training documents."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """The share of documents that are held out, by a hash of their text."""
    max_documents: Size | None = None
    """Read no more documents than that."""
    max_bytes: Size | None = None
    """Stop before the document with which the text would be larger than that."""

    @abstractmethod
    def texts(self, folder: Path | None = None) -> Texts:
        """The documents; names of files count from `folder`, the current one unless given. Raises DataError."""

    def open(self, cache: Path | None = None, *, folder: Path | None = None) -> Corpus:
        """The tokens, made if they are not there yet. Raises DataError, and TokenizerError."""
        texts = self.texts(folder)
        given = None if isinstance(self.tokenizer, Trained) else self._given(self.tokenizer, folder or Path())
        chosen = self._digest_of_tokenizer(given)
        options = {"validation": self.validation, "max_documents": self.max_documents, "max_bytes": self.max_bytes}
        key = hashlib.sha256(json.dumps([STORE_VERSION, LAYOUT, texts.digest, chosen, options]).encode()).hexdigest()
        store = made_store((cache or default_cache()) / "tokens" / key[:40], lambda draft: self._write(draft, texts, given))
        return Corpus(store, given or SentencePieceTokenizer(store.folder / TRAINED_FILE))

    @staticmethod
    def _given(name: str, folder: Path) -> Tokenizer:
        return ByteTokenizer() if name == BYTES else load_tokenizer(folder / os.path.expanduser(name))

    def _digest_of_tokenizer(self, given: Tokenizer | None) -> str:
        if given is None:
            assert isinstance(self.tokenizer, Trained)
            return self.tokenizer.model_dump_json()
        return BYTES if self.tokenizer == BYTES else tokenizer_digest(given)

    def _write(self, draft: Path, texts: Texts, tokenizer: Tokenizer | None) -> None:
        trained = tokenizer is None
        if tokenizer is None:
            assert isinstance(self.tokenizer, Trained)
            learned_from = (document.text for document in self._read(texts) if self._split(document) == "training")
            train_sentencepiece(learned_from, self.tokenizer.sentencepiece, draft / TRAINED_FILE)
            tokenizer = SentencePieceTokenizer(draft / TRAINED_FILE)
        left_out: Counter[str] = Counter({"empty documents": 0})
        if trained:
            left_out[MARKS] = 0
        told = "bytes" if self.tokenizer == BYTES else "from a file" if isinstance(self.tokenizer, str) else "trained on the corpus"
        write_store(
            draft,
            self._encoded(texts, tokenizer, left_out),
            tokenizer.vocab_size,
            lambda: {**texts.facts, "tokenizer": told, "validation share": self.validation, **left_out},
        )

    def _read(self, texts: Texts) -> Iterator[Document]:
        return first(texts, self.max_documents, self.max_bytes)

    def _split(self, document: Document) -> Split:
        return "validation" if held_out(utf8(document), self.validation) else "training"

    def _encoded(self, texts: Texts, tokenizer: Tokenizer, left_out: Counter[str]) -> Iterator[tuple[Split, NDArray[np.int64], int]]:
        for document in self._read(texts):
            ids = _ids(document, tokenizer) if document.text else np.empty(0, dtype=np.int64)
            if len(ids):
                if MARKS in left_out:
                    left_out[MARKS] += document.text.count(SPACE_MARK)
                yield self._split(document), ids, len(utf8(document))
            else:
                left_out["empty documents"] += 1


def _ids(document: Document, tokenizer: Tokenizer) -> NDArray[np.int64]:
    try:
        ids = np.array(tokenizer.encode(document.text), dtype=np.int64)
    except LlamazooError as error:
        raise DataError(f"{document.where}: cannot be tokenised: {error}") from None
    if len(ids) and not 0 <= ids.min() <= ids.max() < tokenizer.vocab_size:
        raise DataError(f"{document.where}: the tokenizer gave ids from {ids.min()} to {ids.max()}, and has {tokenizer.vocab_size}")
    return ids


class StdlibData(TextData):
    """The source of the interpreter's standard library."""

    source: Literal["stdlib"] = "stdlib"

    def texts(self, folder: Path | None = None) -> Texts:
        return LibraryTexts()


class FilesData(TextData):
    """Files of your own."""

    source: Literal["files"] = "files"
    paths: Annotated[list[str], Field(min_length=1)]
    """Paths or patterns (`corpus/**/*.txt`) of .txt (one document), .jsonl (one a line) and .parquet (one a row)."""
    text: str = "text"
    """The field of a line, or the column, that holds the text."""

    def texts(self, folder: Path | None = None) -> Texts:
        return FileTexts(self.paths, self.text, folder)


class HubData(TextData):
    """A data set of the Hugging Face hub."""

    source: Literal["hf"] = "hf"
    name: Annotated[str, Field(min_length=1)]
    """Its name, or a folder: one that is there, or whatever begins with `./`, `../`, `/` or `~/`."""
    config: str | None = None
    """Which of its configurations."""
    split: str = "train"
    """Which of its splits; validation is cut from it by hash."""
    revision: str | None = None
    """The commit, branch or tag."""
    text: str = "text"
    """The column that holds the text."""

    def texts(self, folder: Path | None = None) -> Texts:
        return HubTexts(self.name, self.config, self.split, self.revision, self.text, folder)
