"""One forward call, as all layers see it.

b batch, t tokens of this call.
"""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

import torch
from torch import Tensor

__all__ = ["FAR", "IGNORED", "Losses", "Step"]

IGNORED = -100  # a target that is not learned from: PyTorch's own word for it
FAR = 1 << 30  # the order of padding: after every query, so that no query sees it

T = TypeVar("T")


class Losses:
    """What layers add to the training loss (a router's balance, say): an object that is emptied by `take`.

    A plain list would grow again when activation checkpointing runs a layer twice; here the second run finds the
    value under its name and replaces it.
    """

    def __init__(self) -> None:
        self._values: dict[tuple[str, int], Tensor] = {}

    def add(self, name: str, value: Tensor, owner: object = None) -> None:
        """Note a scalar under a name that is unique in the model (the layer's number belongs in it), or unique for its owner."""
        self._values[name, id(owner)] = value

    def take(self) -> dict[str, Tensor]:
        """All values noted since the last call, leaving none; call it before backward.

        Of equal names by several owners (two mixtures of experts in one layer), all but the first are numbered.
        """
        values: dict[str, Tensor] = {}
        for (name, _), value in self._values.items():
            count, told = 1, name
            while told in values:
                count += 1
                told = f"{name} ({count})"
            values[told] = value
        self._values = {}
        return values


@dataclass(slots=True)
class Step:
    """What one forward call knows about its tokens, besides their embeddings; the same for all layers.

    Padding stands last in its row, and has the order FAR. Documents that were packed into one row are told apart by
    `begin`: two tokens of a row belong to one document exactly when their `begin` is equal.
    """

    positions: Tensor  # [b t] the token's place in its document: what position encodings encode
    order: Tensor  # [b t] the token's place in its row: cache slots, masks, windows, distances; FAR at padding
    extent: int  # how many tokens the longest row holds once this call is done
    horizon: int  # how many tokens a row may come to hold: the state's capacity, or without one what the longest row of the call holds
    start: int | None = None  # where every row starts, if all are alike and without padding; None where only tensors know
    ends: Tensor | None = None  # [b] how many tokens each row holds once this call is done; None where `start` says it
    valid: Tensor | None = None  # [b t] False at padding, which never alters a state
    begin: Tensor | None = None  # [b t] the order of the first token of this token's document; None: one document a row
    places: Mapping[str, Any] = field(default_factory=dict)  # what each named position prepared for this call
    losses: Losses | None = None  # where layers leave auxiliary losses while training
    shared: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)  # see `once`

    @classmethod
    def even(cls, batch: int, tokens: int, *, start: int, horizon: int, device: torch.device) -> Self:
        """The call in which every row continues at `start` and nothing is padded or packed."""
        order = torch.arange(start, start + tokens, device=device).expand(batch, tokens)
        return cls(positions=order, order=order, extent=start + tokens, horizon=horizon, start=start)

    @property
    def lengths(self) -> Tensor:
        """How many tokens each row holds once this call is done. [b]"""
        return self.once("lengths", lambda: self.order[:, -1] + 1) if self.ends is None else self.ends

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Compute a value that depends on this call alone, the first time a layer asks; later layers share it.

        No gradient flows through it: recomputed layers must find what they found the first time.
        """
        if key not in self.shared:
            with torch.no_grad():
                self.shared[key] = make()
        value: T = self.shared[key]
        return value

    def with_places(self, places: Mapping[str, Any]) -> Self:
        return replace(self, places=places, shared={})
