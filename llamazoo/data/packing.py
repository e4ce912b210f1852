"""Cuts documents into examples: laid end to end in a drawn order, and cut at every so many tokens.

Every token but the first of its document is a target exactly once an epoch: a document's last token before the cut is followed
by the first after it, which the next example begins with.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from llamazoo.data.draws import Purpose, draws
from llamazoo.data.example import IGNORED, Example

__all__ = ["ENDLESS", "Documents", "Endless", "OnePass"]

ENDLESS = 2**40  # examples; no run comes near it
EPOCHS_KEPT = 2  # an example may begin in one and end in the next

Ids = NDArray[np.unsignedinteger[Any]]


class Documents(Protocol):
    """The tokens of some documents, none of which is empty."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each has."""

    def __getitem__(self, index: int) -> Ids: ...


class Order(NamedTuple):
    """In which order documents are read, and how many tokens there are up to each one's end."""

    documents: NDArray[np.int64]
    ends: NDArray[np.int64]


def drawn_order(lengths: NDArray[np.int64], seed: int, purpose: Purpose, epoch: int) -> Order:
    """The order in which one epoch reads the documents of these lengths."""
    order = draws(seed, purpose, epoch).permutation(len(lengths))
    return Order(order, np.cumsum(lengths[order]))


def cut(pieces: Iterator[tuple[Ids, int]], seq_len: int, first: int = 0) -> Example:
    """One example of documents, each with the place at which to begin; padded if there are too few. They are numbered from `first`."""
    tokens = np.zeros(seq_len, dtype=np.int64)
    targets = np.full(seq_len, IGNORED, dtype=np.int64)
    segments = np.zeros(seq_len, dtype=np.int64)
    at, number = 0, first
    while at < seq_len and (piece := next(pieces, None)) is not None:
        document, begin = piece
        taken = document[begin : begin + seq_len - at]
        following = document[begin + 1 : begin + 1 + len(taken)]  # one less at the document's end, where nothing follows
        tokens[at : at + len(taken)] = taken
        targets[at : at + len(following)] = following
        segments[at : at + len(taken)] = number
        at, number = at + len(taken), number + 1
    segments[at:] = number
    return Example(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(segments))


class OnePass:
    """All documents once, in an order that is the same for all; the last example is padded.

    A document has one number in all examples that it reaches into, so that documents can be counted over some of them.
    """

    def __init__(self, documents: Documents, seq_len: int) -> None:
        self.documents, self.seq_len = documents, seq_len
        self._order = drawn_order(documents.lengths, 0, Purpose.VALIDATION_ORDER, 0)

    def __len__(self) -> int:
        return int(-(-self._order.ends[-1] // self.seq_len))

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        at = index * self.seq_len
        return cut(pieces_from(self.documents, self._order, at), self.seq_len, _document_at(self._order, at))


class Endless:
    """All documents again and again, each time in another order: that of epoch e follows from the seed and e alone."""

    def __init__(self, documents: Documents, seq_len: int, seed: int) -> None:
        self.documents, self.seq_len, self.seed = documents, seq_len, seed
        self.tokens = int(documents.lengths.sum())  # of an epoch
        self._orders: dict[int, Order] = {}

    def __len__(self) -> int:
        return ENDLESS

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < ENDLESS:
            raise IndexError(f"example {index} of {ENDLESS}")
        return cut(self._pieces(index * self.seq_len), self.seq_len)

    def _pieces(self, at: int) -> Iterator[tuple[Ids, int]]:
        epoch, at = divmod(at, self.tokens)
        while True:
            yield from pieces_from(self.documents, self._order(epoch), at)
            epoch, at = epoch + 1, 0

    def _order(self, epoch: int) -> Order:
        if epoch not in self._orders:
            self._orders[epoch] = drawn_order(self.documents.lengths, self.seed, Purpose.TRAINING_ORDER, epoch)
            for old in list(self._orders)[:-EPOCHS_KEPT]:
                del self._orders[old]
        return self._orders[epoch]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_orders": {}}  # a worker draws its own


def _document_at(order: Order, at: int) -> int:
    """Which document of an order, counted from 0, token `at` is of."""
    return int(np.searchsorted(order.ends, at, side="right"))


def pieces_from(documents: Documents, order: Order, at: int) -> Iterator[tuple[Ids, int]]:
    """The documents from token `at` of an order on, the first of them perhaps from its midst."""
    first = _document_at(order, at)
    begin = at - int(order.ends[first - 1]) if first else at
    for number in order.documents[first:]:
        yield documents[int(number)], begin
        begin = 0
