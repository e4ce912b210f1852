"""From examples to batches, in order, from any of them on."""

import torch
from torch.utils.data import DataLoader

from llamazoo.data.example import Example, Examples, stacked

__all__ = ["batches"]


def batches(examples: Examples, *, rows: int, count: int, first: int = 0, workers: int = 0) -> "DataLoader[Example]":
    """The first `count` examples in batches of `rows`, the last of them perhaps smaller, from batch number `first` on.

    An example follows from its number alone, so that the number of a batch is all that there is to remember.
    """
    numbers = [range(start, min(start + rows, count)) for start in range(first * rows, count, rows)]
    # A generator of its own: the loader draws a number from it, which would else be missing from the model's.
    return DataLoader(examples, batch_sampler=numbers, collate_fn=stacked, num_workers=workers, generator=torch.Generator())  # type: ignore[arg-type]
