"""What a model is trained on, whatever it comes from: examples of equal length, and where they are found.

b batch, t tokens of an example.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol, Self

import torch
from torch import Tensor

from llamazoo.contract.step import IGNORED

__all__ = ["IGNORED", "DataSet", "Example", "Examples", "stacked"]


class Example(NamedTuple):
    """Tokens, what is to be predicted after each of them, and which document each is of; all int64, [t], or [b t] of a batch."""

    tokens: Tensor
    targets: Tensor
    """The next token of the same document, or -100 where nothing is to be learned: at its end, at padding, at a probe's question."""
    segments: Tensor
    """A running number: documents that share an example do not see each other. Padding is a document of its own.

    In validation no two documents of the split have the same number, nor has a document two.
    """

    @property
    def learned(self) -> int:
        """How many targets count."""
        return int((self.targets != IGNORED).sum())

    def to(self, device: torch.device) -> Self:
        return type(self)(*(each.to(device, non_blocking=True) for each in self))


class Examples(Protocol):
    """Examples by number; each follows from its number alone, so that a run can be resumed anywhere."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example:
        """Raises IndexError from `len` on."""


class DataSet(Protocol):
    """A corpus or a probe, ready to be read."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this; a model needs at least as many."""

    @property
    def fingerprint(self) -> str:
        """A hash of all that its examples follow from: texts, tokenizer, split."""

    @property
    def accuracy(self) -> bool:
        """Whether the share of targets that are predicted right is a measure of its own, as it is for a probe."""

    def training(self, seq_len: int, seed: int) -> Examples:
        """Examples of `seq_len` tokens in an order that `seed` gives; one pass follows the other without end."""

    def validation(self, seq_len: int) -> Examples:
        """Examples that training never sees, in one order for all; the last may be padded."""

    def facts(self) -> dict[str, str | int | float]:
        """What a report tells of it: documents, tokens, how it was split."""


def stacked(examples: Iterable[Example]) -> Example:
    """A batch [b t] of examples [t]."""
    return Example(*(torch.stack(each) for each in zip(*examples, strict=True)))
