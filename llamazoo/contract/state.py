"""What a layer remembers while decoding.

b batch, t tokens of this call, s slots, k heads of what is remembered, e their width.

A state holds what its component needs and knows nothing of how many tokens it holds: that one count lives in the decoder's
state, and reaches a layer through the Step. Every buffer has one slot more than it says, into which padding is written;
it starts as zeros, since a value that no query sees is still multiplied, by nought.
"""

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from llamazoo.contract.kernel import Visible
from llamazoo.contract.step import Step

__all__ = ["KeyValueState", "State", "TokenState"]


class State(Protocol):
    """What the decoder asks of any layer's memory. Rows are those of the batch."""

    @property
    def longest_write(self) -> int | None:
        """How many tokens a row may be given at once; None: any number."""

    @property
    def nbytes(self) -> int: ...

    def select(self, rows: Tensor) -> None:
        """Make row i what row `rows[i]` was; rows may repeat, and the batch may change its size."""

    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        """Why rows that hold `held` tokens, and have `reached` more before, cannot go back to `lengths`; or None.

        A row that keeps its length is not touched, and one that goes back to 0 is as new: neither is a reason.
        """

    def rewind(self, lengths: list[int], held: list[int]) -> None:
        """Forget, row by row, all but the first `lengths` of `held` tokens; asked only after `refuses_rewind`."""

    def clear(self, rows: Tensor) -> None:
        """Make these rows as new."""

    def put(self, rows: Tensor, other: Self) -> None:
        """Make these rows what the rows of `other`, a state of the same capacity, are."""

    def clone(self) -> Self: ...


class TokenState:
    """Some tensors of every token: of all tokens, or for a window of the last `window + chunk - 1`, in a ring.

    A token of order i stands in slot i, or in the ring in slot i modulo its size; so no slot needs a label. `shapes` has the
    heads and the width of each tensor; what all heads share has one head.
    """

    def __init__(
        self,
        batch: int,
        capacity: int,
        shapes: Sequence[tuple[int, int]],
        *,
        window: int | None,
        chunk: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        ring = None if window is None else window + chunk - 1
        self.is_ring = ring is not None and ring < capacity
        self.size = ring if ring is not None and ring < capacity else capacity
        self.window = window
        self.chunk = chunk
        self.tensors = tuple(torch.zeros(batch, heads, self.size + 1, width, device=device, dtype=dtype) for heads, width in shapes)

    def write(self, values: Sequence[Tensor], step: Step) -> tuple[Sequence[Tensor], Visible]:
        """Write what this call's tokens add to each tensor [b k t e]; return all that its queries look at, and what they may see of it."""
        start, tokens = step.start, values[0].shape[2]
        wrapped = self.is_ring and step.extent > self.size
        if start is not None and not wrapped:
            for tensor, value in zip(self.tensors, values, strict=True):
                tensor[:, :, start : start + tokens] = value
            if start == 0:  # nothing before this call: no need to read it back
                return values, Visible(step, window=self.window)
        else:
            slots = step.once(("slots", self.size, self.is_ring), lambda: self._slots(step))
            rows = torch.arange(len(slots), device=slots.device)[:, None]
            for tensor, value in zip(self.tensors, values, strict=True):
                tensor[rows, :, slots] = value.transpose(1, 2)
        if wrapped:
            return [tensor[:, :, : self.size] for tensor in self.tensors], Visible(step, "ring", self.size, self.window)
        extent = step.extent
        return [tensor[:, :, :extent] for tensor in self.tensors], Visible(step, "slots", extent, self.window)

    def _slots(self, step: Step) -> Tensor:  # [b t]
        slots = step.order % self.size if self.is_ring else step.order
        return slots if step.valid is None else slots.masked_fill(~step.valid, self.size)

    @property
    def longest_write(self) -> int | None:
        return self.chunk if self.is_ring else None

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def select(self, rows: Tensor) -> None:
        self.tensors = tuple(tensor[rows] for tensor in self.tensors)

    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        for length, now, far in zip(lengths, held, reached, strict=True):
            # A ring that has run on has overwritten what lay a window before the place to go back to.
            if self.is_ring and 0 < length < now and far > self.size and far - length > self.chunk:
                return f"a window of {self.window} tokens keeps what it needs to go back by {self.chunk}, not by {far - length}"
        return None

    def rewind(self, lengths: list[int], held: list[int]) -> None:
        """Nothing to do: what stands after the last token is not seen until it is overwritten."""

    def clear(self, rows: Tensor) -> None:
        for tensor in self.tensors:
            tensor[rows] = 0

    def put(self, rows: Tensor, other: Self) -> None:
        for tensor, source in zip(self.tensors, other.tensors, strict=True):
            tensor[rows] = source

    def clone(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, tensors=tuple(tensor.clone() for tensor in self.tensors))
        return twin


class KeyValueState(TokenState):
    """Keys and values of earlier tokens: all of them, or those in the ring of a window."""

    def __init__(
        self, batch: int, capacity: int, heads: int, width: int, *, window: int | None, chunk: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        super().__init__(batch, capacity, [(heads, width)] * 2, window=window, chunk=chunk, device=device, dtype=dtype)

    @property
    def keys(self) -> Tensor:
        return self.tensors[0]

    @property
    def values(self) -> Tensor:
        return self.tensors[1]

    def extend(self, k: Tensor, v: Tensor, step: Step) -> tuple[Tensor, Tensor, Visible]:
        """Write this call's keys and values [b k t e]; return all that its queries look at, and what they may see of it."""
        (keys, values), visible = self.write((k, v), step)
        return keys, values, visible
