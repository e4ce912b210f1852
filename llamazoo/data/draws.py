"""Random numbers that follow from what they are for: a seed, a purpose, and an index; nothing is remembered."""

from enum import IntEnum

import numpy as np

from llamazoo.errors import DataError

__all__ = ["Purpose", "checked_request", "draws"]


class Purpose(IntEnum):
    """What is drawn; each is a key of its own, so that no two share a number."""

    TRAINING_ORDER = 0
    VALIDATION_ORDER = 1
    TRAINING_TASKS = 2
    VALIDATION_TASKS = 3
    VALIDATION_PAIRS = 4
    SHORTCUT_TASKS = 5


def draws(seed: int, purpose: Purpose, index: int) -> np.random.Generator:
    """The random numbers of one example, or of one epoch's order. Philox-4x64: Salmon et al. 2011, section 3.3.

    The seed and the purpose are the key, the index stands in the second word of the counter; so each has 2**64 blocks.
    """
    key, counter = np.array([seed, purpose], dtype=np.uint64), np.array([0, index, 0, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def checked_request(seq_len: int, seed: int = 0) -> None:
    """Raises DataError if no examples can be cut so."""
    if seq_len < 1:
        raise DataError(f"an example of {seq_len} tokens: it needs at least one")
    if not 0 <= seed < 2**64:
        raise DataError(f"the seed {seed} is not from 0 to 2**64 - 1")
