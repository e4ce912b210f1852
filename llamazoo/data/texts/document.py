"""A document, and what gives documents: the same ones, in the same order, each time they are asked for."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from llamazoo.errors import DataError

__all__ = ["Document", "Texts", "first", "held_out", "utf8"]


class Document(NamedTuple):
    """One text, and where it was read."""

    where: str
    """The file, and the line or row, for errors."""
    text: str


class Texts(Protocol):
    """A corpus before it is cut into tokens."""

    @property
    def digest(self) -> str:
        """A hash of all documents and their order; not of where they lie."""

    @property
    def facts(self) -> dict[str, str | int | float]: ...

    def __iter__(self) -> Iterator[Document]: ...


def utf8(document: Document) -> bytes:
    """A document's bytes. Raises DataError for what JSON can write and Unicode cannot, half of a surrogate pair."""
    try:
        return document.text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{document.where}: is not Unicode: {error.reason} at character {error.start}") from None


def first(documents: Iterable[Document], max_documents: int | None, max_bytes: int | None) -> Iterator[Document]:
    """Documents until there are so many, or until the next would make them larger than that.

    What comes after `max_documents` is not looked at. Raises DataError if already the first text is larger than `max_bytes`.
    """
    taken = 0
    for document in itertools.islice(documents, max_documents):
        size = len(utf8(document))
        if max_bytes is not None and taken + size > max_bytes:
            if not taken:
                raise DataError(f"{document.where}: has {size} bytes, `max_bytes` is {max_bytes}, and no document is cut: nothing is left")
            return
        taken += size
        yield document


def held_out(data: bytes, share: float) -> bool:
    """Whether a document is for validation; it follows from its own bytes alone, so equal documents are on one side."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") < share * 2**64
