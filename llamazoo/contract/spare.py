"""Memory of a large gradient, kept for the next one."""

import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["Spare"]

MAPPED = 32 << 20  # bytes from which on glibc asks the system for every block anew, and gives it back at once (malloc's M_MMAP_THRESHOLD)


class Spare:
    """Hands out the memory of one large tensor on the CPU, and takes it back when that tensor is gone.

    PyTorch keeps freed memory of a GPU for later use and leaves the CPU's to malloc, which returns large blocks to the system: each
    gradient of that size is then written to pages that are fetched one by one, which can take longer than computing it. Small
    tensors, and those of other devices, are allocated as ever. Only while `kept`: a model in training is worth the memory.
    """

    def __init__(self) -> None:
        self.kept = True
        self._free: Any = None

    def empty(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor without values, of the number type and on the device of another."""
        size = math.prod(shape) * like.itemsize
        if like.device.type != "cpu" or size < MAPPED or not self.kept:
            return like.new_empty(shape)
        block, self._free = self._free, None
        if block is None or block.nbytes != size:
            block = torch.empty(size, dtype=torch.uint8).numpy()
        lease = memoryview(block)  # which lives as long as the memory of the tensor is in use, by whomever
        weakref.finalize(lease, self._take_back, block).atexit = False
        return torch.frombuffer(lease, dtype=like.dtype).view(shape)

    def keep(self, kept: bool) -> None:
        """Whether memory is kept from now on; what is kept already is let go if not."""
        self.kept = kept
        if not kept:
            self._free = None

    def _take_back(self, block: Any) -> None:
        if self.kept:
            self._free = block

    def __reduce__(self) -> tuple[type["Spare"], tuple[()]]:
        return Spare, ()  # a copy of a model has memory of its own
