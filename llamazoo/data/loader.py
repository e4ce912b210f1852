"""Examples in batches, in the order of their numbers, from any of them on."""

import torch
from torch.utils.data import DataLoader

from llamazoo.data.example import Example, Examples, stacked
from llamazoo.errors import DataError

__all__ = ["batches"]


def batches(examples: Examples, *, rows: int, count: int, first: int = 0, workers: int = 0) -> "DataLoader[Example]":
    """The first `count` examples in batches [rows t], the last of them perhaps smaller, from batch number `first` on.

    They are the same with any number of worker processes. An example follows from its number alone, so that the number of a
    batch is all that a run needs to go on from. Raises DataError if there are too few examples.
    """
    if count > len(examples):
        raise DataError(f"{count} examples are asked for, and there are {len(examples)}")
    if not 0 <= first <= -(-count // rows):
        raise DataError(f"batch {first} is none of {-(-count // rows)}")
    numbers = Numbers(rows, count, first)
    # A generator of its own: the loader draws a number from it, which would else be missing from the model's.
    own = torch.Generator().manual_seed(0)
    return DataLoader(examples, batch_sampler=numbers, collate_fn=stacked, num_workers=workers, generator=own)  # type: ignore[arg-type]


class Numbers:
    """The numbers of each batch's examples, counted when they are asked for: there may be millions."""

    def __init__(self, rows: int, count: int, step: int) -> None:
        self.rows, self.count, self.step = rows, count, step

    def __len__(self) -> int:
        return -(-self.count // self.rows) - self.step

    def __getitem__(self, index: int) -> range:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = (self.step + index) * self.rows
        return range(start, min(start + self.rows, self.count))
