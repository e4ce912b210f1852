"""Probes of memory: a sequence is to be said again, all of it, or without the blanks in between."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from llamazoo.contract.options import Size
from llamazoo.data.probes.probe import Probe, Tasks, distinct, unanswered

__all__ = ["Copying", "SelectiveCopying"]

SEPARATOR, BLANK = 1, 2  # ids before those of symbols


class Copying(Probe):
    """Copying a sequence. Graves et al. 2014 (arXiv 1410.5401), section 4.1; Jelassi et al. 2024 (arXiv 2402.01032).

    `length` random symbols and a separator, after which they are due once more in the same order.
    """

    source: Literal["copying"] = "copying"
    length: Size = 32
    """Symbols to be copied."""
    vocab_size: Size = 32
    """How many symbols there are, besides padding and the separator."""

    @property
    def task_length(self) -> int:
        return 2 * self.length

    @property
    def ids(self) -> int:
        return 2 + self.vocab_size

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    @property
    def shortcut(self) -> float:
        return without_places(self.length, self.vocab_size)

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        symbols = 2 + rng.integers(self.vocab_size, size=(count, self.length))
        return said_again(symbols, symbols)


class SelectiveCopying(Probe):
    """Copying what is scattered among blanks. Gu & Dao 2023 (Mamba, arXiv 2312.00752); Jing et al. 2019 (denoising).

    `length` random symbols at random places among `blanks` blanks, and a separator, after which the symbols are due in order.
    """

    source: Literal["selective_copying"] = "selective_copying"
    length: Size = 16
    """Symbols to be copied."""
    blanks: Size = 32
    """Blanks among them."""
    vocab_size: Size = 16
    """How many symbols there are, besides padding, the separator and the blank."""

    @property
    def task_length(self) -> int:
        return 2 * self.length + self.blanks

    @property
    def ids(self) -> int:
        return 3 + self.vocab_size

    @property
    def chance(self) -> float:
        return 1 / self.vocab_size

    @property
    def shortcut(self) -> float:
        return without_places(self.length, self.vocab_size)

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        symbols = 3 + rng.integers(self.vocab_size, size=(count, self.length))
        places = np.sort(distinct(rng, count, self.length, self.length + self.blanks), axis=1)
        scattered = np.full((count, self.length + self.blanks), BLANK, dtype=np.int64)
        np.put_along_axis(scattered, places, symbols, axis=1)
        return said_again(scattered, symbols)


def without_places(length: int, symbols: int) -> float:
    """What is scored without knowing where a symbol stood: by any of those left, or by any that followed the last one; the better.

    With r symbols left, drawn independently, any of them is right with a chance of 1/r, and else by coincidence. The last symbol
    stands at 1 + Binomial(length - 2, 1 / symbols) places that have a follower, of whose followers one is right.
    """
    guess = 1 / symbols
    left = sum(1 / r for r in range(1, length + 1)) / length
    if length == 1:
        return left + (1 - left) * guess
    places = (1 - (1 - guess) ** (length - 1)) / ((length - 1) * guess)  # the mean of one over how many
    followed = (length - 1) / length * places
    return max(left, followed) * (1 - guess) + guess


def said_again(question: NDArray[np.int64], answer: NDArray[np.int64]) -> Tasks:
    """A question, the separator, and the answer, of which the last token is due and no longer needs to stand there."""
    count, length = answer.shape
    separator = np.full((count, 1), SEPARATOR, dtype=np.int64)
    tokens = np.concatenate([question, separator, answer[:, :-1]], axis=1)
    targets = unanswered(tokens)
    targets[:, -length:] = answer
    return Tasks(tokens, targets)
