"""Tokens on disk: made once, whole or not at all, checked when opened, and memory-mapped.

A store is a folder: `store.json`, and for each split its ids in one flat file and where documents begin in another. `store.json` has
the sum of every other file; its own stands in `store.sha256`, as `sha256sum -c` reads it.
"""

import errno
import functools
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llamazoo.data.drafts import draft_of, remove_left
from llamazoo.errors import DataError

__all__ = [
    "LAYOUT",
    "SPLITS",
    "STORE_VERSION",
    "TRAINED_FILE",
    "Split",
    "Store",
    "StoredDocuments",
    "default_cache",
    "made_store",
    "write_header",
    "write_store",
]

STORE_VERSION: Final = 1  # of what the tokens follow from; fingerprints have it
LAYOUT: Final = 2  # of the folder; only where it lies follows from it
HEADER = "store.json"
HEADER_SUM = "store.sha256"
TRAINED_FILE = "tokenizer.model"  # where a tokenizer that was trained on the corpus lies
SPLITS: tuple["Split", "Split"] = ("training", "validation")
CHUNK = 1 << 20

Split = Literal["training", "validation"]


def default_cache() -> Path:
    """Where tokens are kept: LLAMAZOO_CACHE, or llamazoo in XDG_CACHE_HOME, or in ~/.cache."""
    if own := os.environ.get("LLAMAZOO_CACHE"):
        return Path(os.path.expanduser(own))
    return Path(os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "llamazoo"


class Record(BaseModel):
    """A part of `store.json`; nothing in it is coerced or unknown."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class FileSum(Record):
    """By which a file is known again."""

    bytes: int = Field(ge=0)
    sha256: str


class SplitSum(Record):
    """How much one split holds."""

    documents: int = Field(gt=0)
    tokens: int = Field(gt=0)
    bytes: int = Field(ge=0)
    """Of the documents' text in UTF-8."""


class Header(Record):
    """What the folder holds."""

    version: Literal[2] = LAYOUT
    dtype: Literal["<u2", "<u4"]
    vocab_size: int = Field(gt=0)
    splits: dict[Split, SplitSum]
    files: dict[str, FileSum]
    facts: dict[str, str | int | float]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        needed = {f"{split}.{what}" for split in SPLITS for what in ("ids", "offsets")}
        if set(self.splits) != set(SPLITS) or not needed <= set(self.files) <= needed | {TRAINED_FILE}:
            raise ValueError("is not of these files")
        return self


class StoredDocuments:
    """The documents of one split, mapped when they are first read; a copy for another process maps them itself."""

    def __init__(self, folder: Path, split: Split, header: Header) -> None:
        self.folder, self.split, self.dtype, self.sums = folder, split, header.dtype, header.splits[split]

    @functools.cached_property
    def ids(self) -> NDArray[np.unsignedinteger[Any]]:
        return np.memmap(self.folder / f"{self.split}.ids", dtype=self.dtype, mode="r")

    @functools.cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each document begins; one more than there are documents."""
        return np.memmap(self.folder / f"{self.split}.offsets", dtype="<i8", mode="r")

    @functools.cached_property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return self.sums.documents

    def __getitem__(self, index: int) -> NDArray[np.unsignedinteger[Any]]:
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("ids", "offsets", "lengths")}


class Store:
    """An opened store."""

    def __init__(self, folder: Path) -> None:
        """Check all of it. Raises DataError that says which folder to remove."""
        self.folder = folder
        try:
            self.header = _read_header(folder / HEADER)
            for name, sums in self.header.files.items():
                size = (folder / name).stat().st_size
                if size != sums.bytes:
                    raise ValueError(f"{name} has {size} bytes instead of {sums.bytes}")
                if _sha256(folder / name) != sums.sha256:
                    raise ValueError(f"{name} is not what was written: its SHA-256 is another")
            for split in SPLITS:
                _check_documents(self.documents(split), self.header)
        except (OSError, ValueError) as error:
            what = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
            raise DataError(f"{folder}: these stored tokens are damaged: {what}; remove this folder, and they are made anew") from None

    @property
    def fingerprint(self) -> str:
        """A hash of all tokens, where documents begin, on which side they are, and of how many ids there are."""
        sums = sorted((name, each.sha256) for name, each in self.header.files.items() if name.endswith((".ids", ".offsets")))
        return hashlib.sha256(repr((STORE_VERSION, self.header.vocab_size, sums)).encode()).hexdigest()

    def documents(self, split: Split) -> StoredDocuments:
        return StoredDocuments(self.folder, split, self.header)


def _read_header(path: Path) -> Header:
    data = path.read_bytes()
    if path.with_name(HEADER_SUM).read_text(encoding="utf-8") != _sum_line(data):
        raise ValueError(f"{path.name} is not as it was written: its SHA-256 is not that of {HEADER_SUM}")
    try:
        return Header.model_validate_json(data)
    except ValidationError as error:
        raise ValueError(f"{path.name} is not as it was written ({error.error_count()} faults)") from None


def _sum_line(header: bytes) -> str:
    return f"{hashlib.sha256(header).hexdigest()}  {HEADER}\n"


def _check_documents(documents: StoredDocuments, header: Header) -> None:
    """Whether the files hold what `store.json` says of them; sums alone would let through what was written wrongly."""
    sums, ids, offsets = documents.sums, f"{documents.split}.ids", f"{documents.split}.offsets"
    for name, count, width in ((ids, sums.tokens, np.dtype(header.dtype).itemsize), (offsets, sums.documents + 1, 8)):
        if header.files[name].bytes != count * width:
            raise ValueError(f"{name} has {header.files[name].bytes} bytes; {HEADER} says {count} numbers of {width} bytes")
    if documents.offsets[0] != 0 or documents.offsets[-1] != sums.tokens or documents.lengths.min() < 1:
        raise ValueError(f"{offsets} does not rise from 0 to {sums.tokens}")
    largest = max(int(documents.ids[at : at + CHUNK].max()) for at in range(0, sums.tokens, CHUNK))
    if largest >= header.vocab_size:
        raise ValueError(f"{ids} has the id {largest}, and {HEADER} says that there are {header.vocab_size}")


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            found.update(chunk)
    return found.hexdigest()


class SplitFile:
    """One split while it is written."""

    def __init__(self, folder: Path, split: Split, dtype: str) -> None:
        self.folder, self.split, self.dtype = folder, split, dtype
        self.lengths: list[int] = []
        self.bytes = 0
        self._file = open(folder / f"{split}.ids", "wb")  # noqa: SIM115 - closed by the end of the with that this is

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, ids: NDArray[np.int64], size: int) -> None:
        self._file.write(ids.astype(self.dtype).tobytes())
        self.lengths.append(len(ids))
        self.bytes += size

    def sums(self) -> SplitSum:
        offsets = np.concatenate(([0], np.cumsum(self.lengths)))
        (self.folder / f"{self.split}.offsets").write_bytes(offsets.astype("<i8").tobytes())
        return SplitSum(documents=len(self.lengths), tokens=int(offsets[-1]), bytes=self.bytes)


def write_store(
    folder: Path,
    documents: Iterable[tuple[Split, NDArray[np.int64], int]],
    vocab_size: int,
    facts: Callable[[], dict[str, str | int | float]],
) -> None:
    """Write documents, each with its split and the bytes of its text; `facts` are asked for when all were read.

    Raises DataError if a split comes out without anything to learn from.
    """
    dtype: Literal["<u2", "<u4"] = "<u2" if vocab_size <= 1 << 16 else "<u4"
    with SplitFile(folder, "training", dtype) as training, SplitFile(folder, "validation", dtype) as validation:
        files = {"training": training, "validation": validation}
        for split, ids, size in documents:
            files[split].add(ids, size)
    _check_splits({split: file.lengths for split, file in files.items()})
    splits: dict[Split, SplitSum] = {"training": training.sums(), "validation": validation.sums()}
    sums = {path.name: FileSum(bytes=path.stat().st_size, sha256=_sha256(path)) for path in sorted(folder.iterdir())}
    header = Header(dtype=dtype, vocab_size=vocab_size, splits=splits, files=sums, facts=facts())
    write_header(folder, header)


def write_header(folder: Path, header: Header) -> None:
    """Write `store.json`, and the sum of it."""
    data = (header.model_dump_json(indent=2) + "\n").encode()
    (folder / HEADER).write_bytes(data)
    (folder / HEADER_SUM).write_text(_sum_line(data), encoding="utf-8")


def _check_splits(lengths: dict[str, list[int]]) -> None:
    counts = ", ".join(f"{len(found)} for {split}" for split, found in lengths.items())
    if not any(lengths.values()):
        raise DataError("the data set is empty: it has no document with any token")
    total = sum(map(len, lengths.values()))
    for split, found in lengths.items():
        if not found and total == 1:
            raise DataError(
                "the data set is a single document, and documents are not divided between training and validation; "
                "a .txt file is one document: split it into several files, or make it a .jsonl file with a document on each line"
            )
        if not found:
            raise DataError(
                f"no document is left for {split}: documents fall on a side by a hash of their text, {counts}; "
                "give more documents (each .txt file is one), or another share as `validation`"
            )
        if max(found) < 2:
            raise DataError(f"there is nothing to predict in {split}: none of its documents has a second token ({counts})")


def made_store(folder: Path, write: Callable[[Path], None]) -> Store:
    """The store in `folder`, which is written first if there is none.

    It is written elsewhere and renamed, so that it is there whole or not at all; of two processes that write it at once,
    the later throws its own away. What a killed one left of it is removed.
    """
    if not _is_there(folder):
        try:
            remove_left(folder)
            with draft_of(folder) as draft:
                write(draft)
                _place(draft, folder)
        except OSError as error:
            raise DataError(f"{folder}: tokens cannot be written there: {error.strerror or error}; set LLAMAZOO_CACHE") from None
    return Store(folder)


def _is_there(folder: Path) -> bool:
    try:
        if folder.exists():
            return True
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder.parent}: no tokens can be kept there: {error.strerror}; set LLAMAZOO_CACHE") from None
    return False


def _place(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
