"""How much memory a computation holds, measured by running it on tensors that have shapes and no data."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Live", "Saved"]


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors made within, while they live; `peak` is the most at once. What is in `known` is not counted."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return made


class Saved:
    """Counts what autograd keeps for the backward pass: the bytes of each storage once, under who first kept it.

    Whoever runs sets `owner`; what is in `known` (the weights) is not counted.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        self.owner: object = None
        self.bytes: dict[object, int] = {}
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen.add(storage)
            self.bytes[self.owner] = self.bytes.get(self.owner, 0) + storage.nbytes()
        return tensor

    def watch(self) -> Any:
        """A context in which savings are counted."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, _same)


def _same(tensor: Tensor) -> Tensor:
    return tensor
